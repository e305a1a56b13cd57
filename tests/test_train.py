"""The loop: same bits, exact resume, best checkpoint, recipe version."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from helpers import config, data, models, train

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


@pytest.mark.parametrize("network", config.NETWORKS)
def test_stopped_and_resumed_gives_the_same_bits(network, sample, tiny, tmp_path, monkeypatch):
    cfg = dataclasses.replace(tiny, optimizer="sgd", peak_lr=0.01) if network == "BaselineNet" else tiny
    whole = train.fit(network, cfg, *sample, 3, CPU, log=silent)
    state = tmp_path / "state.pt"
    for _ in range(cfg.epochs - 1):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(train, "_save", stop_in_the_second_epoch())
            train.fit(network, cfg, *sample, 3, CPU, state, log=silent)
    resumed = train.fit(network, cfg, *sample, 3, CPU, state, log=silent)
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
    batch = type(sample[0])(sample[0].images[:32], sample[0].labels[:32])
    for network in config.NETWORKS:
        cfg = train.plain(config.train_config(network, "full"))
        losses = train.overfit(network, cfg, batch, 150, CPU)
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


def test_the_recipe_version_changes_with_the_losses(sample):
    """If this fails because training was changed on purpose, raise train.RECIPE and record the new losses with
    python -m tests.test_train."""
    recorded, losses = json.loads(RECORDED.read_text()), first_losses(sample[0])
    for network in config.NETWORKS:
        unchanged = losses[network] == pytest.approx(recorded["losses"][network], rel=5e-3)
        assert unchanged == (recorded["recipe"] == train.RECIPE), f"{network}: losses and RECIPE must change together"


def test_devices():
    assert train.pick_device("cpu").kind == "cpu"
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, mps, not 'tpu'"):
        train.pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device is cuda, but PyTorch sees no such GPU"):
            train.pick_device("cuda")


if __name__ == "__main__":
    losses = first_losses(data.train_validation("smoke")[0])
    RECORDED.write_text(json.dumps({"recipe": train.RECIPE, "losses": losses}, indent=1) + "\n")
