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


def test_detail_has_a_row_for_each_group_and_two_columns_for_each_kind_of_images():
    row = {"BaselineNet": 0.5, "ImprovedNet": 0.75, "lead": 0.25, "change": -0.1}
    rows = pd.DataFrame({("as they are", "vehicles"): row, ("filtered", "vehicles"): row}).T
    shown = tables.detail(rows.rename_axis(["images", "group"]))
    assert shown.columns.tolist()[:2] == [("as they are", "accuracy"), ("as they are", "lead")]
    assert shown.loc["vehicles"].tolist() == ["50.0 → 75.0", "25.0"] * 2
