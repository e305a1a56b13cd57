"""The store of runs: trained once, verified always, replaced whole, by one process at a time."""

import dataclasses
import json
import os
import re
import shutil
import socket
import threading

import numpy as np
import pytest
import torch

from helpers import config, data, models, runs, train
from tests.test_train import linear_lr, optimizer_with

CPU = train.Device("cpu", torch.float32)
CHANGES = {"BaselineNet": {"epochs": 2, "batch_size": 120}}


def load_or_train(sample, **options):
    options = {"profile": "smoke", "device": "cpu", "changes": CHANGES} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "train_validation", lambda profile: sample)
        return runs.load_or_train("BaselineNet", **options)


def train_again(sample):
    cfg = config.train_config("BaselineNet", "smoke", **CHANGES["BaselineNet"])
    return runs.train_run("BaselineNet", cfg, "smoke", 0, CPU, sample, config.CACHE / "runs", again=True)


def refuse(*arguments, **options):
    raise AssertionError("trained again")


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    """A cache folder in which a run has been trained."""
    cache = tmp_path_factory.mktemp("trained") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE", cache)
        load_or_train(sample)
    return cache


@pytest.fixture
def run(sample, trained):
    """That run, in the folder of the test, which may damage it."""
    shutil.copytree(trained, config.CACHE)
    return load_or_train(sample)


@pytest.fixture
def folder(run):
    (folder,) = (config.CACHE / "runs").iterdir()
    return folder


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- Train once, load ever after


def test_a_stored_run_is_loaded_not_trained_again(sample, run, folder, monkeypatch, capsys):
    assert everything(folder) == ["history.json", "run.json", "weights.safetensors"]
    assert len(run.history) == 2 and len(run.first_losses) == 3 and not run.model.training
    best = run.history.loc[run.record["best_epoch"] - 1, "validation_loss"]
    assert best == run.history["validation_loss"].min()
    assert train.evaluate(run.model, sample[1])[0] == pytest.approx(best, rel=1e-6)
    capsys.readouterr()

    monkeypatch.setattr(train, "fit", refuse)
    again = load_or_train(sample)
    assert same(again.model, run.model) and again.history.equals(run.history) and again.record == run.record
    assert capsys.readouterr().out == f"BaselineNet: loaded {folder.name}, {runs.when_where(run.record)}\n"
    assert list((config.CACHE / "states").glob("*.pt")) == []


def test_the_record_says_how_the_run_came_about(sample, run):
    record = run.record
    assert record["config"] == dataclasses.asdict(config.train_config("BaselineNet", "smoke", **CHANGES["BaselineNet"]))
    assert (record["seed"], record["recipe"], record["profile"], record["epochs"]) == (0, train.RECIPE, "smoke", 2)
    assert record["parameters"] == 48_252 and record["data"]["training"] == data.part_digest(sample[0])
    assert record["flop"] == 6 * models.macs(models.build("BaselineNet")) * 2 * 360
    facts = runs.published_facts(run)
    assert all(facts[key] == record[key] for key in ("parameters", "flop", "best_epoch", "device", "config"))


def test_the_files_name_no_machine_path_or_person(folder):
    for path in folder.glob("*.json"):
        text = path.read_text()
        assert not re.search(r'["\s]/\w', text) and str(config.ROOT) not in text
        assert socket.gethostname() not in text and os.path.expanduser("~") + "/" not in text


def test_identity_changes_with_what_decides_the_weights_and_nothing_else(sample):
    cfg = dataclasses.replace(config.IMPROVED, label_smoothing=0.0, teacher="hard", teacher_share=0.5)
    digests = {"training": "a", "validation": "b"}
    this = runs.identity("ImprovedNet", cfg, 0, digests)
    others = [
        runs.identity("BaselineNet", cfg, 0, digests),
        runs.identity("ImprovedNet", cfg, 1, digests),
        runs.identity("ImprovedNet", cfg, 0, digests, train.RECIPE + 1),
    ]
    others += [runs.identity("ImprovedNet", cfg, 0, {**digests, name: "c"}) for name in digests]
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        others_of = {
            "adamw": "sgd",
            "cosine": "constant",
            "nearest": "bilinear",
            "zeros": "reflection",
            "random": "alternate",
            "hard": "FastNet",
        }
        other = others_of[value] if isinstance(value, str) else value / 2 or 1
        other = int(other) if field.type is int else other
        others.append(runs.identity("ImprovedNet", dataclasses.replace(cfg, **{field.name: other}), 0, digests))
    assert len({this, *others}) == 1 + 3 + 2 + len(dataclasses.fields(cfg))
    assert runs.identity("ImprovedNet", dataclasses.replace(cfg), 0, dict(reversed(digests.items()))) == this


