"""make fast: a bar an epoch, and what came of it."""

import re

from helpers import config, data, runs
from helpers.commands import fast


def line(accuracy, epochs=(1, 9)):
    rows = [{"epoch": epochs[0], "validation_accuracy": accuracy, "seconds": 60.0}]
    return fast.curve_line("FastNet", rows, epochs[1])


def test_a_bar_is_a_point_a_character_and_marks_the_reference():
    low, middle, high = line(0.1), line(0.75), line(0.95)
    assert low.count("█") == 0 and middle.count("█") == 25 and high.count("█") == 45
    assert low.index("┊") == middle.index("┊") == low.index("/9") + 4 + 41 and "┊" not in high
    assert middle.startswith("  1/9  ") and middle.endswith("75.00%  60 s  8 min left")


def test_it_trains_from_scratch_and_tells_accuracies_and_minutes(sample, monkeypatch, capsys):
    few = data.first(sample[0], 120), sample[1]  # each of them is trained on four times
    monkeypatch.setattr(data, "train_validation", lambda profile: few)
    for _ in range(2):  # trained again, although it is stored
        fast.main("smoke")
        first, one, two, last = capsys.readouterr().out.splitlines()
        assert first.startswith("FastNet: validation accuracy from 50% to 100%")
        assert re.match(r" *1/2 .*%  \d+ s  \d+ min left$", one) and re.match(" *2/2 ", two)
        says = r"FastNet after 2 epochs in \d\.\d min: validation ([\d.]+)%, test [\d.]+% \[.*\] by a single view"
        accuracy = float(re.fullmatch(says, last)[1]) / 100
    (folder,) = (config.CACHE / "runs").iterdir()
    history = runs.load(folder).history
    assert round(history["validation_accuracy"][history["validation_loss"].idxmin()], 4) == accuracy
    assert not config.PUBLISHED.exists()
