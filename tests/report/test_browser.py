"""The HTML in a browser: what moves, what the keyboard reaches, how it fits a phone, what axe-core says."""

import itertools
import re
import shutil
from types import SimpleNamespace
from urllib.parse import parse_qs

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import config, data, metrics
from helpers.report import explorer, publish, render
from tests.report.test_explorer import predicted

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed (Debian, Ubuntu: apt install chromium)")

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SCREENS = {
    "light": {"viewport": {"width": 1440, "height": 900}},
    "dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
TEMPERATURES = {"BaselineNet": 1.1, "ImprovedNet": 0.83, "Unsure": 1.3}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two pages: the explorer with known predictions of three networks, and that behind the published notebooks."""
    part = data.test("smoke")
    seen = {name: predicted(part.labels, i, scale=0.05 if i == 2 else 1) for i, name in enumerate(TEMPERATURES)}
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "display", lambda bundle, raw: shown.append(new_output("display_data", bundle)))
        explorer.mistakes(part, seen)
        explorer.temperature(part.labels, seen, TEMPERATURES)
    alone = [new_markdown_cell("# Try"), new_code_cell("", outputs=shown)]
    paths = sorted((config.ROOT / "reports" / "notebooks").glob("*.ipynb"))
    cells = render.join([nbformat.read(path, as_version=4) for path in paths]).cells
    others = [cell for cell in cells if not any(explorer.MIME in o.get("data", {}) for o in cell.get("outputs", []))]
    exporter = render.HTMLReport(meta=publish.texts(publish.META) | {"pagetitle": "Report"})
    folder, pages = tmp_path_factory.mktemp("browser"), {}
    for name, content in {"alone": alone, "whole": [*others, *alone]}.items():
        page, _ = exporter.from_notebook_node(new_notebook(cells=content))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
        pages[name] = (folder / f"{name}.html").as_uri()
    return SimpleNamespace(part=part, seen=seen, **pages)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=QUIET)


@pytest.fixture
def visit(browser, report):
    """Open a page; whatever it asks of a network or writes to the console fails the test."""
    contexts, complaints = [], []

    def opened(fragment="", screen="light", address=report.alone, **settings):
        contexts.append(browser.new_context(**SCREENS[screen], **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url[:80]))
        page.goto(address + fragment)
        if not settings:
            page.wait_for_selector("#temperature .charts")
        return page

    yield opened
    for context in contexts:
        context.close()
    asked = [each for each in complaints if not each.startswith(("data:", report.alone, report.whole))]
    assert asked == []


def mistakes(report, network, true=None, predicted=None, least=0.0):
    """The indices of the mistakes that the explorer should show."""
    p, labels = report.seen[network], report.part.labels
    chosen = (p.labels != labels) & (np.round(1000 * p.confidence) >= 1000 * least)
    if true is not None:
        chosen &= labels == config.CLASSES.index(true)
    if predicted is not None:
        chosen &= p.labels == config.CLASSES.index(predicted)
    return np.flatnonzero(chosen)


def shown(page):
    """The indices of the images in the explorer."""
    while (more := page.locator("#mistakes > button")).is_visible():
        more.click()
    return [int(text.removeprefix("#")) for text in page.locator("#mistakes .pictures small").all_inner_texts()]


def test_a_cell_of_the_confusion_matrix_shows_its_images(visit, report):
    page = visit()
    page.locator("#mistakes").get_by_label("Network").select_option("ImprovedNet")
    counts = metrics.confusion(report.seen["ImprovedNet"].logits, report.part.labels)
    np.fill_diagonal(counts, 0)
    i, j = np.unravel_index(counts.argmax(), counts.shape)
    true, predicted = config.CLASSES[i], config.CLASSES[j]
    cell = page.get_by_role("button", name=f"{true} taken for {predicted}: {counts[i, j]}", exact=True)
    cell.click()
    assert cell.get_attribute("aria-pressed") == "true"
    found = shown(page)
    assert sorted(found) == mistakes(report, "ImprovedNet", true, predicted).tolist() and len(found) == counts[i, j]
    confidence = report.seen["ImprovedNet"].confidence[found]
    assert (np.diff(np.round(1000 * confidence)) <= 0).all()
    assert f"{counts[i, j]} mistake" in page.locator("#mistakes [role=status]").inner_text()
    query = parse_qs(page.url.split("#mistakes?")[1])
    assert query["true"] == [true] and query["predicted"] == [predicted]
    assert shown(visit("#" + page.url.split("#")[1])) == found


def test_least_confidence_leaves_out_the_others(visit, report):
    page = visit("#mistakes?network=ImprovedNet&true=cat&least=60")
    assert sorted(shown(page)) == mistakes(report, "ImprovedNet", "cat", least=0.6).tolist()
    page.locator("#mistakes").get_by_label("Least confidence").fill("0")
    assert sorted(shown(page)) == mistakes(report, "ImprovedNet", "cat").tolist()
    assert page.evaluate("scrollY") > 0, "the address leads to the explorer"


def test_an_image_is_shown_with_three_classes_and_the_answers_of_the_others(visit, report):
    page = visit()
    first = page.locator("#mistakes .pictures li").first
    index = int(first.locator("small").inner_text().removeprefix("#"))
    text = " ".join(first.inner_text().split())
    best = np.argsort(-report.seen["BaselineNet"].probabilities[index])[:3]
    positions = [text.index(config.CLASSES[k]) for k in best]
    assert f"labelled {config.CLASSES[report.part.labels[index]]}" in text
    other = report.seen["ImprovedNet"]
    assert f"ImprovedNet: {config.CLASSES[other.labels[index]]} {other.confidence[index]:.1%}" in text, positions


def test_the_arrow_keys_walk_through_the_matrix(visit, report):
    page = visit()
    page.locator("#mistakes").get_by_label("Least confidence").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "airplane"
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.ariaLabel").startswith("bird taken for automobile")
    page.keyboard.press("Enter")
    assert page.locator("#mistakes").get_by_label("True class").input_value() == "bird"
    assert page.locator(".matrix [tabindex='0']").count() == 1, "one stop of the tab key"


def slider(page, name):
    return page.locator("#temperature").get_by_label(name, exact=True)


def table(page):
    """The numbers beside the sliders: {row: [text of each network]}."""
    rows = [row.inner_text().split("\t") for row in page.locator("#temperature tbody tr").all()]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_sliders_agree_with_metrics(visit, report):
    page, labels = visit(), report.part.labels
    for exponent, threshold in itertools.product((-0.8, -0.2, 0, 0.3, 0.9), (0.6, 0.9)):
        slider(page, "Temperature").fill(str(exponent))
        slider(page, "Threshold").fill(str(threshold))
        rows = table(page)
        near = 0 if exponent == 0 else 2  # images that rounding may move over the threshold
        for i, p in enumerate(report.seen.values()):
            logits = p.logits / 2**exponent
            answered = 100 * (metrics.softmax(logits).max(1) > threshold).mean()
            wrong = metrics.overconfident(logits, labels, threshold)
            assert abs(float(rows["answered"][i].removesuffix("%")) - answered) <= 100 * near / len(labels) + 0.05
            assert abs(int(rows["wrong answers"][i]) - wrong) <= near
            # an image in another bin moves its whole confidence, and these are 200
            assert abs(float(rows["ECE"][i]) - metrics.ece(logits, labels)) <= 0.006
    assert "threshold=0.9" in page.url


def test_each_network_at_its_own_temperature(visit, report):
    page = visit()
    page.get_by_role("button", name="each at its own temperature").click()
    assert table(page)["temperature"] == ["1.10", "0.83", "1.30"]
    again = visit("#" + page.url.split("#")[1])
    assert table(again) == table(page)
    wrong = "; ".join(map(": ".join, zip(report.seen, table(page)["wrong answers"], strict=True)))
    assert page.get_by_role("img", name=f"Wrong answers above 0.9 of {wrong}.").is_visible()
    slider(page, "Temperature").press("ArrowRight")
    assert len(set(table(page)["temperature"])) == 1, "the slider sets one temperature for all"


def test_without_script_there_are_a_gallery_and_a_table(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#mistakes .picture").count() == explorer.SUREST * len(TEMPERATURES)
    assert page.locator("#temperature tr").count() == 1 + 2 * len(TEMPERATURES)
    page.locator("#contents summary").click()
    assert page.get_by_role("link", name="Try", exact=True).is_visible()


def test_the_page_fits_a_phone(visit, report):
    page = visit(screen="phone", address=report.whole)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.get_by_role("link", name="References").is_visible(), "the contents are folded"
    tables = page.locator("main table:not(.explorer *)")
    assert tables.count() == page.locator(".scroll > table").count() > 10
    assert page.locator(".scroll figcaption, caption").count() == 0, "captions stay outside"
    reachable = (
        "(e) => e.every((box) => !box.checkVisibility() || box.scrollWidth <= box.clientWidth || box.tabIndex === 0)"
    )
    assert page.locator(".scroll, pre").evaluate_all(reachable)


def test_contents_and_skip_link(visit, report):
    page = visit(address=report.whole)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "report"
    page.get_by_role("link", name="References").click()
    current = page.locator("#contents [aria-current]")
    current.filter(has_text="References").wait_for()
    assert current.count() == 1


def test_the_page_is_well_made(visit, report):
    page = visit(address=report.whole)
    assert page.locator("h1").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    cells = page.locator("main :is(td, th)").all_inner_texts()
    assert [text for text in cells if re.search(r"(?<![\w.)\]])-\d", text)] == [], "a hyphen for a minus"
    summaries = page.locator("details.code > summary").all_inner_texts()
    assert all(": " in each or each.startswith(("Code of ", "Printed")) for each in summaries), summaries


@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing(visit, report, screen):
    page = visit(screen=screen, address=report.whole)
    page.evaluate("document.querySelectorAll('main details').forEach((fold) => { fold.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