def test_neither_profile_nor_device_nor_patience_is_part_of_the_identity(sample, run, monkeypatch):
    monkeypatch.setattr(train, "fit", refuse)
    changes = {"BaselineNet": dataclasses.asdict(config.train_config("BaselineNet", "smoke", **CHANGES["BaselineNet"]))}
    again = load_or_train(sample, profile="quick", device="auto", train_minutes=0, changes=changes)
    assert same(again.model, run.model)


def test_other_data_is_another_run(sample, run):
    images = sample[0].images.copy()
    images[0] = 0
    load_or_train((data.Part(images, sample[0].labels), sample[1]))
    load_or_train((data.Part(sample[0].images, sample[0].labels[::-1].copy()), sample[1]))
    assert len(list((config.CACHE / "runs").iterdir())) == 3


# ---- What is damaged is refused


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["history.json", "weights.safetensors", "run.json"])
@pytest.mark.parametrize("damage", [flip, truncate, empty, os.unlink])
def test_a_damaged_file_is_named_and_refused(sample, folder, monkeypatch, name, damage):
    damage(folder / name)
    monkeypatch.setattr(train, "fit", refuse)
    with pytest.raises(runs.CorruptRun, match=rf"{folder.name}/{name} is missing or differs .*: delete") as caught:
        load_or_train(sample)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_anywhere_in_the_record_is_noticed(folder):
    content = (folder / "run.json").read_bytes()
    for i in range(0, len(content), 3):
        if content[i : i + 1].isspace():
            continue
        damaged = bytearray(content)
        damaged[i] ^= 1
        (folder / "run.json").write_bytes(damaged)
        with pytest.raises(runs.CorruptRun):
            runs.load(folder)


@pytest.mark.parametrize("key", ["network", "config", "recipe", "seed", "data", "files"])
def test_a_record_without_a_key_is_refused(folder, key):
    record = json.loads((folder / "run.json").read_text())
    del record[key]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(runs.CorruptRun, match="run.json is missing or differs"):
        runs.load(folder)


def test_a_record_without_its_own_digest_is_refused(folder):
    record = json.loads((folder / "run.json").read_text())
    del record["files"]["run.json"]
    (folder / "run.json").write_text(json.dumps(record | {"device": "another"}))
    with pytest.raises(runs.CorruptRun, match="run.json is missing or differs"):
        runs.load(folder)


@pytest.mark.parametrize("content", ["[]", "null", '"text"', "{}"])
def test_a_record_of_another_shape_is_refused(folder, content):
    (folder / "run.json").write_text(content)
    with pytest.raises(runs.CorruptRun, match="run.json is missing or differs"):
        runs.load(folder)


@pytest.mark.parametrize("change", [{"seed": 1}, {"recipe": 0}, {"network": "ImprovedNet"}, {"config": {"epochs": 9}}])
def test_a_record_of_another_run_is_refused_even_if_its_digest_is_right(folder, change):
    record = json.loads((folder / "run.json").read_text())
    change = {key: record[key] | value if isinstance(value, dict) else value for key, value in change.items()}
    record |= change
    record["files"]["run.json"] = runs.record_digest(record)
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(runs.CorruptRun, match="run.json is missing or differs"):
        runs.load(folder)


def test_a_record_with_other_settings_is_of_another_version(folder):
    record = json.loads((folder / "run.json").read_text())
    del record["config"]["label_smoothing"]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(runs.CorruptRun, match="is from a version with other settings: delete the folder"):
        runs.load(folder)


def test_a_damaged_published_run_is_to_be_restored(folder):
    config.PUBLISHED.mkdir()
    published = folder.rename(config.PUBLISHED / folder.name)
    flip(published / "history.json")
    with pytest.raises(runs.CorruptRun, match="restore it with `git checkout -- .*, or delete the folder"):
        runs.load(published)


