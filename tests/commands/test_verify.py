"""make verify: two implementations concur, and whatever differs is named."""

import copy

import numpy as np
import pytest

from helpers import metrics
from helpers.analysis import labels
from helpers.commands import verify


@pytest.fixture(scope="module")
def answers():
    """Two sets of logits for the same 2,000 labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    logits = rng.normal(size=(2, 2000, 10))
    logits[:, np.arange(2000), labels] += 2.5
    return labels, {"BaselineNet": 1.7 * logits[0], "ImprovedNet": 2.5 * logits[1]}


def test_both_implementations_give_the_same_scores(answers):
    labels, logits = answers
    for z in logits.values():
        ours, theirs = verify.scores(z, labels), metrics.summary(z, labels)
        assert ours.keys() == theirs.keys()
        assert verify.compare(theirs, ours) == []
        assert verify.temperature(z, labels) == pytest.approx(metrics.fit_temperature(z, labels), rel=1e-5)
        assert verify.top_pairs_share(z, labels) == pytest.approx(metrics.top_share(metrics.confusion(z, labels)))
        coverage = verify.confidence(z, 1.5, labels, ours)["coverage_at_1"]
        assert coverage == pytest.approx(metrics.coverage_at_risk(z, labels, 0.01))


def test_the_audit_written_out_suspects_what_cleanlab_suspects(answers):
    labels, logits = answers
    p = {name: metrics.softmax(z) for name, z in logits.items()}
    suspects = {name: labels.suspects(each, labels).index for name, each in p.items()}
    found = verify.label_audit(p, labels)
    assert found["suspects"] == len(suspects["ImprovedNet"]) > 20
    assert found["by_both"] == len(set(suspects["BaselineNet"]) & set(suspects["ImprovedNet"]))
    worst = metrics.most_confident(logits["ImprovedNet"], labels, correct=False, count=8)
    other = logits["BaselineNet"].argmax(1)
    assert verify.rescued(p["ImprovedNet"], other, labels) == (other[worst] == labels[worst]).sum()


def test_the_bootstrap_intervals_agree_within_their_tolerance(answers):
    labels, logits = answers
    intervals = verify.bootstrap(logits, labels)
    for key, statistic in {"macro_f1": metrics.macro_f1, "nll": metrics.nll, "brier": metrics.brier}.items():
        draws = metrics.paired_bootstrap(statistic, labels, *logits.values(), draws=500)
        for name, (low, high) in zip(logits, np.quantile(draws, [0.025, 0.975], axis=1).T, strict=True):
            published = {f"{key}_low": low, f"{key}_high": high}
            assert verify.compare(published, {end: intervals[name][end] for end in published}) == []


PUBLISHED = {
    "test": {"net": {"accuracy": 0.9, "nll": 1.5, "wrong_above_90": 100, "nll_low": 1.4, "nll_high": 1.6}},
    "runs": {"net": {"device": "a CPU", "parameters": 48_252, "minutes": 14.05}},
}


@pytest.mark.parametrize(("where", "key", "value"), [
    ("test", "accuracy", 0.9003), ("test", "nll", 1.5005), ("test", "wrong_above_90", 104), ("test", "nll_low", 1.35),
    ("runs", "device", "a GPU"), ("runs", "parameters", 48_253), ("runs", "minutes", 14.06),
])
def test_a_number_that_differs_is_named(where, key, value):
    computed = copy.deepcopy(PUBLISHED)
    computed[where]["net"][key] = value
    (problem,) = verify.compare(PUBLISHED, computed)
    assert problem == f"{where}.net.{key}: published {PUBLISHED[where]['net'][key]}, computed {value}"
    assert verify.compare(PUBLISHED, PUBLISHED) == []


def test_rounding_is_no_disagreement():
    computed = copy.deepcopy(PUBLISHED)
    computed["test"]["net"] |= {"accuracy": 0.9001, "nll": 1.5002, "wrong_above_90": 103, "nll_low": 1.43}
    assert verify.compare(PUBLISHED, computed) == []


@pytest.mark.parametrize(("key", "published", "near", "far"), [
    ("seeds.net.n", 5, 5, 4), ("rescued.net", 3, 4, 5), ("comparison.p_value", 1e-80, 1e-79, 1e-70),
    ("comparison.p_value", 1e-322, 0.0, 1e-300),
    ("cues.net.colour", 0.8, 0.801, 0.802), ("test.net.nll_low", 0.5, 0.5, 0.4), ("runs.net.device", "CPU", "CPU", 3),
])
def test_every_kind_of_number_has_its_tolerance(key, published, near, far):
    whole = {key: published, "test.net.nll_high": 0.51}
    assert verify.agree(key, near, published, whole) and not verify.agree(key, far, published, whole)


def test_a_number_that_only_one_side_has_is_a_disagreement():
    computed = copy.deepcopy(PUBLISHED)
    computed["test"]["net"]["ece"] = computed["test"]["net"].pop("nll")
    assert verify.compare(PUBLISHED, computed) == [
        "test.net.ece: computed, but not published", "test.net.nll: published, but not computed",
    ]


def test_the_command_lists_what_does_not_verify(monkeypatch):
    monkeypatch.setattr(verify, "recompute", lambda everything: {"test": {"net": {"accuracy": 0.8}}})
    with pytest.raises(verify.Disagreement, match="8 published .* verify:\n.*runs.net.device: published, but not"):
        verify.check(PUBLISHED)
    monkeypatch.setattr(verify, "recompute", lambda everything: PUBLISHED)
    assert verify.check(PUBLISHED) == 8


def test_a_report_just_run_repeats_no_analysis(monkeypatch):
    more = {name: {"net": 0.5} for name in verify.REPEATED}
    monkeypatch.setattr(verify, "recompute", lambda everything: PUBLISHED | (more if everything else {}))
    assert verify.check(PUBLISHED | more, everything=False) == 8
    assert verify.check(PUBLISHED | more) == 13
    with pytest.raises(verify.Disagreement, match="accuracy"):
        verify.check({"test": {"net": PUBLISHED["test"]["net"] | {"accuracy": 0.8}}, "runs": PUBLISHED["runs"]}, False)
