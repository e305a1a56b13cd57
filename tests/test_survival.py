"""Killed at any moment, or damaged in any byte: work goes on, and nothing wrong is believed.

`make test` takes a sample; the marker torture (`make torture`) repeats it hundreds of times.
"""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import config, data, experiments, runs

TRAIN = """
import sys, torch
from pathlib import Path
from helpers import config, data, runs, train
network, store = sys.argv[1:]
torch.set_num_threads(1)
changes = {"epochs": {"BaselineNet": 60, "ImprovedNet": 8}[network], "batch_size": 60}
runs.train_run(network, config.train_config(network, "smoke", **changes), "smoke", 0,
               train.Device("cpu", torch.float32), data.train_validation("smoke"), Path(store))
"""


def start(network, folder):
    environment = {**os.environ, "CIFAR10_REPORT_CACHE": str(folder / "cache"), "PYTHONPATH": str(config.ROOT)}
    command = [sys.executable, "-c", TRAIN, network, folder / "runs"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def result(folder):
    """What training has made, but for times and dates."""
    (stored,) = (folder / "runs").glob("*-*")
    run = runs.load(stored)  # verifies every file
    weights = (stored / "weights.safetensors").read_bytes()
    return weights, run.first_losses, run.history.drop(columns="seconds").to_dict("records"), run.record["best_epoch"]


def kill_while_writing(process, folder):
    """Wait for a file that is being written, then kill."""
    while process.poll() is None:
        if list((folder / "cache").rglob("*.partial")) or list((folder / "runs").glob(".*")):
            process.send_signal(signal.SIGKILL)
            return
        time.sleep(0.0005)


def kill_some_time_later(process, rng):
    """Wait for the end of an epoch, then up to half a second, then kill."""
    process.stdout.readline()
    time.sleep(rng.random() * 0.5)
    process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(("network", "kills"), [
    ("BaselineNet", 2),
    pytest.param("BaselineNet", 30, marks=pytest.mark.torture),
    pytest.param("ImprovedNet", 30, marks=pytest.mark.torture),
])  # fmt: skip
def test_a_killed_training_goes_on_to_the_same_bits(network, kills, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(network, undisturbed).wait() == 0
    rng, gone_on = random.Random(0), 0
    for i in range(kills):
        process = start(network, disturbed)
        kill_while_writing(process, disturbed) if i % 2 else kill_some_time_later(process, rng)
        process.wait()
        if list((disturbed / "runs").glob("*-*")):
            break  # finished before the kill
        gone_on += "going on after epoch" in process.stdout.read()
    else:
        process = start(network, disturbed)
        printed, _ = process.communicate()
        gone_on += "going on after epoch" in printed
        assert process.returncode == 0
    assert gone_on
    assert result(disturbed) == result(undisturbed)


# ---- Damage


def flip(content, rng):
    i = rng.randrange(len(content))
    return content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def swap(content, rng):
    """Two stretches change places."""
    a, b, c = sorted(rng.sample(range(len(content) + 1), 3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def nothing(content, rng):
    return b""


DAMAGES = (flip, cut, swap, nothing)
TIMES = [3, pytest.param(200, marks=pytest.mark.torture)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stored run with weights, history and logits."""
    folder = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE", folder / "cache")
        cfg = config.train_config("BaselineNet", "smoke", batch_size=60)
        trial = experiments.Trial("", "BaselineNet", cfg, 0)
        experiment = experiments.Experiment([trial], images=120, keep_logits=True, profile="smoke")
        _, run = experiments.train_trial(trial, experiment, "cpu")
        (path,) = (folder / "cache" / "runs").iterdir()
        history = {"first_losses": run.first_losses, "epochs": run.history.to_dict("records")}
        logits = {name: experiments.torch.from_numpy(z) for name, z in run.logits.items()}
        runs.save(path, run.record, history, weights=runs.load(path).model.state_dict(), logits=logits)
    return path


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["run.json", "history.json", "weights.safetensors", "logits.safetensors"])
def test_damage_to_a_stored_run_is_named(stored, name, damage, times):
    path, rng = stored / name, random.Random(times)
    whole, before = path.read_bytes(), runs.load(stored).record
    try:
        for _ in range(times):
            damaged = damage(whole, rng)
            if damaged == whole:
                continue
            path.write_bytes(damaged)
            try:
                assert runs.load(stored).record == before and name == "run.json"  # only space between values changed
            except runs.CorruptRun as error:
                named = name in str(error) or name == "run.json"  # whose damaged digests point to other files
                assert named and str(error).count("\n") == 0
    finally:
        path.write_bytes(whole)
    assert runs.load(stored).record == before


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_the_images_is_named(damage, times, tmp_path, monkeypatch):
    """A small archive of the cache's form; its digests are those of its own arrays."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    monkeypatch.setattr(data, "CACHE", tmp_path)
    monkeypatch.setattr(data, "DIGESTS", {"test": (data.digest(images), data.digest(labels))})
    path, rng = tmp_path / "test.npz", random.Random(times)
    np.savez(path, images=images, labels=labels)
    whole = path.read_bytes()
    for _ in range(times):
        path.write_bytes(damage(whole, rng))
        try:
            part = data._read_cache("test")
        except data.DataError as error:
            assert str(error).count("\n") == 0 and "test" in str(error)
        else:
            assert (part.images == images).all() and (part.labels == labels).all()  # a byte that means nothing
