"""make verify: whatever differs beyond its tolerance is named."""

import copy
import json

import pytest

from helpers.commands import verify

PUBLISHED = {
    "01_data": {
        "settings": {"profile": "full", "seed": 0, "device": "auto", "train_minutes": 2},
        "data": {"test": 10_000},
    },
    "04_evaluation": {
        "test": {
            "accuracy": 0.9,
            "accuracy_low": 0.89,
            "accuracy_high": 0.91,
            "nll": 1.5,
            "nll_low": 1.4,
            "nll_high": 1.6,
            "wrong_above_90": 100,
        },
        "runs": {"device": "a CPU", "parameters": 48_252, "minutes": 14.05},
        "comparison": {"p_value": 1e-80},
        "seeds": {"n": 5, "epochs": 40},
        "mistakes": {"augmented": 0.85},
    },
    "05_confidence_analysis": {
        "cues": {"colour": 0.8},
        "corruptions": {"jpeg": 0.7},
        "rescued": {"net": 3},
        "audit": {"shares": [0.1, 0.2]},
    },
}
KINDS = [  # where, a value that is near enough, one that is too far
    ("01_data.settings.seed", 0, 1),
    ("01_data.settings.profile", "full", "quick"),
    ("01_data.data.test", 10_000, 10_001),
    ("04_evaluation.runs.device", "a CPU", "a GPU"),
    ("04_evaluation.runs.parameters", 48_252, 48_253),
    ("04_evaluation.runs.minutes", 14.05, 14.06),
    ("04_evaluation.test.accuracy", 0.9001, 0.9003),
    ("04_evaluation.test.accuracy_low", 0.8901, 0.8903),
    ("04_evaluation.test.nll", 1.5002, 1.5005),
    ("04_evaluation.test.nll", 1.5, float("nan")),
    ("04_evaluation.test.nll_low", 1.43, 1.35),
    ("04_evaluation.test.wrong_above_90", 103, 104),
    ("04_evaluation.comparison.p_value", 1e-79, 1e-70),
    ("04_evaluation.seeds.n", 5, 4),
    ("04_evaluation.seeds.epochs", 40, 41),
    ("04_evaluation.mistakes.augmented", 0.851, 0.852),
    ("05_confidence_analysis.cues.colour", 0.801, 0.802),
    ("05_confidence_analysis.corruptions.jpeg", 0.699, 0.698),
    ("05_confidence_analysis.rescued.net", 4, 7),
    ("05_confidence_analysis.audit.shares.1", 0.2001, 0.2004),
]


def changed(where, value):
    """PUBLISHED with one other value."""
    whole = copy.deepcopy(PUBLISHED)
    *path, last = where.split(".")
    inner = whole
    for key in path:
        inner = inner[key]
    inner[int(last) if isinstance(inner, list) else last] = value
    return whole


@pytest.mark.parametrize(("where", "near", "far"), KINDS)
def test_every_kind_of_number_has_its_tolerance(where, near, far):
    assert verify.compare(PUBLISHED, changed(where, near)) == []
    (problem,) = verify.compare(PUBLISHED, changed(where, far))
    assert problem.startswith(f"{where}: published ") and problem.endswith(f", computed {far}")


def test_a_p_value_of_zero_is_near_the_smallest_number_only():
    tiny = {"n": {"comparison": {"p_value": 1e-322}}}
    zero, larger = ({"n": {"comparison": {"p_value": value}}} for value in (0.0, 1e-300))
    assert verify.compare(tiny, zero) == [] and len(verify.compare(tiny, larger)) == 1


def test_a_number_that_only_one_side_has_is_a_disagreement():
    other = copy.deepcopy(PUBLISHED)
    other["04_evaluation"]["test"]["ece"] = other["04_evaluation"]["test"].pop("nll")
    assert verify.compare(PUBLISHED, other) == [
        "04_evaluation.test.ece: computed, but not published",
        "04_evaluation.test.nll: published, but not computed",
    ]


def test_changed_hyper_parameters_are_a_disagreement():
    other = copy.deepcopy(PUBLISHED)
    other["01_data"]["settings"]["changes"] = {"ImprovedNet": {"rotation": 15}}
    (problem,) = verify.compare(PUBLISHED, other)
    assert problem.startswith("01_data.settings.changes.ImprovedNet.rotation: computed, but not")


def test_where_a_notebook_ran_is_no_disagreement():
    assert verify.compare(PUBLISHED, changed("01_data.settings.device", "cpu")) == []
    assert verify.compare(PUBLISHED, changed("01_data.settings.train_minutes", 30)) == []


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A function that writes published numbers and verifies them against PUBLISHED."""

    def run_all(notebooks, executed, output, parameters):
        assert parameters == {"profile": "full"} and tmp_path / "reports" not in output.parents

    def build(executed, built):
        (built / "results.json").write_text(json.dumps(PUBLISHED))

    monkeypatch.setattr(verify.report, "run_all", run_all)
    monkeypatch.setattr(verify.report, "build", build)

    def run(published):
        reports = tmp_path / "reports"
        reports.mkdir(exist_ok=True)
        (reports / "results.json").write_text(json.dumps(published))
        try:
            return verify.verify(reports, tmp_path / "notebooks", tmp_path / "cache" / "verify")
        finally:
            assert [path.name for path in reports.iterdir()] == ["results.json"]

    return run


def test_numbers_that_agree_are_counted(committed):
    assert committed(PUBLISHED) == len(verify.flat(PUBLISHED)) == 22


def test_the_first_ten_disagreements_are_named(committed):
    with pytest.raises(verify.Disagreement, match=r"^1 published .*:\n01_data.data.test: .*\nThe "):
        committed(changed("01_data.data.test", 9_999))
    extra = PUBLISHED | {"06_more": {"section": {str(i): 0.5 for i in range(12)}}}
    with pytest.raises(verify.Disagreement) as caught:
        committed(extra)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("12 published numbers") and lines[11] == "... and 2 more"
