"""The headline table: texts with intervals where there are any, ours beside the reference's."""

from helpers import models
from helpers.analysis import claims


def test_headline_shows_intervals_where_there_are_any():
    ours = {**claims.REFERENCE["reference improved"], "accuracy": 0.5, "nll": 0.25, "nll_low": 0.2, "nll_high": 0.3}
    table = claims.comparison_table({"ImprovedNet": ours})
    assert list(table.columns) == ["ImprovedNet", "reference baseline", "reference improved"]
    assert table.loc["accuracy (%)", "ImprovedNet"] == "50.00 [90.86, 91.95]"
    assert table.loc["loss (nats)"].tolist() == ["0.250 [0.200, 0.300]", "0.912", "0.288"]
    assert table.loc["parameters", "reference improved"] == "815,018"
    assert table.loc["accuracy (%)", "reference improved"] == "91.42"
    assert table.loc["wrong above 0.9"].tolist() == ["267", "177", "267"]
    assert set(table.loc["inference (MFLOP)"]) == {"–"}


def test_costs_are_in_millions_of_operations():
    found = claims.costs({"network": "BaselineNet", "parameters": 7, "seed": 0})
    assert found == {"parameters": 7, "mflop": 2 * models.macs(models.build("BaselineNet")) / 1e6}
