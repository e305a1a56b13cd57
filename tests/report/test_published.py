"""What is committed agrees with itself: results, README, abstract, notebooks, weights."""

import collections
import json
import re
import socket
from itertools import pairwise
from pathlib import Path

import nbformat
import pypdf
import pytest
from test_pipeline import ABSOLUTE_PATH

from helpers import config, notebook, runs
from helpers.report import publish, render

REPORTS = config.ROOT / "reports"


@pytest.fixture(scope="module")
def results():
    return json.loads((REPORTS / "results.json").read_text())


def test_readme_shows_the_results(results):
    readme = (config.ROOT / "README.md").read_text()
    assert publish.updated_readme(readme, results) == readme, "README and reports/results.json differ: run make report"


def test_results_are_those_of_the_executed_notebooks(results):
    paths = sorted((REPORTS / "notebooks").glob("*.ipynb"))
    assert publish.results({path.stem: nbformat.read(path, 4) for path in paths}) == results


def test_the_html_shows_the_abstract_of_these_results(results):
    html = (REPORTS / "report.html").read_text()
    abstract = publish.metadata(results, publish.META)["abstract"]
    assert " ".join(abstract.replace("**", "").split()) in " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert notebook.banner(publish.settings(results)) == "" and "Not the published" not in html


@pytest.mark.parametrize("network", config.NETWORKS)
def test_every_published_run_verifies(network, results):
    (folder,) = (REPORTS / "runs").glob(f"{network}-*")
    run = runs.load(folder)
    facts = {"settings": {}, "numbers": runs.published_facts(run)}
    rounded = publish.results({"run": nbformat.v4.new_notebook(metadata={"results": [facts]})})["run"]
    assert rounded == {"settings": {}, **publish.of_networks(results, "runs")[network]}


def test_the_pdf_keeps_to_fifteen_pages():
    assert render.page_count((REPORTS / "report.pdf").read_bytes()) <= 15


def test_the_pdf_is_set_in_twelve_points():
    sizes = collections.Counter()
    for page in pypdf.PdfReader(REPORTS / "report.pdf").pages:
        page.extract_text(visitor_text=lambda text, cm, tm, font, size: sizes.update({round(size, 1): len(text)}))
    assert sizes.most_common(1)[0][0] == 12.0
    assert sizes[12.0] > sum(sizes.values()) / 2


def executed():
    """All cells of the published notebooks, in order."""
    return [cell for path in sorted((REPORTS / "notebooks").glob("*.ipynb")) for cell in nbformat.read(path, 4).cells]


def test_every_figure_and_table_has_its_caption_below():
    found = 0
    for cell in executed():
        outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
        for output, below in pairwise([*outputs, {}]):
            picture, table = "image/png" in output, "<table" in output.get("text/html", "")
            if picture or table or output.get("text/markdown", "").startswith("|"):
                kind = "Figure" if picture else "Table"
                assert re.match(rf"\*\*(Supplementary )?{kind} S?\d+\.\*\* \w", below.get("text/markdown", "")), (
                    cell.source
                )
                found += 1
    assert found > 30


def test_the_guide_leads_to_an_answer_for_every_mark():
    guide = next(cell.source for cell in executed() if cell.source.startswith("# Guide to the brief"))
    rows = re.findall(r"^\| (\d[a-d]) \|.*?\| (\d+) \| (.*) \|$", guide, re.MULTILINE)
    assert [question for question, _, _ in rows] == "1a 1b 2a 2b 2c 2d 3a 3b 3c 3d".split()
    assert [int(marks) for _, marks, _ in rows] == [10, 10, 5, 5, 10, 20, 10, 10, 10, 10]
    text = "\n".join(cell.source for cell in executed() if cell.cell_type == "markdown")
    html = (REPORTS / "report.html").read_text()
    for question, _, places in rows:
        labels = re.findall(r"#(sec-[\w-]+)\)", places)
        assert labels, question
        for label in labels:
            assert re.search(rf'<a id="{label}"></a>\n+#+ [\d.]+ \w', text), (question, label)
            assert f'id="{label}"' in html, (question, label)


def test_nothing_names_a_machine_or_a_person():
    names = {f"{config.ROOT}/", f"{Path.home()}/"}
    if len(socket.gethostname()) > 5:  # a shorter one may stand in any text
        names |= {socket.gethostname()} - {"localhost"}
    for path in REPORTS.rglob("*"):
        if path.suffix in (".ipynb", ".json", ".html", ".pdf", ".csv"):
            text = path.read_bytes().decode("latin-1")
            assert not ABSOLUTE_PATH.search(text), (path.name, ABSOLUTE_PATH.search(text))
            assert not [name for name in names if name in text], path.name
