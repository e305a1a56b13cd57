"""Differences between groups of trainings, with their intervals."""

import pandas as pd
import pytest
import scipy.stats

from helpers.analysis import effects

ROWS = pd.DataFrame({"key": list("aaabbb"), "accuracy": [0.60, 0.62, 0.64, 0.70, 0.71, 0.75]})


def test_two_groups_get_the_interval_of_the_t_test():
    (change,) = effects.against(ROWS, "a", "accuracy").itertuples()
    t_test = scipy.stats.ttest_ind(ROWS["accuracy"][3:], ROWS["accuracy"][:3])
    assert change.Index == "b" and change.difference == pytest.approx(0.10)
    assert (change.low, change.high) == pytest.approx(tuple(t_test.confidence_interval()), abs=1e-4)


def test_two_comparisons_have_wider_intervals_than_one():
    more = pd.concat([ROWS, ROWS[3:].assign(key="c")])
    one = effects.against(ROWS, "a", "accuracy").loc["b", "low"]
    assert effects.against(more, "a", "accuracy").loc["b", "low"] < one


def test_the_order_of_the_rows_does_not_choose_the_yardstick():
    change = effects.against(ROWS[::-1], "a", "accuracy")
    assert change.index.tolist() == ["b"] and change.loc["b", "difference"] == pytest.approx(0.10)


def test_a_group_of_one_has_no_deviation_in_print():
    assert effects.mean_and_deviation(0.5, float("nan")) == "0.500"
    assert effects.mean_and_deviation(0.7443, 0.0046, 100, 2) == "74.43 ± 0.46"
