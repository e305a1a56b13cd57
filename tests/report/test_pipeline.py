"""All five notebooks, in profile smoke, from source to HTML and PDF, as `make report` does it."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pypdf
import pytest

from helpers.config import NETWORKS, ROOT
from helpers.report import publish, render

# An absolute path of some machine; not part of an address, a relative path or base64 data.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<+])/(?:home|root|Users|tmp|work|opt|usr|var|mnt)/\w")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    environment = {**os.environ, "CIFAR10_REPORT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "helpers.report", "--profile", "smoke", "--output", folder / "report"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder / "report", result.stdout


def test_everything_is_there(report):
    folder, printed = report
    for name in ("report.html", "report.pdf", "results.json"):
        assert (folder / name).stat().st_size > 1000, name
    assert len(list((folder / "notebooks").glob("*.ipynb"))) == 5
    assert re.search(r"ImprovedNet +2/2 +train", printed), "training prints a line an epoch, also under papermill"


def test_the_pdf_keeps_to_fifteen_pages(report):
    assert render.page_count((report[0] / "report.pdf").read_bytes()) <= 15


def test_the_pdf_numbers_its_figures_and_tables_without_gaps(report):
    text = "\n".join(page.extract_text() for page in pypdf.PdfReader(report[0] / "report.pdf").pages)
    for kind in ("Figure", "Table"):
        numbers = {int(number) for number in re.findall(rf"{kind}\s+(\d+)", text)}
        assert sorted(numbers) == list(range(1, max(numbers) + 1)), kind
        captions = [int(number) for number in re.findall(rf"^{kind}\s(\d+)\.", text, re.M)]
        assert captions == sorted(numbers), kind
    assert len(re.findall(r"Supplementary\s+(?:Figure|Table)\s+S\d", text)) <= 8


def test_the_text_of_figures_can_be_searched_in_the_pdf(report):
    """Its first page shows the summary, drawn as an SVG with text."""
    assert "corrected" in pypdf.PdfReader(report[0] / "report.pdf").pages[0].extract_text()


def test_html_needs_no_network(report):
    html = (report[0] / "report.html").read_text()
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=.?https?:", html)
    assert "Not the published numbers: profile smoke." in html
    assert 'id="mistakes-data"' in html and 'id="temperature-data"' in html


def test_executed_notebooks_read_well(report):
    for path in (report[0] / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            texts = [cell.source] if cell.cell_type == "markdown" else []
            texts += [o.data.get("text/markdown", "") for o in cell.get("outputs", []) if "data" in o]
            for text in texts:
                assert not re.search(r"(?<!\w)@[a-z]+[-\d]|\{#[a-z]", text), (path.name, text[:200])
            assert cell.cell_type != "code" or not cell.source.startswith("#|")


def test_nothing_names_this_machine(report):
    for path in report[0].rglob("*"):
        if path.suffix in (".ipynb", ".json", ".html"):
            text = path.read_text()
            assert not ABSOLUTE_PATH.search(text), (path.name, ABSOLUTE_PATH.search(text))


def test_results_are_finite_numbers_of_all_networks(report):
    results = json.loads((report[0] / "results.json").read_text(), parse_constant=pytest.fail)
    tests, facts = (publish.of_networks(results, kind) for kind in ("test", "runs"))
    assert list(tests) == list(facts) == list(NETWORKS)
    for network, test in tests.items():
        assert 0 <= test["accuracy_low"] <= test["accuracy"] <= 1
        assert facts[network]["epochs"] == 2


def test_the_last_line_is_the_verdict(report):
    assert re.fullmatch(r"\w+Net, trained in .*: short of the reference's 91.42%.", report[1].splitlines()[-1])


def test_a_missing_long_run_stops_with_the_way_out(tmp_path):
    """No published run, no time to train: exit 1, `make retrain` named, and the old report untouched.

    Of the notebook that trains first, the code up to there: what follows refers to other notebooks.
    """
    output, source = tmp_path / "report", ROOT / "notebooks" / "02_baseline.ipynb"
    output.mkdir()
    (output / "report.html").write_text("the last good report")
    whole = nbformat.read(source, as_version=4)
    cells = [cell for cell in whole.cells if cell.cell_type == "code"]
    trains = next(i for i, cell in enumerate(cells) if "load_or_train" in cell.source)
    whole.cells = cells[: trains + 1]
    nbformat.write(whole, tmp_path / source.name)
    environment = {**os.environ, "CIFAR10_REPORT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "helpers.report", "--profile", "smoke", "--output", output]
    command += ["--notebooks", tmp_path, "--train-minutes", "0.0001"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "TrainingNeeded" in result.stderr and "make retrain" in result.stderr and "02_baseline" in result.stderr
    assert len(result.stderr.splitlines()) < 12
    assert (output / "report.html").read_text() == "the last good report"
