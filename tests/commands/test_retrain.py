"""make retrain: runs are published whole, with their logits."""

import dataclasses
import json
import runpy
import sys

import numpy as np
import pytest
import torch

from helpers import config, data, inference, metrics, runs, train
from helpers.commands import retrain


@pytest.fixture
def small(sample, monkeypatch):
    """A part of the sample in the place of CIFAR-10."""
    parts = data.first(sample[0], 120), sample[1]
    monkeypatch.setattr(data, "train_validation", lambda profile: parts)
    monkeypatch.setattr(data, "test", lambda profile: parts[1])
    return parts


@pytest.fixture
def trained(sample):
    """A run of two epochs, as retrain leaves it before it adds logits."""
    cfg = config.train_config("BaselineNet", "smoke", batch_size=120)
    cpu = train.Device("cpu", torch.float32)
    store = config.PUBLISHED
    runs.train_run("BaselineNet", cfg, "smoke", 0, cpu, sample, store, quiet=True)
    (folder,) = store.iterdir()
    return folder


def test_logits_are_added_and_the_run_still_verifies(trained, sample):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    parts = {"validation": sample[1], "test": data.first(sample[0], 20)}
    retrain.add_logits(trained, parts)
    run = runs.load(trained)
    for name, part in parts.items():
        fresh = inference.infer(run.model, part.images).logits
        assert run.logits[name].dtype == np.float32 and np.array_equal(run.logits[name], fresh)
        assert np.array_equal(run.logits[f"{name}_labels"], part.labels)
    kept = metrics.nll(run.logits["validation"], run.logits["validation_labels"])
    assert kept == pytest.approx(run.history["validation_loss"].min(), rel=1e-3)
    record, old = json.loads((trained / "run.json").read_text()), json.loads(before["run.json"])
    assert record.pop("files").keys() - old.pop("files").keys() == {"logits.safetensors"}
    assert record == old
    for name in ("history.json", "weights.safetensors"):
        assert (trained / name).read_bytes() == before[name]
    again = {path.name: path.read_bytes() for path in trained.iterdir()}
    retrain.add_logits(trained, parts)  # changes nothing
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == again


def test_damage_to_the_logits_is_named(trained, sample):
    retrain.add_logits(trained, {"validation": sample[1]})
    path = trained / "logits.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(runs.CorruptRun, match="logits.safetensors"):
        runs.load(trained)


# ---- The command


def test_retrain_publishes_and_replaces_the_older_run_only_when_the_new_one_is_whole(small, short, monkeypatch):
    retrain.retrain("cpu", ["BaselineNet"])
    (old,) = config.PUBLISHED.iterdir()
    run = runs.published("BaselineNet")
    assert run.record["profile"] == "full" and "test" in run.logits
    before = {path.name: path.read_bytes() for path in old.iterdir()}

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    for rate in (0.01, 0.02):  # the same run again; another recipe
        short(rate)
        with monkeypatch.context() as patch:
            patch.setattr(runs.safetensors.torch, "save", fail)
            with pytest.raises(OSError, match="No space left"):
                retrain.retrain("cpu", ["BaselineNet"])
        assert {path.name: path.read_bytes() for path in old.iterdir()} == before
        assert list(config.PUBLISHED.iterdir()) == [old]

    (config.PUBLISHED / "ImprovedNet-0").mkdir()
    retrain.retrain("cpu", ["BaselineNet"])
    (new,) = config.PUBLISHED.glob("BaselineNet-*")
    assert new.name != old.name and runs.published("BaselineNet").record["config"]["peak_lr"] == 0.02
    assert sorted(path.name for path in config.PUBLISHED.iterdir()) == [new.name, "ImprovedNet-0"]


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (data.DataError, "out of order"),
        (KeyboardInterrupt, "Stopped. The same command goes on"),
        (train.Diverged, "out of order"),
    ],
)
def test_the_command_fails_with_one_line(small, short, monkeypatch, capsys, trouble, says):
    def fail(*arguments, **options):
        raise trouble("out of order")

    monkeypatch.setattr(sys, "argv", ["retrain", "BaselineNet", "--device", "cpu"])
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", fail)
        patch.delitem(sys.modules, "helpers.commands.retrain")
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("helpers.commands.retrain", run_name="__main__")
    if trouble is KeyboardInterrupt:
        assert caught.value.code == 130 and capsys.readouterr().err.startswith(f"\n{says}")
    else:
        assert caught.value.code.startswith(says) and "\n" not in caught.value.code
    assert not config.PUBLISHED.exists()


@pytest.mark.parametrize("saved", [True, False])
def test_retrain_interrupted_in_the_second_network_goes_on_there(small, monkeypatch, saved):
    def tiny(network, profile):
        return dataclasses.replace(config.BASELINE, epochs=2, batch_size=120)

    monkeypatch.setattr(config, "train_config", tiny)
    save, trained = train._save, []

    def save_and_stop(path, *arguments):
        stop = trained == ["BaselineNet", "BaselineNet"]
        if saved or not stop:
            save(path, *arguments)
        trained.append(path.name.split("-")[0])
        if stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        retrain.retrain("cpu", config.PAIR)
    retrain.retrain("cpu", config.PAIR)
    assert trained == ["BaselineNet", "BaselineNet", "ImprovedNet", *["ImprovedNet"] * (1 if saved else 2)]
    retrain.retrain("cpu", config.PAIR)  # all of it again
    assert trained[-4:] == ["BaselineNet", "BaselineNet", "ImprovedNet", "ImprovedNet"]
    assert {runs.published(network).record["network"] for network in config.PAIR} == set(config.PAIR)
