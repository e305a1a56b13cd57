"""Two implementations of every score concur, and both give the published numbers."""

import numpy as np
import pytest
from independent import (
    bootstrap,
    coverage_at_risk,
    deployed,
    f1_by_class,
    label_audit,
    mcnemar,
    paired_difference,
    rescued,
    scores,
    sections,
    temperature,
    top_pairs_share,
)

from helpers import config, metrics, runs
from helpers.analysis.labels import suspects
from helpers.commands import verify
from helpers.report import publish

REPORTS = config.ROOT / "reports"


@pytest.fixture(scope="module")
def answers():
    """Labels of 2,000 images and two sets of logits for them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    logits = rng.normal(size=(2, 2000, 10))
    logits[:, np.arange(2000), labels] += 2.5
    return labels, {"BaselineNet": 1.7 * logits[0], "ImprovedNet": 2.5 * logits[1]}


def test_scores_agree(answers):
    labels, logits = answers
    for z in logits.values():
        ours, theirs = scores(z, labels), metrics.summary(z, labels)
        assert ours == pytest.approx(theirs, rel=1e-9)
        assert f1_by_class(z, labels) == pytest.approx(metrics.per_class(z, labels)["f1"].to_dict())
        assert temperature(z, labels) == pytest.approx(metrics.fit_temperature(z, labels), rel=1e-5)
        share = metrics.top_share(metrics.confusion(z, labels))
        assert top_pairs_share(z, labels) == pytest.approx(share)
        for risk in (0.01, 0.05):
            coverage = metrics.coverage_at_risk(z, labels, risk)
            assert coverage_at_risk(z, labels, risk) == pytest.approx(coverage)


def test_mcnemar_agrees(answers):
    labels, logits = answers
    right = [z.argmax(1) == labels for z in logits.values()]
    for a, b in (right, right[::-1]):
        assert mcnemar(a, b) == pytest.approx(metrics.mcnemar(a, b))
        assert paired_difference(a, b) == pytest.approx(metrics.paired_difference(a, b), abs=1e-4)


def test_thresholds_agree(answers):
    labels, logits = answers
    for z in logits.values():
        half = len(labels) // 2
        threshold = metrics.threshold_at_risk(z[:half], labels[:half], 0.01)
        ours = metrics.answered(z[half:], labels[half:], threshold) | {"threshold": threshold}
        assert deployed(z[:half], labels[:half], z[half:], labels[half:]) == pytest.approx(ours)


def test_audit_suspects_what_cleanlab_suspects(answers):
    labels, logits = answers
    p = {name: metrics.softmax(z) for name, z in logits.items()}
    theirs = {name: suspects(each, labels).index for name, each in p.items()}
    ours = label_audit(p, labels)
    assert ours["suspects"] == len(theirs["ImprovedNet"]) > 20
    assert ours["by_both"] == len(set(theirs["BaselineNet"]) & set(theirs["ImprovedNet"]))
    worst = metrics.most_confident(logits["ImprovedNet"], labels, correct=False, count=8)
    other = logits["BaselineNet"].argmax(1)
    assert rescued(p["ImprovedNet"], other, labels) == (other[worst] == labels[worst]).sum()


def test_bootstrap_intervals_agree_within_their_tolerance(answers):
    labels, logits = answers
    ours = bootstrap(logits, labels)
    statistics = {"macro_f1": metrics.macro_f1, "nll": metrics.nll, "brier": metrics.brier, "aurc": metrics.aurc}
    for key, statistic in statistics.items():
        draws = metrics.paired_bootstrap(statistic, labels, *logits.values(), draws=500)
        intervals = np.quantile(draws, [0.025, 0.975], axis=1).T
        for name, (low, high) in zip(logits, intervals, strict=True):
            theirs = {f"{key}_low": low, f"{key}_high": high}
            mine = {end: ours[name][end] for end in theirs}
            assert verify.compare({"n": {"test": theirs}}, {"n": {"test": mine}}) == []


# ---- The published numbers


@pytest.fixture(scope="module")
def published():
    """The committed numbers, and the same sections computed here from the committed logits."""
    kept = {}
    for name in config.NETWORKS:
        (folder,) = (REPORTS / "runs").glob(f"{name}-*")
        kept[name] = runs.load_results(folder).logits
    parts = ("validation", "test")
    labels = {part: kept["ImprovedNet"][f"{part}_labels"].astype(int) for part in parts}
    logits = {part: {name: kept[name][part] for name in config.NETWORKS} for part in parts}
    for part in parts:
        assert (kept["BaselineNet"][f"{part}_labels"] == labels[part]).all()
    return publish.read_results(REPORTS / "results.json"), sections(logits, labels)


def test_the_published_logits_give_the_published_scores(published):
    results, computed = published
    wanted = {stem: {name: results[stem][name] for name in names} for stem, names in computed.items()}
    for stem in ("02_baseline", "03_improved"):
        for each in wanted[stem]["validation"].values():
            each.pop("training")  # takes training images, and their logits are not kept
    assert verify.compare(wanted, computed) == []
    assert len(verify.flat(computed)) > 100