def test_an_interrupted_replacement_puts_the_old_run_back(sample, folder, monkeypatch):
    before, replace, calls = {path.name: path.read_bytes() for path in folder.iterdir()}, os.replace, []

    def interrupt(source, target):
        if target == folder and not calls:
            calls.append(source)
            raise KeyboardInterrupt
        replace(source, target)

    record = json.loads((folder / "run.json").read_text())
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runs.save(folder, record, {"first_losses": [], "epochs": []})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_of_another_run_are_refused(sample, folder):
    load_or_train(sample, seed=1)
    (other,) = set((config.CACHE / "runs").iterdir()) - {folder}
    shutil.copy(other / "weights.safetensors", folder)
    with pytest.raises(runs.CorruptRun, match="weights.safetensors is missing or differs"):
        runs.load(folder)


def test_a_renamed_folder_is_refused(folder):
    renamed = folder.rename(folder.with_name("BaselineNet-000000000000"))
    with pytest.raises(runs.CorruptRun, match="run.json is missing or differs"):
        runs.load(renamed)


# ---- Training: not too long, not twice, not in vain


def test_a_training_that_takes_too_long_is_refused(sample, monkeypatch):
    monkeypatch.setattr(train, "estimate_seconds", lambda *arguments: 61.0)
    monkeypatch.setattr(train, "fit", refuse)
    with pytest.raises(runs.TrainingNeeded, match="its 1 min exceed the 1 min that may be spent here.*make retrain"):
        load_or_train(sample, train_minutes=1)
    assert not config.CACHE.exists() and not config.PUBLISHED.exists()
    with pytest.raises(AssertionError, match="trained again"):
        load_or_train(sample, train_minutes=1.02)


def test_an_interrupted_training_goes_on(sample, monkeypatch, capsys):
    save = train._save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            load_or_train(sample)
    assert not (config.CACHE / "runs").exists()
    assert len(list((config.CACHE / "states").glob("*.pt"))) == 1
    resumed = load_or_train(sample)
    assert "going on after epoch 1 of 2" in capsys.readouterr().out
    assert list((config.CACHE / "states").glob("*.pt")) == []
    shutil.rmtree(config.CACHE)
    assert same(resumed.model, load_or_train(sample).model)


@pytest.mark.parametrize("failing", ["runs.safetensors.torch.save", "files.file_digest", "files.os.replace"])
def test_a_save_that_fails_leaves_nothing_behind(sample, monkeypatch, capsys, failing):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    save = runs.save
    with monkeypatch.context() as patch:

        def break_and_save(*arguments, **tensors):  # not earlier: training replaces its state file by the same means
            patch.setattr(f"helpers.{failing}", fail)
            save(*arguments, **tensors)

        patch.setattr(runs, "save", break_and_save)
        with pytest.raises(OSError, match="No space left"):
            load_or_train(sample)
    assert list((config.CACHE / "runs").iterdir()) == []
    capsys.readouterr()
    load_or_train(sample)
    assert "going on after epoch 2 of 2" in capsys.readouterr().out  # nothing that was trained is lost


def test_what_another_process_has_trained_is_loaded(sample, folder, monkeypatch, held_elsewhere, capsys):
    """It is not stored yet when the second process looks, and is when the first one has ended."""
    cfg = config.train_config("BaselineNet", "smoke", **CHANGES["BaselineNet"])
    aside = folder.rename(folder.with_name("aside"))
    monkeypatch.setattr(train, "fit", refuse)
    with held_elsewhere(config.CACHE / "states" / f"{folder.name}.lock") as other:

        def finish():
            aside.rename(folder)
            other.kill()

        threading.Timer(0.5, finish).start()
        found = runs.train_run("BaselineNet", cfg, "smoke", 0, CPU, sample, config.CACHE / "runs")
    assert f"Another process is training {folder.name}: waiting for it." in capsys.readouterr().out
    assert same(found.model, runs.load(folder).model)
    with pytest.raises(AssertionError, match="trained again"):
        train_again(sample)


# ---- The published runs


def test_there_is_no_published_run(monkeypatch):
    with pytest.raises(runs.TrainingNeeded, match="there is no trained BaselineNet .*: run `make retrain`"):
        runs.published("BaselineNet")


def test_only_retrain_publishes(sample, short):
    for seed in (0, 1):
        load_or_train(sample, profile="full", changes={}, seed=seed)
    assert not config.PUBLISHED.exists()


# ---- Replay

BFLOAT16 = train.Device("cpu", torch.bfloat16)
GPU = train.Device("cuda", torch.float32)


