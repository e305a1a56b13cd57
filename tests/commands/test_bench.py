"""The bench measures what it says, on a few steps."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from helpers import models, train
from helpers.commands import bench
from helpers.config import FAST, IMPROVED
from helpers.errors import Problem


def test_every_contender_takes_steps_and_the_table_follows(sample, monkeypatch):
    monkeypatch.setattr(bench, "FAST", dataclasses.replace(FAST, batch_size=100, microbatch=50))
    result = bench.measure(sample[0], IMPROVED, bench.train.Device("cpu", torch.bfloat16), steps=1, rounds=1)
    names = [row["what"] for row in result["rows"]]
    assert names[:2] == ["ImprovedNet, the usual way", "ImprovedNet, float32"]
    assert names[-2:] == ["ImprovedNet, bfloat16", "FastNet, bfloat16"]
    assert result["matmul_gflops"].keys() == {"float32", "bfloat16"}
    for row in result["rows"]:
        network, precision = row["what"].split(", ")[0], "bfloat16" if "bfloat16" in row["what"] else "float32"
        work = 6 * models.macs(models.build(network)) * row["images_per_second"] / 1e9
        assert abs(row["gflops"] / work - 1) < 1e-6 and row["low"] <= row["images_per_second"] <= row["high"]
        assert abs(row["share_of_matmul"] * result["matmul_gflops"][precision] / row["gflops"] - 1) < 1e-6
        assert (row["times_usual"] is None) == (network == "FastNet")
        epochs = None if "no augmentation" in row["what"] else bench.EPOCHS_TO_GOAL[network]
        assert row["minutes_to_goal"] == (epochs and pytest.approx(row["epoch_seconds"] * epochs / 60))
    assert result["rows"][0]["times_usual"] == 1
    assert bench.table(result).shape == (5, 6) and bench.table(result).iloc[-1]["times the usual"] == "–"
    whole = {
        **json.loads(json.dumps(result)),
        "device": "a CPU",
        "torch": "2",
        "rounds": 1,
        "steps": 1,
        "peak_memory_gib": 1.234,
        "gpu": {"device": "GPU X", "torch": "2", "epochs": 16, "seconds": 8.26},
    }
    page = bench.readme("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n", whole)
    assert page.startswith("before\n<!-- bench -->\n| training | images/s |") and "old" not in page
    assert page.count("\n| ") == 7 and "1.23 GiB" in page and page.endswith("\n<!-- /bench -->\nafter\n")
    assert bench.readme(page, whole) == page
    assert "On one GPU X (PyTorch 2), 16 epochs of FastNet take 8.3 s." in page


def test_a_training_that_has_a_gpu_for_itself_is_timed_whole(sample, monkeypatch):
    seconds = iter([0, 2, 2, 5])  # begin and end of two epochs
    monkeypatch.setattr(train.time, "perf_counter", lambda: next(seconds))
    cfg = dataclasses.replace(FAST, epochs=2, batch_size=180, microbatch=60)
    timed = bench.on_gpu(sample, bench.FLOAT32, cfg)
    assert (timed["epochs"], timed["seconds"]) == (2, 5) and 0 <= timed["validation_accuracy"] <= 1


def test_too_little_shared_memory_is_one_sentence(sample, monkeypatch):
    def starved(*arguments, **options):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. Out of shared memory.")
        yield

    monkeypatch.setattr(torch.utils.data, "DataLoader", starved)
    with pytest.raises(Problem, match="start the container with --shm-size"):
        next(bench.usual_steps(sample[0], IMPROVED))


def ours(part, cfg):
    return bench.our_steps("ImprovedNet", part, cfg, bench.FLOAT32)


def test_the_usual_way_trains_as_ours_does(sample):
    """It is a fair opponent: the same network, a full pass over the images, much the same losses."""
    losses = list(bench.usual_steps(sample[0], IMPROVED))
    assert len(losses) == -(-len(sample[0].labels) // IMPROVED.batch_size)
    assert np.isfinite(losses).all() and losses[-1] != losses[0]
    easy = dataclasses.replace(train.plain(IMPROVED), batch_size=30)
    passes = [np.mean(list(steps(sample[0], easy))) for steps in (bench.usual_steps, ours)]
    assert abs(passes[0] - passes[1]) < 0.3 and max(passes) < 2.4
    x, y = bench.PILImages(sample[0], IMPROVED)[3]
    assert x.shape == (3, 32, 32) and x.dtype == torch.float32 and y == sample[0].labels[3]


def test_readme_shows_what_is_stored():
    text = (bench.config.ROOT / "README.md").read_text()
    assert bench.readme(text, bench.stored()) == text, "README.md and reports/bench.json differ: run make bench"
