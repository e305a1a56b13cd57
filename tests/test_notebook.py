"""The parameters cell, the record for results.json, and the form of the notebook sources."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap

import nbformat
import numpy as np
import pytest
import torch

from helpers import config, notebook

GOOD = {"profile": "full", "seed": 0, "device": "cpu", "train_minutes": 2, "epochs": 0, "changes": {}}
SETTINGS = {name: value for name, value in GOOD.items() if name != "epochs"}
SOURCES = sorted((config.ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: (data, keywords) pairs."""
    displayed = []
    monkeypatch.setattr(notebook, "display", lambda what, **options: displayed.append((what, options)))
    return displayed


def test_good_parameters_are_returned(shown):
    assert notebook.start({**GOOD, "other": 1, "In": ["", "x = 1"]}) == SETTINGS
    assert shown == []
    assert notebook.start({**GOOD, "train_minutes": 0.5}) == {**SETTINGS, "train_minutes": 0.5}


def test_changes_may_come_as_text(shown):
    changes = {"BaselineNet": {"epochs": 3}}
    assert notebook.start({**GOOD, "changes": str(changes)})["changes"] == changes


def test_epochs_are_folded_into_the_changes(shown):
    settings = notebook.start({**GOOD, "epochs": 3, "changes": {"BaselineNet": {"flip": 0.0, "epochs": 4}}})
    three = {"epochs": 3}
    changes = {"BaselineNet": {"epochs": 4, "flip": 0.0}, "ImprovedNet": three, "FastNet": three}
    assert settings["changes"] == changes
    assert "epochs" not in settings


@pytest.mark.parametrize(
    "changed", [{"profile": "smoke"}, {"profile": "quick"}, {"seed": 1}, {"changes": {"ImprovedNet": {"epochs": 20}}}]
)
def test_other_parameters_than_the_published_show_a_banner(shown, changed):
    assert notebook.start(GOOD | changed) == SETTINGS | changed
    ((banner, _),) = shown
    assert "Not the published numbers" in banner.data


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"profile": 1}, "the parameter 'profile' must be text, not 1."),
        ({"profile": "fast"}, "the parameter 'profile' must be one of smoke, quick, full, not 'fast'."),
        ({"seed": "0"}, "the parameter 'seed' must be a whole number, not '0'."),
        ({"seed": 1.0}, "the parameter 'seed' must be a whole number, not 1.0."),
        ({"seed": True}, "the parameter 'seed' must be a whole number, not True."),
        ({"seed": -1}, "the parameter 'seed' must be at least 0, not -1."),
        ({"train_minutes": "2"}, "the parameter 'train_minutes' must be a number, not '2'."),
        ({"train_minutes": False}, "the parameter 'train_minutes' must be a number, not False."),
        ({"train_minutes": -0.1}, "the parameter 'train_minutes' must be at least 0, not -0.1."),
        ({"train_minutes": float("nan")}, "the parameter 'train_minutes' must be at least 0, not nan."),
        ({"device": None}, "the parameter 'device' must be text, not None."),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, not 'tpu'."),
        ({"epochs": -1}, "the parameter 'epochs' must be at least 0, not -1."),
        ({"epochs": "3"}, "the parameter 'epochs' must be a whole number, not '3'."),
        ({"changes": "{"}, "the parameter 'changes' must look like {'ImprovedNet': {'epochs': 20}}, not '{'."),
        ({"changes": "3"}, "the parameter 'changes' must be a dict, not 3."),
        ({"changes": []}, "the parameter 'changes' must be a dict, not []."),
        ({"changes": {"ImprovedNet": 3}}, "the parameter 'changes' must look like {'ImprovedNet': {'epochs': 20}}"),
        ({"changes": {"ImprovedNet": {3: 3}}}, "the parameter 'changes' must look like"),
        ({"changes": {"BaselineNet": {"network": "x"}}}, "the parameter 'changes' must look like"),
        ({"changes": {"epochs": {}}}, "unknown network 'epochs': choose one of BaselineNet, ImprovedNet,"),
        ({"changes": {"BaselineNet": {"epoch": 3}}}, "unknown setting 'epoch': choose from epochs,"),
        ({"changes": {"BaselineNet": {"epochs": 0}}}, "epochs must be more than 0."),
        ({"changes": {"BaselineNet": {"epochs": 1.5}}}, "epochs must be a whole number, not 1.5."),
        ({"changes": {"BaselineNet": {"flip": 2}}}, "flip must lie between 0 and 1, not 2."),
    ],
)
def test_a_bad_parameter_is_refused_by_name(shown, changed, says):
    with pytest.raises(ValueError) as caught:
        notebook.start(GOOD | changed)
    message = str(caught.value)
    assert message.startswith(says) and message.endswith(".") and "\n" not in message
    assert shown == []