def test_a_fresh_run_replays(sample, run):
    device = train.pick_device("cpu")
    replayed = train.replay("BaselineNet", run.cfg, sample[0], 0, device)
    assert runs.check_replay(run, replayed, device).endswith("replayed here, give exactly the recorded losses.")
    assert runs.replay_history(run, sample, device).startswith("Its first 2 epochs, replayed here, give exactly")


@pytest.mark.parametrize("change", [0.00031, -0.00031, float("nan"), float("inf")])
def test_a_replay_that_differs_is_refused_on_the_same_kind_of_device(run, change):
    altered = [*run.first_losses[:-1], run.first_losses[-1] + change]
    for device in (CPU, BFLOAT16):
        with pytest.raises(runs.CorruptRun, match="the code or the data are not those that trained BaselineNet"):
            runs.check_replay(run, altered, device)
    recorded = run.record["device_label"]
    assert runs.check_replay(run, altered, GPU).endswith(f"it was trained with {recorded}, this is cuda/float32.")


def test_a_small_difference_is_rounding(run):
    replayed = (np.array(run.first_losses) + 0.0001).tolist()
    assert runs.check_replay(run, replayed, CPU).endswith("by up to 0.0001.")


def test_a_replay_says_when_the_code_has_changed(run):
    def says(**changes):
        record = {key: value for key, value in (run.record | changes).items() if value}
        return runs.check_replay(dataclasses.replace(run, record=record), run.first_losses, CPU)

    assert run.record["code"] == train.code_digest()
    assert says().endswith("give exactly the recorded losses.")
    assert says(code=None).endswith("give exactly the recorded losses.")  # an older record
    assert says(code="0" * 64).endswith("give exactly the recorded losses. The training code has changed since.")


@pytest.fixture(scope="module")
def longer(sample, tmp_path_factory):
    """Runs of BaselineNet, past their warm-up in the second epoch, on 360 images."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE", tmp_path_factory.mktemp("longer"))
        for optimizer, peak_lr in (("sgd", 0.05), ("adamw", 0.004)):
            cfg = dataclasses.replace(config.BASELINE, epochs=6, batch_size=5, optimizer=optimizer, peak_lr=peak_lr)
            found[optimizer] = runs.train_run(
                "BaselineNet", cfg, "smoke", 0, CPU, sample, config.CACHE / "runs", quiet=True
            )
    return found


CODE = {
    "no momentum": ("sgd", "make_optimizers", optimizer_with(momentum=0.0)),
    "other betas": ("adamw", "make_optimizers", optimizer_with(betas=(0.5, 0.9))),
    "linear schedule": ("sgd", "lr_at", linear_lr),
    "ten times the learning rate": ("sgd", "lr_at", lambda *given, lr_at=train.lr_at: 10 * lr_at(*given)),
}


@pytest.mark.parametrize("change", CODE)
def test_epochs_by_other_code_are_refused(longer, sample, monkeypatch, change):
    optimizer, function, other = CODE[change]
    assert "exactly" in runs.replay_history(longer[optimizer], sample, CPU, 3)
    monkeypatch.setattr(train, function, other)
    with pytest.raises(runs.CorruptRun) as caught:
        runs.replay_history(longer[optimizer], sample, CPU, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["seed", "labels", "images"])
def test_epochs_of_other_data_are_refused(longer, sample, change):
    run, rng = longer["sgd"], np.random.default_rng(0)
    images, labels = sample[0]
    labels = rng.permutation(labels) if change == "labels" else labels
    images = rng.integers(0, 256, images.shape, dtype=np.uint8) if change == "images" else images
    other = data.Part(images, labels), sample[1]
    rows = train.replay_epochs("BaselineNet", run.cfg, *other, int(change == "seed"), CPU, 3)
    with pytest.raises(runs.CorruptRun, match="the code or the data are not those"):
        runs.check_history(run, rows, CPU)
    losses = train.replay("BaselineNet", run.cfg, other[0], int(change == "seed"), CPU)
    with pytest.raises(runs.CorruptRun, match="the code or the data are not those"):
        runs.check_replay(run, losses, CPU)


def test_the_weights_are_those_of_the_best_epoch(run, sample):
    assert runs.check_weights(run, sample[1]).startswith("Its weights give ")
    other = load_or_train(sample, seed=1)
    with pytest.raises(runs.CorruptRun, match="not those that the training of BaselineNet kept"):
        runs.check_weights(dataclasses.replace(run, model=other.model), sample[1])
