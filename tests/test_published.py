"""What is committed agrees with itself: results, README, abstract, notebooks, weights."""

import json
import re
import socket
from pathlib import Path

import nbformat
import pytest
from test_pipeline import ABSOLUTE_PATH

from helpers import config, runs
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
    assert publish.results(nbformat.read(path, as_version=4) for path in paths) == results


def test_the_html_shows_the_abstract_of_these_results(results):
    html = (REPORTS / "report.html").read_text()
    abstract = publish.metadata(results, "full", publish.META)["abstract"]
    assert " ".join(abstract.split()) in " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "not the published numbers" not in html


@pytest.mark.parametrize("network", config.NETWORKS)
def test_every_published_run_verifies(network, results):
    (folder,) = (REPORTS / "runs").glob(f"{network}-*")
    run = runs.load(folder)
    cell = nbformat.v4.new_code_cell(metadata={"results": [runs.facts(run)]})  # to be rounded as results.json is
    assert publish.results([nbformat.v4.new_notebook(cells=[cell])]) == results["runs"][network]


def test_the_pdf_keeps_to_fifteen_pages():
    assert render.page_count((REPORTS / "report.pdf").read_bytes()) <= 15


def test_nothing_names_a_machine_or_a_person():
    names = {f"{config.ROOT}/", f"{Path.home()}/"}
    if len(socket.gethostname()) > 5:  # a shorter one may stand in any text
        names |= {socket.gethostname()} - {"localhost"}
    for path in REPORTS.rglob("*"):
        if path.suffix in (".ipynb", ".json", ".html", ".pdf", ".csv"):
            text = path.read_bytes().decode("latin-1")
            assert not ABSOLUTE_PATH.search(text), (path.name, ABSOLUTE_PATH.search(text))
            assert not [name for name in names if name in text], path.name
