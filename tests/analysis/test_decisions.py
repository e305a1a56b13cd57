"""Deciding by cost."""

import numpy as np

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


def smoothed(p, share):
    """Logits of a network that was trained with this label smoothing and fits its targets exactly."""
    return np.log((1 - share) * p + share / 10)


def test_each_step_changes_the_answers():
    shares, likelihood = np.ones(10), np.full((2, 10), 1e-9)
    shares[CAT] = 0.01
    likelihood[:, [CAR, CAT]] = (0.5, 0.5), (0.99, 0.01)
    trained = likelihood * shares / (likelihood * shares).sum(axis=1, keepdims=True)
    answers = decisions.decide(smoothed(trained, 0.1), shares, 0.1)
    assert answers["1"].tolist() == [CAR, CAR]  # the cat, which is rare, is taken for a car
    assert answers["1, 3, 4"].tolist() == [CAT, CAT]  # smoothing alone makes cats likely everywhere
    assert answers["1, 2, 3, 4"].tolist() == [CAT, CAR]
    doubtful = probabilities((0.45, 0.55), (0.55, 0.45)) + 1e-12  # to answer cat costs 0.45 and 0.55
    asking = decisions.decide(smoothed(doubtful, 0.1), np.ones(10), 0.1)["1, 2, 3, 4, 5"]
    assert asking.tolist() == [CAT, decisions.ASK]


def test_costs_are_means_over_images_and_trainings():
    sure, wrong = probabilities((0.01, 0.99), (0.99, 0.01)), probabilities((0.9, 0.1), (0.99, 0.01))
    labels = {"validation": np.array([CAT, CAR]), "test": np.array([CAT, CAR])}
    trainings = [{"validation": smoothed(p, 0.1), "test": smoothed(p, 0.1)} for p in (sure, wrong)]
    rows = decisions.compare(trainings, labels, np.ones(10), 0.1)
    assert rows["test"]["1"] == rows["validation"]["1"] == 10 / 4  # one of two images, with one of two networks
    assert rows["accuracy"]["1"] == 3 / 4 and rows["asked"]["1"] == 0
    assert rows["test"]["1, 2, 3, 4"] == 0 and rows["change"]["1, 2, 3, 4"] == -10 / 4
    assert rows["low"]["1, 2, 3, 4"] <= -10 / 4 <= rows["high"]["1, 2, 3, 4"] <= 0
    doubtful = smoothed(np.full((2, 10), 0.1), 0.1)
    all_asked = decisions.compare([dict.fromkeys(labels, doubtful)], labels, np.ones(10), 0.1).iloc[-1]
    assert all_asked["asked"] == 1 and all_asked["accuracy"] == 0
    asked = rows.loc["1, 2, 3, 4, 5"]
    assert asked["asked"] == 1 / 4 and asked["test"] == decisions.ASKING / 4 and asked["accuracy"] == 1


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
