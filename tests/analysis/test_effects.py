"""Means over seeds count each seed once, and one seed has no deviation."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from helpers.analysis import effects, tables


def training(network, epochs, seed, accuracy, **config):
    record = {"network": network, "epochs": epochs, "seed": seed, "config": {"epochs": epochs, **config}, "data": {}}
    return record, {"accuracy": accuracy}


def test_of_a_seed_that_comes_twice_the_first_counts():
    trainings = [training("A", 3, seed, 0.1 * seed) for seed in (1, 2, 3)]
    table = effects.over_seeds([*trainings, training("A", 3, 1, 0.9)], ["accuracy"])
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


def test_each_interval_is_welchs_of_its_own_groups():
    rows = pd.DataFrame({"key": np.repeat(["recipe", "steady", "unsteady"], 3)})
    rows["score"] = [0.70, 0.71, 0.72, 0.60, 0.61, 0.62, 0.50, 0.60, 0.70]
    found = effects.against(rows, "recipe", "score")
    # By hand: both deviations 0.01, so 4 degrees of freedom.
    reach = scipy.stats.t.ppf(0.975, 4) * 0.01 * (2 / 3) ** 0.5
    assert found.loc["steady"].tolist() == pytest.approx([-0.1, -0.1 - reach, -0.1 + reach])
    assert found.loc["unsteady", "high"] > 0


def test_few_seeds_share_one_deviation():
    rows = pd.DataFrame({"key": np.repeat(["recipe", "one", "other"], [3, 2, 2])})
    rows["score"] = [0.70, 0.71, 0.72, 0.60, 0.62, 0.72, 0.76]
    found = effects.against_pooled(rows, "recipe", "score")
    # By hand: squares about the means are 2, 2 and 8 in ten-thousandths, with 2 + 1 + 1 degrees of freedom.
    reach = scipy.stats.t.ppf(0.975, 4) * (12e-4 / 4) ** 0.5 * (1 / 2 + 1 / 3) ** 0.5
    assert found.loc["one"].tolist() == pytest.approx([-0.1, -0.1 - reach, -0.1 + reach])
    assert found.loc["other"].tolist() == pytest.approx([0.03, 0.03 - reach, 0.03 + reach])
    pair = rows[rows["key"] != "other"]
    known = scipy.stats.ttest_ind(pair["score"][3:], pair["score"][:3]).confidence_interval()
    assert effects.against_pooled(pair, "recipe", "score").loc["one", "low"] == pytest.approx(known.low)


def test_steps_lead_from_each_key_to_the_next():
    rows = pd.DataFrame({"key": np.repeat(["small", "large", "other"], 2)})
    rows["score"] = [0.5, 0.6, 0.7, 0.8, 0.2, 0.4]
    found = effects.steps(rows, ["small", "large", "other"], "score")
    assert found["difference"].to_dict() == pytest.approx({"large": 0.2, "other": -0.45})
    assert found.loc["other"].tolist() == effects.against_pooled(rows, "large", "score").loc["other"].tolist()


def test_means_are_shown_in_the_form_of_their_score():
    rows = pd.DataFrame({"key": ["a", "a", "b"], "title": ["all", "all", "less"], "accuracy": [0.90, 0.92, 0.85]})
    rows["nll"], rows["wrong_above_90"] = [0.3, 0.4, 0.5], [90, 100, 240]
    shown = effects.means_table(rows, {"accuracy": "accuracy (%)", "nll": "loss", "wrong_above_90": "wrong"})
    assert shown.loc["all"].tolist() == [2, "91.00 ± 1.41", "0.350 ± 0.071", "95 ± 7"]
    assert shown.loc["less"].tolist() == [1, "85.00", "0.500", "240"]


def test_two_versions_differ_by_their_means_in_each_score():
    first = pd.DataFrame({"a": [7.0, 8.0, 9.0], "b": [0.1, 0.2, 0.3]})
    second = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.1, 0.2, 0.3]})
    found = effects.beside(first, second)
    reach = 2.776445 * (2 / 3) ** 0.5  # t with 4 degrees of freedom; both deviations of a are 1
    assert found.loc["a"].tolist() == pytest.approx([6, 6 - reach, 6 + reach])
    assert found.loc["b"].tolist() == pytest.approx([0, -reach / 10, reach / 10])


def test_what_lies_on_the_line_is_no_excess():
    rows = pd.DataFrame({"x": [0.0, 1, 2, 3], "y": [0.0, 2.1, 3.9, 6]})
    found = effects.off_the_line(rows, pd.DataFrame({"x": [4.0], "y": [8.0]}), "x", "y")
    assert found["low"] < 0 < found["high"] and abs(found["difference"]) < 0.1
    beyond = effects.off_the_line(rows, pd.DataFrame({"x": [4.0], "y": [12.0]}), "x", "y")
    assert beyond["low"] > 0 and beyond["difference"] == pytest.approx(found["difference"] + 4)
    nearer = effects.off_the_line(rows, pd.DataFrame({"x": [1.5], "y": [3.0]}), "x", "y")
    assert nearer["high"] - nearer["low"] < found["high"] - found["low"]


def test_few_seeds_say_little():
    # t with 4 and with 2 degrees of freedom; chi-squared from a table: 11.143 and 0.484 for 4
    assert effects.beyond_chance(1.0, 5) == pytest.approx(2**0.5 * 2.776, abs=1e-3)
    assert effects.beyond_chance(1.0, 3) == pytest.approx(2**0.5 * 4.303, abs=1e-3)
    assert effects.deviation_interval(1.0, 5) == pytest.approx(((4 / 11.143) ** 0.5, (4 / 0.48442) ** 0.5), abs=1e-3)


def test_two_versions_stand_side_by_side():
    def trainings(*scores):
        records = [{"seed": seed, "scores": {"test": {"aurc": a}}} for seed, a in enumerate(scores)]
        return effects.by_seed([SimpleNamespace(record=record) for record in records])

    versions = {"without": trainings(0.2, 0.3), "with": trainings(0.2, 0.3, 0.4)}
    shown = tables.side_by_side(versions, {"aurc": "AURC"})
    assert shown.columns.tolist() == ["without (2)", "with (3)", "difference"]
    assert shown.loc["AURC"].tolist() == ["0.2500", "0.3000", "-0.0500 [-0.2988, +0.1988]"]


@pytest.mark.parametrize(
    "low, high, better, said", [(0.1, 0.3, 1, "yes"), (0.1, 0.3, -1, "no"), (-0.3, -0.1, -1, "yes"), (-1, 1, 1, "open")]
)
def test_a_verdict_needs_an_interval_without_zero(low, high, better, said):
    assert effects.verdict(pd.Series({"difference": (low + high) / 2, "low": low, "high": high}), better) == said
