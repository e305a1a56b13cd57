"""The loop: same bits, exact resume, best checkpoint, recipe version."""

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import config, data, models, train
from helpers.inference import keep_freed_memory

CPU = train.Device("cpu", torch.float32)
RECORDED = Path(__file__).parent / "fixtures" / "first_losses.json"


def silent(line):
    pass


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_in_the_second_epoch(save=train._save):
    """A way to save that interrupts when the second epoch has been computed and not yet saved."""
    calls = []

    def save_or_stop(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(*arguments)

    return save_or_stop


@pytest.mark.parametrize("network", config.PAIR)
def test_stopped_and_resumed_gives_the_same_bits(network, sample, tiny, tmp_path, monkeypatch):
    cfg = dataclasses.replace(tiny, optimizer="sgd", peak_lr=0.01) if network == "BaselineNet" else tiny
    parts = data.first(sample[0], 150), sample[1]
    whole = train.fit(network, cfg, *parts, 3, CPU, log=silent)
    state = tmp_path / "state.pt"
    for _ in range(cfg.epochs - 1):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(train, "_save", stop_in_the_second_epoch())
            train.fit(network, cfg, *parts, 3, CPU, state, log=silent)
    resumed = train.fit(network, cfg, *parts, 3, CPU, state, log=silent)
    assert same(whole.weights, resumed.weights)
    assert whole.first_losses == resumed.first_losses
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_another_seed_gives_other_weights(sample, tiny):
    short = dataclasses.replace(tiny, epochs=1)
    a, b = (train.fit("BaselineNet", short, *sample, seed, CPU, log=silent) for seed in (0, 1))
    assert not same(a.weights, b.weights)


def test_the_kept_weights_have_the_lowest_validation_loss(sample, tiny):
    """At this rate the last epoch is not the best, so keeping the last would fail."""
    cfg = dataclasses.replace(train.plain(tiny), epochs=12, peak_lr=0.003, batch_size=32)
    trained = train.fit("BaselineNet", cfg, *sample, 0, CPU, log=silent)
    losses = [row["validation_loss"] for row in trained.history]
    assert min(losses) < losses[-1]
    model = models.build("BaselineNet")
    model.load_state_dict(trained.weights)
    assert train.evaluate(model, sample[1])[0] == pytest.approx(min(losses), rel=1e-5)


def test_the_loss_is_divided_by_the_images_seen(sample):
    """An untrained network with a small last layer is at log 10, whatever the size of the set."""
    loss, accuracy = train.evaluate(models.build("ImprovedNet"), sample[1])
    assert loss == pytest.approx(math.log(10), abs=0.1)
    assert 0 <= accuracy <= 0.5


def test_both_networks_overfit_one_batch(sample):
    batch = data.first(sample[0], 16)
    for network, steps in {"BaselineNet": 120, "ImprovedNet": 60}.items():
        cfg = train.plain(config.train_config(network, "full"))
        losses = train.overfit(network, cfg, batch, steps, CPU)
        assert losses[-1] < 0.05 * losses[0]


def test_a_diverging_run_stops_with_its_reason(sample, tiny):
    wild = dataclasses.replace(tiny, optimizer="sgd", peak_lr=1e6, warmup_epochs=0)
    with pytest.raises(train.Diverged, match="not finite in epoch 1: lower peak_lr"):
        train.fit("BaselineNet", wild, *sample, 0, CPU, log=silent)


def test_lr_at():
    cfg = dataclasses.replace(config.IMPROVED, epochs=10, warmup_epochs=2, peak_lr=1.0)
    rates = [train.lr_at(cfg, step, 50) for step in range(500)]
    assert rates[0] == pytest.approx(1 / 100) and rates[99] == 1.0
    assert rates[300] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-4 and all(a > b for a, b in zip(rates[100:], rates[101:], strict=False))
    constant = dataclasses.replace(cfg, schedule="constant", warmup_epochs=0)
    assert {train.lr_at(constant, step, 50) for step in range(500)} == {1.0}


def first_losses(training):
    """Ten steps of each network in float32, by the published settings but for smaller batches."""
    recipes = {network: config.train_config(network, "full") for network in config.NETWORKS}
    recipes = {network: dataclasses.replace(recipe, batch_size=36) for network, recipe in recipes.items()}
    return {network: train.replay(network, recipe, training, 0, CPU)[:10] for network, recipe in recipes.items()}


# Four epochs of thirty steps, three of them after the warm-up, with all that a setting can switch on.
ADAMW = dataclasses.replace(
    config.IMPROVED, epochs=4, batch_size=12, warmup_epochs=1, peak_lr=0.001, weight_decay=0.8, erasing=0.5
)
SGD = dataclasses.replace(ADAMW, optimizer="sgd", peak_lr=0.05, weight_decay=0.01)
# Of their losses, in nats. One and two threads, and code with and without vector instructions,
# differ by less than 1e-6. The smallest change below makes a difference of 3e-4 with SGD, whose
# network hardly learns in 120 steps, and of 4e-3 with AdamW.
TOLERANCES = {"sgd": 5e-5, "adamw": 5e-4}
# How many of the first steps are compared, and their tolerance. The large steps of FastNet amplify rounding: between
# processors of two makers its losses differ by 0.002 in the fourth step and by 0.025 in the seventh. Half its learning
# rate makes a difference of 0.013 in the fourth.
OF_STEPS = {"BaselineNet": (10, 0.01), "ImprovedNet": (10, 0.01), "FastNet": (4, 0.006)}


def epoch_losses(cfg, sample):
    """Training and validation losses of BaselineNet, epoch by epoch."""
    history = train.fit("BaselineNet", cfg, *sample, 0, CPU, log=silent).history
    return [row[key] for row in history for key in ("train_loss", "validation_loss")]


def all_losses(sample):
    epochs = {cfg.optimizer: epoch_losses(cfg, sample) for cfg in (SGD, ADAMW)}
    return {"recipe": train.RECIPE, "steps": first_losses(sample[0]), "epochs": epochs}


def test_half_the_learning_rate_of_fastnet_shows_in_its_first_steps(sample):
    n, tolerance = OF_STEPS["FastNet"]
    cfg = config.train_config("FastNet", "full", peak_lr=config.FAST.peak_lr / 2, batch_size=36)
    recorded = json.loads(RECORDED.read_text())["steps"]["FastNet"]
    losses = train.replay("FastNet", cfg, sample[0], 0, CPU)
    assert max(abs(a - b) for a, b in zip(losses[:n], recorded, strict=False)) > 1.5 * tolerance


def test_the_recipe_version_changes_with_the_losses(sample):
    """If this fails because training was changed on purpose, raise train.RECIPE and record the new losses with
    python -m tests.test_train."""
    recorded, now = json.loads(RECORDED.read_text()), all_losses(sample)
    same = [
        now["steps"][network][:n] == pytest.approx(recorded["steps"][network][:n], abs=tolerance)
        for network, (n, tolerance) in OF_STEPS.items()
    ]
    same += [
        now["epochs"][name] == pytest.approx(recorded["epochs"][name], abs=tolerance)
        for name, tolerance in TOLERANCES.items()
    ]
    assert all(same) == (recorded["recipe"] == train.RECIPE), f"losses and RECIPE must change together: {same}"


def optimizer_with(**changes):
    """A make_optimizers whose optimizers have other constants."""
    make = train.make_optimizers

    def make_other(model, cfg):
        optimizers = make(model, cfg)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group.update({name: value for name, value in changes.items() if name in group})
        return optimizers

    return make_other


def linear_lr(cfg, step, steps_per_epoch, *share, lr_at=train.lr_at):
    """The learning rate if it fell linearly after the warm-up."""
    warmup, total = cfg.warmup_epochs * steps_per_epoch, cfg.epochs * steps_per_epoch
    return lr_at(cfg, step, steps_per_epoch) if step < warmup else cfg.peak_lr * (total - step) / (total - warmup)


SETTINGS = {
    "epochs": 5,
    "batch_size": 13,
    "optimizer": "sgd",
    "peak_lr": 0.0009,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_epochs": 1.5,
    "crop_padding": 3,
    "flip": 0.4,
    "rotation": 6,
    "interpolation": "bilinear",
    "jitter": 0.12,
    "erasing": 0.45,
    "label_smoothing": 0.06,
    "padding": "reflection",
    "flipping": "alternate",
}
CODE = {
    "no momentum": (SGD, "make_optimizers", optimizer_with(momentum=0.0)),
    "other betas": (ADAMW, "make_optimizers", optimizer_with(betas=(0.9, 0.99))),
    "no decay, SGD": (SGD, "make_optimizers", optimizer_with(weight_decay=0.0)),
    "no decay, AdamW": (ADAMW, "make_optimizers", optimizer_with(weight_decay=0.0)),
    "linear schedule": (ADAMW, "lr_at", linear_lr),
}


def seen(losses, optimizer):
    """Whether losses differ from the recorded ones by well above the tolerance."""
    recorded = json.loads(RECORDED.read_text())["epochs"][optimizer]
    return max(abs(a - b) for a, b in zip(losses, recorded, strict=False)) > 4 * TOLERANCES[optimizer]


def test_every_setting_shows_in_the_recorded_losses(sample):
    # On a network without batch normalisation, without a teacher (test_teacher.py) and with label smoothing.
    without_effect = {"microbatch", "teacher", "teacher_share", "temperature", "bounded"}
    assert SETTINGS.keys() | without_effect == dataclasses.asdict(ADAMW).keys()
    for name, value in SETTINGS.items():
        assert seen(epoch_losses(dataclasses.replace(ADAMW, **{name: value}), sample), "adamw"), name


def test_the_bounded_loss_is_that_of_its_equation_and_bounded():
    cfg = dataclasses.replace(config.IMPROVED, label_smoothing=0.0, bounded=0.7)
    logits, y = torch.randn(7, 10, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    p = logits.softmax(dim=1)[range(7), y]
    assert train.batch_loss(logits, y, cfg).item() == pytest.approx(((1 - p**0.7) / 0.7).mean().item())
    certain = torch.tensor([[500.0, 0.0]], requires_grad=True)  # of the wrong class: the probability underflows
    loss = train.batch_loss(certain, torch.tensor([1]), cfg)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 0.7) and (certain.grad == 0).all()


@pytest.mark.parametrize("change", CODE)
def test_other_training_code_shows_in_the_recorded_losses(sample, monkeypatch, change):
    cfg, function, other = CODE[change]
    monkeypatch.setattr(train, function, other)
    assert seen(epoch_losses(cfg, sample), cfg.optimizer)


def test_replayed_epochs_are_those_of_the_whole_training(sample, tiny):
    whole = train.fit("BaselineNet", tiny, *sample, 3, CPU, log=silent).history
    rows = train.replay_epochs("BaselineNet", tiny, *sample, 3, CPU, 2)
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in whole[:2]]


