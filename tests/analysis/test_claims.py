"""Every verdict turns when the numbers do."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import metrics, models
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
    columns = ("accuracy", "gap", "nothing", "pose_10", "place_4", "square_12")
    table = pd.DataFrame({"key": np.repeat(["recipe", *keys], 3)})
    table["title"], table["loss"] = table["key"].str.replace("_", " "), 0.5
    noise = np.random.default_rng(0).normal(0.5, 0.001, (len(table), len(columns)))
    table[list(columns)] = noise - noise.reshape(-1, 3, len(columns)).mean(1).repeat(3, axis=0) + 0.5  # equal means
    for key, (column, amount) in changes.items():
        table.loc[table["key"] == key, column] += amount
    return table


def test_headline():
    low, high = (
        {"accuracy": accuracy, "accuracy_high": accuracy + 0.005, "nll": loss, "macro_f1": accuracy}
        for accuracy, loss in ((0.75, 0.7), (0.912, 0.29))
    )
    found = claims.headline(low, high)
    assert found.verdict == "holds; our improved network reaches it"
    assert "68.53%" in found.measured and "91.20%" in found.measured
    assert claims.headline(low, {**high, "nll": 0.30}).verdict == "holds of its weights, not ours"


def test_capacity_needs_unlearnt_images_and_weaker_animals():
    animals, vehicles = answers((3, 5, 20)), answers((0, 1, 20))
    assert claims.capacity(0.8, animals, LABELS).verdict == "holds"
    assert claims.capacity(0.99, animals, LABELS).verdict == "does not hold"
    assert claims.capacity(0.8, vehicles, LABELS).verdict == "does not hold"


def test_texture_is_judged_by_shares_of_the_accuracy():
    index = ["nothing", "colour", "shape_4"]
    cues = pd.DataFrame({"BaselineNet": [0.5, 0.4, 0.3], "ImprovedNet": [0.9, 0.8, 0.4]}, index)
    assert claims.texture(cues).verdict == "holds" and "80%" in claims.texture(cues).measured
    cues.loc["shape_4", "ImprovedNet"] = 0.6
    assert claims.texture(cues).verdict.startswith("does not hold")


@pytest.mark.parametrize(("sharpness", "verdict"), [(9.0, "holds"), (1.0, "does not hold")])
def test_misleading(sharpness, verdict):
    assert claims.misleading(metrics.summary(answers((3, 5, 30), sharpness=sharpness), LABELS)).verdict == verdict


def test_balance_in_points_and_in_proportion():
    uneven, even = answers((3, 5, 20)), answers(*((k, (k + 1) % 10, 4) for k in range(10)))
    assert claims.balance(uneven, even, LABELS).verdict == "holds"
    assert claims.balance(even, uneven, LABELS).verdict == "does not hold"
    spread = answers(*((k, (k + 1) % 10, 8) for k in range(10)), (3, 5, 18))
    assert claims.balance(spread, answers((3, 5, 10)), LABELS).verdict == "holds in points, not in proportion"


def test_pairs():
    spread, few = answers(*((k, (k + 1) % 10, 4) for k in range(10))), answers((3, 5, 20))
    assert claims.pairs(spread, few, LABELS).verdict == "holds"
    assert claims.pairs(few, spread, LABELS).verdict == "does not hold"


def test_confidence_as_trained_and_at_equal_calibration():
    base, better, worse = ({"wrong_above_90": n, "ece": ece} for n, ece in ((100, 0.02), (50, 0.01), (150, 0.03)))
    assert claims.confidence([base, better], [base, better]).verdict == "holds"
    assert claims.confidence([base, worse], [base, worse]).verdict == "does not hold"
    mixed = claims.confidence([base, {**worse, "wrong_above_90": 50}], [base, worse])
    assert mixed.verdict == "only fewer mistakes as trained"
    assert "ours 100 → 50 and 0.020 → 0.030" in mixed.measured


def test_depth():
    networks = [SimpleNamespace(model=models.build(name)) for name in ("BaselineNet", "ImprovedNet")]
    assert claims.depth(networks, [0.6, 0.9]).verdict == "holds in part: width and recipe changed too"
    assert claims.depth(networks, [0.9, 0.6]).verdict == "does not hold"
    by_hand = [2 + 1 + 2 + 2 + 4 + 4, 1 + 4 + 1 + 8 + 2 + 16 + 4]  # each layer adds (kernel - 1) x the strides before
    assert f"see {by_hand[0]} → {min(by_hand[1], 32)} pixels" in claims.depth(networks, [0.6, 0.9]).measured


def test_parts_are_judged_by_their_intervals():
    assert claims.stability(ablation())[3:] == ("not shown", "does not hold")
    without = {amount: claims.stability(ablation(no_batch_norm=("accuracy", amount))) for amount in (-0.1, 0.1)}
    assert without[-0.1].verdict == without[-0.1].standing == "holds" and "-10.0 [-10." in without[-0.1].measured
    assert without[0.1][3:] == ("the contrary holds", "does not hold")
    more = ablation(no_dropout=("gap", 0.1))
    assert claims.overfitting(more)[3:] == ("holds for dropout; not shown for weight decay", "holds in part")
    worse = ablation(sgd=("accuracy", 0.1), constant_lr=("accuracy", -0.1), default_init=("accuracy", -0.1))
    assert claims.choices(worse)[3:] == ("holds for Kaiming and cosine; the contrary holds for Adam", "holds in part")


def test_invariance_is_a_smaller_loss_not_a_higher_accuracy():
    assert claims.invariance(ablation(no_augmentation=("place_4", -0.2))).verdict == (
        "not shown for rotation and occlusion; holds for shift"
    )
    lower = ablation()
    cues = ["nothing", "pose_10", "place_4", "square_12"]
    lower.loc[lower["key"] == "no_augmentation", cues] -= 0.2  # all images alike
    assert claims.invariance(lower).verdict == "not shown"


def test_as_markdown():
    rows = [
        claims.Claim("x", "a", "1 → 2", "holds", "holds"),
        claims.Claim("y", "b", "3", "not shown", "does not hold"),
    ]
    assert claims.as_markdown(rows).splitlines()[2:] == ["| a | 1 → 2 | holds |", "| b | 3 | not shown |"]


def test_checkpoint():
    def run(losses):
        best = int(np.argmin(losses)) + 1
        return SimpleNamespace(
            record={"best_epoch": best, "epochs": len(losses)}, history=pd.DataFrame({"validation_loss": losses})
        )

    falling, rising = run([0.5, 0.4, 0.3]), run([0.5, 0.3, 0.4])
    last = claims.checkpoint([falling, falling], [rising])
    assert last.verdict == "makes no difference: the last epochs are the best"
    assert "0.400 at the last epoch and 0.300" in last.measured
    assert claims.checkpoint([rising, falling], [rising]).verdict == "holds"
    assert claims.checkpoint([rising, falling], [falling]).verdict == "does not hold"
