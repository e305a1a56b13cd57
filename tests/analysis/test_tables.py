"""Tables that put settings into words."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd

from helpers.analysis import tables
from helpers.config import BASELINE, IMPROVED

RECORD = {"best_epoch": 3, "epochs": 4, "seconds": 90.0, "flop": 2.5e12}


def words(cfg):
    return tables.recipes({"net": SimpleNamespace(cfg=cfg, record=RECORD)})["net"]


def test_a_recipe_names_what_is_used_and_nothing_else():
    found = words(replace(IMPROVED, erasing=0.0, flip=0.25))
    assert found["augmentation"] == "flip 25%, shift ≤ 4 pixels, rotation ≤ 5°, colours ≤ 10%"
    assert found["optimiser"] == "AdamW" and found["label smoothing α"] == "0.05"
    assert found["learning rate"] == "peak 0.002, warm-up 2, cosine"
    assert found["kept checkpoint"] == "epoch 3 of 4" and found["training"] == "2 min"


def test_a_recipe_without_warm_up_and_augmentation_says_so():
    found = words(replace(BASELINE, warmup_epochs=0, flip=0.0, crop_padding=0))
    assert found["augmentation"] == "none" and found["learning rate"] == "peak 0.02, cosine"


def test_costs_stand_in_a_group_for_each_trial():
    rows = pd.DataFrame({"validation": [0.1], "test": [0.1234], "accuracy": [0.5]}, index=["1"])
    shown = tables.costs({"one": rows, "other": rows})
    assert shown.loc["1"].tolist() == ["0.123", "50.0"] * 2
    assert shown.columns.tolist()[:2] == [("one", "cost"), ("one", "accuracy")]


def test_detail_is_shown_in_percent_with_the_change_of_the_lead_in_points():
    row = {"BaselineNet": 0.5, "ImprovedNet": 0.75, "lead": 0.25, "change": -0.1, "low": -0.2, "high": 0.05}
    shown = tables.detail(pd.DataFrame({("vehicles", "filtered"): row}).T)
    assert shown.loc[("vehicles", "filtered")].tolist() == ["50.0", "75.0", "25.0", "-10.0 [-20.0, +5.0]"]