def test_the_code_digest_is_of_code_alone(tmp_path, monkeypatch):
    shutil.copytree(config.ROOT / "helpers", tmp_path / "helpers")
    monkeypatch.setattr(train, "ROOT", tmp_path)
    path, before = tmp_path / "helpers" / "models.py", train.code_digest()
    text = path.read_text()
    for changed in (
        f"# A comment.\n\n{text}",
        re.sub(r'"""[^"]+"""', '"""Otherwise said."""', text),
        text.replace("\n\n\n", "\n\n\n\n"),
        text.replace("\n\n\ndef", "  # and here\n\n\ndef", 1),
    ):
        assert changed != text
        path.write_text(changed)
        assert train.code_digest() == before
    for name in ("augment", "inference", "models", "train"):
        path = tmp_path / "helpers" / f"{name}.py"
        text = path.read_text()
        for changed in (f"{text}x = 1\n", text.replace("return ", "return -", 1)):
            path.write_text(changed)
            assert train.code_digest() != before, name
        path.write_text(text)


def test_importing_changes_nothing_in_the_process():
    """Only what computes batches tells the C library how to treat freed memory."""
    code = (
        "from helpers import augment, config, data, files, inference, models, runs, train\n"
        "assert inference.keep_freed_memory.cache_info().currsize == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, check=True)


def test_computing_batches_keeps_freed_memory(sample, tiny):
    for compute in (
        lambda: train.evaluate(models.build("BaselineNet"), sample[1]),
        lambda: train.replay("BaselineNet", tiny, sample[0], 0, CPU),
    ):
        keep_freed_memory.cache_clear()
        compute()
        assert keep_freed_memory.cache_info().currsize == 1


def test_devices():
    assert train.pick_device("cpu").kind == "cpu"
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, mps, not 'tpu'"):
        train.pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device is cuda, but PyTorch sees no such GPU"):
            train.pick_device("cuda")


@pytest.mark.parametrize(("progress", "bars"), [(True, 1), (False, 0)])
def test_a_bar_shows_the_steps_where_it_is_asked_for(sample, tiny, capsys, progress, bars):
    cfg = dataclasses.replace(tiny, epochs=1, warmup_epochs=0.25)
    train.fit("BaselineNet", cfg, *sample, 0, CPU, log=silent, progress=progress)
    assert min(1, capsys.readouterr().err.count("BaselineNet 1/1")) == bars


def test_bars_are_for_who_watches(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(train.sys.stderr, "isatty", lambda: True, raising=False)
    assert train.watched()
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert not train.watched()


if __name__ == "__main__":
    losses = all_losses(data.train_validation("smoke"))
    RECORDED.write_text(json.dumps(losses, indent=1) + "\n")