@pytest.mark.parametrize("name", notebook.PARAMETERS)
def test_a_missing_parameter_is_named(name):
    rest = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(ValueError, match=f"^the parameter '{name}' is missing from the parameters cell.$"):
        notebook.start(rest)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="^device is cuda, but PyTorch sees no such GPU"):
        notebook.start({**GOOD, "device": "cuda"})


OWN = "# Any words\nprofile: str = 'full'  # help\nseed: int = 0"
CALL = "from helpers import notebook\nsettings = notebook.start(globals())"


@pytest.mark.parametrize(
    "cells",
    [
        [OWN + "\nsedd: int = 1", CALL],
        [OWN, "sedd = 1", CALL],
        [OWN, "# Parameters\nprofile = 'quick'\nsedd = 1", CALL],
        [OWN, "sedd = 1", CALL, CALL],
        [OWN, "seed = 1", CALL, "sedd = 1", CALL],
    ],
)
def test_an_unknown_parameter_is_refused(cells):
    with pytest.raises(ValueError, match="^unknown parameter 'sedd': the parameters are profile, seed, device"):
        notebook.start({**GOOD, "In": ["", *cells]})


@pytest.mark.parametrize(
    "cells",
    [
        [OWN + "\nsedd = 1", CALL, OWN, CALL],
        [OWN + "\nsedd =", OWN, CALL],  # an error of syntax, corrected
        [OWN, "sedd = 1", CALL, "seed = 1", CALL],
        [OWN, CALL, "rows = 3", "print(rows)", CALL],
        [OWN, CALL, "x: int", CALL],
    ],
)
def test_an_unknown_parameter_that_was_corrected_is_forgotten(shown, cells):
    """In a live kernel all versions of the cell have been run."""
    assert notebook.start({**GOOD, "In": ["", *cells]}) == SETTINGS


# ---- Findings


def test_findings_make_one_list_of_what_is_true(shown):
    notebook.start(GOOD | {"seed": 1})
    notebook.findings(
        "Always.", ["A number.", notebook.finding("Not so.", when=False)], notebook.finding("Nor this.", when=False)
    )
    notebook.paragraph("A.", notebook.finding("B.", when=True), notebook.finding("C.", when=False), "D.")
    assert [what.data for what, _ in shown[1:]] == ["- Always.\n- A number.", "A. B. D."]


def test_code_is_shown_without_docstrings_whole_or_from_line_to_line(shown):
    whole = notebook.code(config.train_config)
    assert whole.startswith("def train_config(") and '"""' not in whole
    lines = whole.splitlines()
    part = notebook.code(config.train_config, lines[1].strip(), lines[2].strip())
    assert part == textwrap.dedent("\n".join(lines[1:3]))
    notebook.listing(part, "x = 1")
    ((markdown, _),) = shown
    assert markdown.data == f"```python\n{part}\n\nx = 1\n```"


def test_lines_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="train_config has no lines from 'nowhere' to ''"):
        notebook.code(config.train_config, "nowhere")


def test_a_false_finding_stops_the_published_report_only(shown):
    notebook.start(GOOD)
    with pytest.raises(notebook.FalseFinding, match="Cats are dogs."):
        notebook.finding("Cats are dogs.", when=False)
    assert notebook.finding("The first image shows a cat.", when=False, required=False) == ""
    notebook.start(GOOD | {"epochs": 3})
    assert notebook.finding("Cats are dogs.", when=False) == ""


# ---- The record


