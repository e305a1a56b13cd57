"""Every verdict turns when the numbers do, and none is given where the evidence does not decide."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import models
from helpers.analysis import claims

LABELS = np.repeat(np.arange(10), 40)


def answers(*wrong, sharpness=5.0):
    """Logits that are right but for `wrong`: (true class, answer, how many of its 40 images)."""
    said = LABELS.copy()
    for true, answer, count in wrong:
        said[np.flatnonzero(LABELS == true)[:count]] = answer
    return sharpness * np.eye(10)[said]


def ablation(**changes):
    """Three seeds of the full recipe and of each change; `changes` are {key: (column, by how much)}."""
    keys = ("no_batch_norm", "no_dropout", "no_weight_decay", "no_augmentation", "sgd", "constant_lr", "default_init")
    columns = ("accuracy", "gap", "training", "nothing", "pose_10", "place_4", "square_12")
    table = pd.DataFrame({"key": np.repeat(["recipe", *keys], 3)})
    table["title"], table["loss"] = table["key"].str.replace("_", " "), 0.5
    noise = np.random.default_rng(0).normal(0.5, 0.001, (len(table), len(columns)))
    table[list(columns)] = noise - noise.reshape(-1, 3, len(columns)).mean(1).repeat(3, axis=0) + 0.5  # equal means
    for key, (column, amount) in changes.items():
        table.loc[table["key"] == key, column] += amount
    return table


def gain(difference):
    return {"difference": difference, "difference_low": difference - 0.01, "difference_high": difference + 0.01}


def test_headline_is_of_all_three_scores_and_of_the_gain():
    low = {"accuracy": 0.6853, "nll": 0.912, "macro_f1": 0.684}
    high = {"accuracy": 0.9142, "nll": 0.288, "macro_f1": 0.914}
    found = claims.headline(low, high, gain(0.2289))
    assert found.standing == claims.HOLDS and "68.53%" in found.measured
    assert claims.headline(low, high, gain(0.168)).verdict.startswith(
        "holds of the improved network; the gain is smaller"
    )
    for worse in ({"nll": 0.30}, {"macro_f1": 0.90}, {"accuracy": 0.9130}):
        assert claims.headline(low, high | worse, gain(0.2289)).verdict == "holds of its weights, not of ours"


def test_capacity_needs_a_wider_network_that_gains_most_on_animals():
    base, animals, vehicles = answers((3, 5, 30), (0, 1, 30)), answers((0, 1, 30)), answers((3, 5, 30))
    assert claims.capacity(0.8, base, animals, LABELS).standing == claims.HOLDS
    assert claims.capacity(0.8, base, vehicles, LABELS).standing == claims.IN_PART
    assert claims.capacity(0.8, base, base, LABELS).standing == claims.UNDECIDED


def right(shares):
    """Correctness of 2,000 images, by change and network; shares: {network: (nothing, moved, shuffled)}."""
    changes = ("nothing", "moved", "shuffled")
    at = np.arange(2000) / 2000
    return {change: {name: at < kept[i] for name, kept in shares.items()} for i, change in enumerate(changes)}


@pytest.mark.parametrize(
    "base, new, standing",
    [
        ((0.9, 0.9, 0.8), (0.9, 0.9, 0.3), claims.HOLDS),
        ((0.9, 0.9, 0.3), (0.9, 0.9, 0.8), claims.NOT),
        ((0.75, 0.34, 0.25), (0.91, 0.71, 0.41), claims.UNDECIDED),  # moving alone explains what shuffling costs
    ],
)
def test_texture_is_decided_only_if_moving_the_tiles_alike_agrees(base, new, standing):
    assert claims.texture(right({"BaselineNet": base, "ImprovedNet": new})).standing == standing


def test_texture_is_measured_above_chance():
    found = claims.texture(right({"BaselineNet": (0.5, 0.3, 0.2), "ImprovedNet": (0.9, 0.5, 0.3)}))
    assert "keep 25% and 25% with sixteen tiles shuffled, and 50% and 50% with" in found.measured


@pytest.mark.parametrize(("count", "standing"), [(60, claims.HOLDS), (20, claims.UNDECIDED)])
def test_misleading_needs_more_mistakes_than_promised(count, standing):
    scores = {"wrong_above_90": count, "expected_above_90": 20.0, "expected_above_90_std": 4.0}
    found = claims.misleading(scores)
    assert found.standing == standing and "20 ± 4" in found.measured


def test_balance_in_points_and_in_proportion():
    uneven, even = answers((3, 5, 20)), answers(*((k, (k + 1) % 10, 4) for k in range(10)))
    assert claims.balance(uneven, even, LABELS).verdict == "holds"
    assert claims.balance(even, uneven, LABELS).verdict == "does not hold"
    spread = answers(*((k, (k + 1) % 10, 8) for k in range(10)), (3, 5, 18))
    assert claims.balance(spread, answers((3, 5, 10)), LABELS).verdict == "holds in points, not in proportion"


def test_pairs_are_beyond_what_few_errors_show_by_chance():
    spread, few = answers(*((k, (k + 1) % 10, 8) for k in range(10))), answers((3, 5, 20))
    assert claims.pairs(spread, few, LABELS).verdict == "holds for the worst pair; not decided for the next four"
    next_four = answers((3, 5, 40), (0, 1, 30), (2, 4, 30), (6, 7, 30), (8, 9, 30))
    assert claims.pairs(spread, next_four, LABELS).standing == claims.HOLDS
    assert claims.pairs(few, spread, LABELS).standing == claims.IN_PART
    assert claims.pairs(spread, spread, LABELS).standing == claims.UNDECIDED


def test_confidence_as_trained_and_at_the_temperatures():
    wrong = ((3, 5, 30), (0, 1, 30))
    base, better = answers(*wrong, sharpness=9.0), answers(*wrong, sharpness=3.5)
    assert claims.confidence([base, better], [base, better], LABELS).standing == claims.HOLDS
    assert claims.confidence([base, base], [base, base], LABELS).verdict == claims.UNDECIDED
    mixed = claims.confidence([base, better], [better, base], LABELS)
    assert mixed.standing == claims.IN_PART
    assert mixed.verdict == (
        "holds for fewer mistakes as trained and a lower ECE as trained; "
        "the contrary holds for fewer mistakes at their temperatures and a lower ECE at their temperatures"
    )
    assert "as trained 60 → 0" in mixed.measured


def test_depth():
    networks = [SimpleNamespace(model=models.build(name)) for name in ("BaselineNet", "ImprovedNet")]
    assert claims.depth(networks, [0.6, 0.9]).standing == claims.IN_PART
    assert claims.depth(networks, [0.9, 0.6]).verdict == "does not hold"
    by_hand = [2 + 1 + 2 + 2 + 4 + 4, 1 + 4 + 1 + 8 + 2 + 16 + 4]  # each layer adds (kernel - 1) x the strides before
    measured = claims.depth(networks, [0.6, 0.9]).measured
    assert f"see {by_hand[0]} → {min(by_hand[1], 32)} pixels" in measured and "288 → 2,048 features" in measured


def test_stability_is_steadiness_not_accuracy():
    falling, wavy = [np.linspace(2, 1, 10)] * 3, [np.array([2.0, 1, 2, 1, 2, 1, 2, 1, 2, 1])] * 3
    faster = ablation(no_batch_norm=("accuracy", -0.1))
    found = claims.stability(faster, {"recipe": falling, "no_batch_norm": falling})
    assert found[3:] == ("learns faster; steadiness not shown", claims.UNDECIDED)
    found = claims.stability(faster, {"recipe": falling, "no_batch_norm": wavy})
    assert found.standing == claims.HOLDS and "0 of 27 epochs with it and 12 of 27 without" in found.measured
    assert claims.stability(ablation(), {"recipe": wavy, "no_batch_norm": falling}).verdict.startswith("not faster")


def test_choices_judge_sgd_by_the_best_of_its_rates():
    worse = ablation(sgd=("accuracy", -0.1), constant_lr=("accuracy", -0.1), default_init=("accuracy", 0.1))
    found = claims.choices(worse, worse.iloc[:0])
    assert found.verdict == "the contrary holds for Kaiming; holds for cosine and Adam"
    assert found.standing == claims.IN_PART
    tuned = ablation()[lambda rows: rows["key"] == "sgd"].assign(key="sgd_fast", title="sgd fast")
    assert claims.choices(worse, tuned).verdict.endswith("holds for cosine; not decided for Adam")
    assert "; sgd fast" in claims.choices(worse, tuned).measured
    assert claims.choices(ablation(), tuned).standing == claims.UNDECIDED


def test_an_interval_is_as_wide_as_its_own_groups():
    none = ablation().iloc[:0]
    unsteady = ablation(constant_lr=("accuracy", -0.03))
    unsteady.loc[unsteady["key"] == "constant_lr", "accuracy"] += [-0.03, 0, 0.03]
    assert claims.choices(unsteady, none).verdict == "not decided"
    steady = ablation(default_init=("accuracy", -0.01))
    steady.loc[steady["key"] == "constant_lr", "accuracy"] += [-0.03, 0, 0.03]  # says nothing of another group
    assert "holds for Kaiming" in claims.choices(steady, none).verdict


def test_overfitting_is_beyond_what_learning_more_explains():
    rows = ablation()
    rows["training"] = np.repeat(np.linspace(0.5, 0.9, 8), 3)
    rows["gap"] = 0.1 * rows["training"] + np.tile([-0.001, 0, 0.001], 8)
    assert claims.overfitting(rows)[3:] == (claims.UNDECIDED, claims.UNDECIDED)
    rows.loc[rows["key"] == "no_dropout", "gap"] += 0.05
    assert claims.overfitting(rows)[3:] == ("holds for dropout; not decided for weight decay", claims.IN_PART)


def test_invariance_is_a_smaller_loss_and_never_judges_rotation():
    rotations = pd.Series(
        {"as they are": 0.9, "moved by half a pixel, bilinear": 0.8, "rotated by 10 degrees, bilinear": 0.85}
    )
    moved = ablation(no_augmentation=("place_4", -0.2))
    assert claims.invariance(moved, rotations).verdict == ("not decided for rotation and occlusion; holds for shift")
    assert "10.0 points by half a pixel and 5.0 by 10 degrees" in claims.invariance(moved, rotations).measured
    lower = ablation()
    cues = ["nothing", "pose_10", "place_4", "square_12"]
    lower.loc[lower["key"] == "no_augmentation", cues] -= 0.2  # all images alike
    assert claims.invariance(lower, rotations).standing == claims.UNDECIDED


def test_as_markdown():
    rows = [
        claims.Claim("x", "a", "1 → 2", "holds", "holds"),
        claims.Claim("y", "b", "3", "not decided", "not decided"),
    ]
    assert claims.as_markdown(rows).splitlines()[2:] == ["| a | 1 → 2 | holds |", "| b | 3 | not decided |"]


def test_checkpoint_is_worth_no_more_than_a_seed():
    def training(*losses):
        return SimpleNamespace(history=pd.DataFrame({"validation_loss": losses}))

    constant = [np.array([0.5, 0.3, 0.4])]
    found = claims.checkpoint([training(0.5, 0.3, 0.302), training(0.5, 0.4, 0.3)], constant, spread=0.005)
    assert found.standing == claims.NOT and "Of 2 trainings 1 kept an earlier epoch" in found.measured
    assert "by 0.100 on average" in found.measured
    assert claims.checkpoint([training(0.5, 0.3, 0.4)], constant, spread=0.005).standing == claims.UNDECIDED
