"""What trainings cost beside what they reached."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from helpers import config, runs
from helpers.analysis import frontier

LABELS = np.arange(10)


def results(seed, right, seconds, network="FastNet", epochs=3, device="a CPU, 1 thread, cpu/bfloat16"):
    """A training that gets the first `right` of ten images right."""
    answers = np.where(np.arange(10) < right, LABELS, (LABELS + 1) % 10)
    cfg = dataclasses.asdict(config.FAST)
    record = {"network": network, "config": cfg, "data": {}, "seed": seed, "epochs": epochs, "device": device}
    history = pd.DataFrame({"seconds": seconds})
    return runs.Results(history, [], record | {"flop": 3e15}, {"test": np.eye(10)[answers]})


def test_a_row_has_the_mean_over_seeds_and_the_cost_of_the_fastest():
    disturbed = results(0, 8, [66, 6000, 70])
    slow = results(1, 6, [120, 120, 120], device="a CPU, 2 threads, cpu/bfloat16")
    rows = frontier.points([slow, disturbed, disturbed, results(0, 5, [6], "Other", 1, "a GPU, cuda")], LABELS)
    row, other = rows.to_dict("records")
    assert (row["network"], row["epochs"], row["n"]) == ("FastNet", 3, 2)
    assert row["accuracy"] == pytest.approx(0.7) and row["accuracy_std"] == pytest.approx(0.1 * 2**0.5)
    assert (row["pflop"], row["minutes"], row["threads"]) == (3, 3.3, 1)
    assert (other["threads"], other["n"]) == (0, 1) and np.isnan([other["accuracy_std"], other["minutes"]]).all()
    shown = frontier.table(rows).iloc[1]
    assert (shown["minutes"], shown["threads"]) == ("–", "–")
    assert frontier.facts(rows)["Other_1"] == {"n": 1, "accuracy": 0.5, "pflop": 3, "minutes": None}


def test_minutes_are_those_of_the_fastest_on_a_cpu_even_if_a_gpu_was_faster():
    (row,) = frontier.points([results(0, 8, [1] * 3, device="a GPU, cuda"), results(1, 8, [60] * 3)], LABELS).to_dict(
        "records"
    )
    assert (row["n"], row["minutes"], row["threads"]) == (2, 3, 1)


def test_the_table_ends_with_what_is_cited():
    shown = frontier.table(frontier.points([results(0, 9, [60] * 3)], LABELS))
    assert shown.iloc[0].tolist() == ["FastNet", "3", "1", "90.00", "3", "3.0", "1"]
    assert shown["network"].tolist()[1:] == ["airbench94 (cited)", "ResNet-18 (cited)"]
    assert shown.iloc[-1].tolist() == ["ResNet-18 (cited)", "–", "–", "96.00", "32.3", "–", "–"]