def test_the_record_is_plain_json(shown):
    notebook.start(GOOD)
    notebook.record(
        a=np.float32(0.5),
        b=np.int64(3),
        c=np.array([[1, 2], [3, 4]]),
        d=(1, "x", None, True),
        e=np.array(2.0),
        f={"ImprovedNet": {3: np.bool_(True)}},
    )
    ((bundle, options),) = shown
    assert json.loads(json.dumps(bundle["application/json"]["numbers"], allow_nan=False)) == {
        "a": 0.5,
        "b": 3,
        "c": [[1, 2], [3, 4]],
        "d": [1, "x", None, True],
        "e": 2.0,
        "f": {"ImprovedNet": {"3": True}},
    }
    assert options == {"raw": True, "metadata": {"results": True}}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -np.inf, np.float32("nan"), np.array([1, np.nan])])
def test_a_number_that_is_not_finite_is_refused(shown, number):
    with pytest.raises(ValueError, match="results.json holds finite numbers only"):
        notebook.record(a={"b": [1, number]})
    assert shown == []


@pytest.mark.parametrize("value", [torch.tensor(1.0), {1, 2}, config.ROOT])
def test_what_is_not_json_is_refused(shown, value):
    with pytest.raises(ValueError, match="cannot record"):
        notebook.record(a=value)


# ---- The sources


def code(cell):
    """The lines of a code cell that count: neither blank nor options of the report."""
    return [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]


def test_there_are_five_notebooks():
    assert [path.name[:3] for path in SOURCES] == ["01_", "02_", "03_", "04_", "05_"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_holds_no_outputs_and_short_cells(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        assert cell.outputs == [] and cell.execution_count is None
        assert len(code(cell)) <= 15, cell.source
        assert not re.search(r"^(def|class) ", cell.source, re.MULTILINE), "functions belong in helpers/"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_fits_into_100_columns(path):
    cells = nbformat.read(path, as_version=4).cells
    assert [line for cell in cells for line in cell.source.splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_opens_with_its_neighbours_and_shows_no_labels(path):
    """JupyterLab shows {#sec-x}, and hides <!-- #sec-x -->."""
    first, *cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    place = SOURCES.index(path)
    assert first.source.startswith(f"**Notebook {place + 1} of 5.**") and first.metadata["tags"] == ["remove-cell"]
    neighbours = [other.name for other in (SOURCES[place - 1 : place] + SOURCES[place + 1 : place + 2])]
    assert re.findall(r"\]\((.*?)\)", first.source) == neighbours
    assert not [cell.source for cell in cells if re.search(r"\{[#.][\w-]+\}", cell.source)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_has_one_parameters_cell(path, shown):
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    namespace = {"In": ["", cell.source]}
    assert {node.target.id for node in ast.parse(cell.source).body} == set(notebook.PARAMETERS)
    exec(cell.source, namespace)
    settings = notebook.start(namespace)
    assert settings["profile"] == "full" and settings["seed"] == 0 and settings["changes"] == {}
    assert shown == []


def test_the_questions_are_asked_under_headings_in_the_order_of_the_brief():
    cells = [cell.source for path in SOURCES for cell in nbformat.read(path, as_version=4).cells]
    asked = re.findall(
        r"^## Question (\d[a-d]): .*\((\d+) marks.*\) <!-- #sec-[\w-]+ -->\n\n\*[^*]+\?\*", "\n".join(cells), re.M
    )
    marks = {"1a": 10, "1b": 10, "2a": 5, "2b": 5, "2c": 10, "2d": 20, "3a": 10, "3b": 10, "3c": 10, "3d": 10}
    assert [(question, int(mark)) for question, mark in asked] == [*marks.items(), ("2d", 20)]


# ---- With other settings


def test_no_sentence_is_false_with_other_settings(tmp_path):
    """The baseline's notebook on the sample, trained for 3 epochs from another seed."""
    changes = {"BaselineNet": {"label_smoothing": 0}}
    parameters = {"profile": "smoke", "seed": 1, "device": "cpu", "epochs": 3, "changes": str(changes)}
    source = SOURCES[1]
    environment = {"CIFAR10_REPORT_CACHE": str(tmp_path), "PYTHONPATH": str(config.ROOT)}
    words = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", source, tmp_path / "run.ipynb", "--cwd", source.parent, *words]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = nbformat.read(tmp_path / "run.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    said = "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    tables = "\n".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert "Not the published numbers" in said and "from seed 1" in said and "epoch 3 of 3" in tables
    for false in ("10,000", "5,000", "published weights", "± nan", "nan%"):
        assert false not in said
