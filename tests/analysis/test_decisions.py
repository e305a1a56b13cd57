"""Deciding by cost."""

import numpy as np
import pytest

from helpers import metrics
from helpers.analysis import decisions
from helpers.config import CLASSES

CAT, CAR = CLASSES.index("cat"), CLASSES.index("automobile")


def probabilities(*pairs):
    """Probabilities (n, 10) of an automobile and a cat, nothing else."""
    p = np.zeros((len(pairs), 10))
    p[:, [CAR, CAT]] = pairs
    return p


def test_costs_are_heavy_in_one_direction():
    costs = decisions.costs()
    assert costs[CAR, CAT] == decisions.HEAVY and costs[CAT, CAR] == 1 and (np.diag(costs) == 0).all()
    assert (costs == decisions.HEAVY).sum() == 4 * 6 and costs[CAT, CLASSES.index("dog")] == 1


def test_trial_scores_both_parts_and_counts_what_is_dear():
    p = probabilities((0.8, 0.2), (0.99, 0.01), (0.3, 0.7), (0.8, 0.2))
    labels = np.array([CAT, CAR, CAT, CAR])
    table = decisions.compare({"as it is": (p[:2], p)}, (labels[:2], labels))
    usual, ours = table.iloc[0], table.loc["least cost, as it is"]
    assert usual["validation"] == 5 and ours["validation"] == 0  # the cat taken for a car
    assert usual["test"] == 10 / 4 and ours["test"] == 1 / 4  # the last car is taken for a cat
    assert ours["change"] == pytest.approx(-9 / 4) and ours["change_low"] < ours["change"] < ours["change_high"]
    assert usual["animals as vehicles"] == 1 and ours["animals as vehicles"] == 0
    assert usual["accuracy"] == ours["accuracy"] == 3 / 4
    assert usual["corrected"] == pytest.approx(9 / 4) and ours["corrected"] == ours["corrected_high"] == 0
    assert usual["change"] == usual["change_low"] == usual["change_high"] == 0


def test_dividing_by_the_shares_gives_the_probabilities_of_equal_classes():
    likelihood, shares = np.random.default_rng(0).dirichlet(np.ones(10), size=5), np.arange(1, 11) / 55
    unequal = np.log(likelihood * shares)  # Bayes' rule, up to a constant
    found = decisions.for_equal_classes(unequal, shares)
    assert np.allclose(metrics.softmax(found), likelihood)


def test_a_specialist_decides_within_its_pair_alone():
    dog, ship = CLASSES.index("dog"), CLASSES.index("ship")
    logits, specialist = np.zeros((4, 10)), np.zeros((4, 10))
    logits[range(4), [CAT, dog, CAR, CAT]] = 1
    specialist[:, dog] = [1, 1, 1, -1]
    specialist[:, ship] = 5  # not of the pair
    answers = decisions.with_specialist(logits, specialist, (CAT, dog))
    assert answers.tolist() == [dog, dog, CAR, CAT]
    assert logits.argmax(axis=1).tolist() == [CAT, dog, CAR, CAT]


def test_every_step_has_its_cost():
    shares, likelihood = np.ones(10), np.full((2, 10), 1e-9)
    shares[CAT] = 0.01
    likelihood[:, [CAR, CAT]] = (0.5, 0.5), (0.99, 0.01)
    trained = likelihood * shares / (likelihood * shares).sum(axis=1, keepdims=True)
    smoothed = np.log(0.9 * trained + 0.01)  # label smoothing of 0.1
    table = decisions.costs_by_step(smoothed, np.array([CAT, CAR]), shares, 0.1, asking=0.095)
    assert table["most probable, as trained"].tolist() == [10, 0]  # the cat, which is rare, is taken for a car
    assert table["most probable, corrected"].iloc[1] == 0 and table["least cost, corrected"].tolist() == [0, 0]
    assert table["least cost, shares"].tolist() == [0, 1]  # smoothing alone makes cats likely everywhere
    assert table["asked"].tolist() == [True, True] and table["asking"].tolist() == [0.095, 0.095]
    cheap = decisions.costs_by_step(smoothed, np.array([CAT, CAR]), shares, 0.1, asking=0.4)
    assert cheap["asked"].tolist() == [True, False] and cheap["asking"].tolist() == [0.4, 0]
