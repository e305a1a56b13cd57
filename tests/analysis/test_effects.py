"""Means over seeds count each seed once, and one seed has no deviation."""

import numpy as np
import pandas as pd
import pytest

from helpers.analysis import effects


def training(network, epochs, seed, accuracy, **config):
    record = {"network": network, "epochs": epochs, "seed": seed, "config": {"epochs": epochs, **config}, "data": {}}
    return record, {"accuracy": accuracy}


def test_a_seed_that_comes_twice_counts_once():
    trainings = [training("A", 3, seed, 0.1 * seed) for seed in (1, 2, 3)]
    table = effects.over_seeds([*trainings, training("A", 3, 1, 0.1)], ["accuracy"])
    assert table["n"].tolist() == [3] and table["accuracy"].tolist() == pytest.approx([0.2])
    assert table["accuracy_std"].tolist() == pytest.approx([0.1])


def test_other_settings_are_another_group_and_one_seed_has_no_deviation():
    rows = [training("A", 3, 0, 0.5), training("A", 3, 1, 0.6, flip=0.0), training("A", 5, 0, 0.7)]
    table = effects.over_seeds(rows, ["accuracy"])
    assert table["n"].tolist() == [1, 1, 1]
    shown = effects.seeds_table(table, {"accuracy": "accuracy (%)"})
    assert sorted(shown["accuracy (%)"]) == ["50.00", "60.00", "70.00"]


def test_changes_stand_beside_their_yardstick():
    rows = pd.DataFrame({"key": np.repeat(["recipe", "less"], 3), "title": np.repeat(["all", "less of it"], 3)})
    rows["accuracy"] = [0.70, 0.71, 0.72, 0.60, 0.61, 0.62]
    rows["loss"] = rows["gap"] = 0.1
    table = effects.change_table(rows, "recipe", {"accuracy": "accuracy (%)"})
    assert table.loc["all"].tolist() == ["71.0 ± 1.0", ""]
    assert table.loc["less of it", "accuracy (%)"] == "61.0 ± 1.0"
    assert table.loc["less of it", "change of accuracy"].startswith("-10.0 [-1")
