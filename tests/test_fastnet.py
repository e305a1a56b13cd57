"""FastNet: its start, its optimizers, alternating flip, exact resume, and the names of old runs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import augment, config, data, models, runs, train
from helpers.analysis import explain
from helpers.inference import infer, normalise, to_unit, with_mirror

CPU = train.Device("cpu", torch.float32)
RUNS = Path(__file__).parents[1] / "reports" / "runs"
NETWORK = "FastNetSmall"


@pytest.fixture
def short():
    """The published recipe, but batches of 100 and 60 from few images, in pieces of 60."""
    return config.train_config("FastNet", "smoke", batch_size=100, microbatch=60)


@pytest.fixture(scope="module")
def few(sample):
    """160 training images, which take less than half as long, and the validation images."""
    return data.first(sample[0], 160), sample[1]


def silent(line):
    pass


def test_parameters_and_multiply_adds():
    widths = {"FastNet": (24, 64, 256, 256), "FastNetSmall": (24, 64, 128, 256)}
    for network, (w, a, b, c) in widths.items():
        model = models.build(network)
        pairs = [(w, a, 31), (a, a, 15), (a, b, 15), (b, b, 7), (b, c, 7), (c, c, 3)]
        filters = sum(9 * i * o for i, o, _ in pairs)
        assert models.parameters(model) == w + filters + 2 * (a + b + c) + 10 * c
        first = 12 * w * 31**2  # fixed, but it is computed
        macs = first + sum(9 * i * o * side**2 for i, o, side in pairs) + 10 * c
        assert models.macs(model) == macs
        assert models.layer_table(model)["parameters"].sum() == models.parameters(model)


def test_whitened_patches_have_covariance_one_and_minus_one(sample):
    images = normalise(to_unit(torch.tensor(sample[0].images)))
    model = models.build(NETWORK)
    models.whiten(model, images)
    with torch.no_grad():
        outputs = model[0](images).transpose(0, 1).flatten(1)  # (24, patches)
    covariance = torch.cov(outputs)
    variances = covariance.diag()  # below 1 where an eigenvalue is hardly above 5e-4
    assert (variances < 1.001).all() and (variances > 0.5).all() and variances.median() > 0.96
    assert (covariance[:12, :12] - variances[:12].diag()).abs().max() < 1e-3
    torch.testing.assert_close(covariance[:12, :12], -covariance[:12, 12:], atol=1e-3, rtol=0)


def test_the_start_is_the_same_behind_every_door(few, short):
    trained = train.fit(NETWORK, short, *few, 3, CPU, log=silent)
    replayed = train.replay(NETWORK, short, few[0], 3, CPU)
    assert replayed == trained.first_losses[: len(replayed)]
    fitted = train.start(NETWORK, few[0], 3, CPU)
    assert torch.equal(fitted[0].weight, trained.weights["0.weight"])  # and it stays fixed
    assert not torch.equal(fitted[0].bias, trained.weights["0.bias"])
    assert (trained.weights["4.weight"] == 1).all() and trained.weights["4.bias"].any()


def test_convolutions_start_by_passing_their_input_on():
    x = torch.randn(2, 24, 8, 8)
    layer = models.build(NETWORK)[2]
    outputs = layer(x)
    assert outputs.shape == (2, 64, 8, 8)
    assert torch.equal(outputs[:, :24], x) and outputs[:, 24:].std() > 0.1


def test_a_matrix_convolution_is_a_convolution():
    layer, x = models.MatrixConv(3, 5), torch.randn(2, 3, 8, 8)
    usual = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    usual.weight.data = layer.weight.detach().view(5, 3, 3, 3)
    torch.testing.assert_close(layer(x), usual(x))


def test_flip_alternates_and_depends_on_seed_and_epoch_alone():
    one, two, three, again = (augment.alternating(1000, 0.5, 7, epoch) for epoch in (1, 2, 3, 1))
    assert torch.equal(one, ~two) and torch.equal(one, three) and torch.equal(one, again)
    assert 400 < one.sum() < 600
    assert not torch.equal(one, augment.alternating(1000, 0.5, 8, 1))
    before = torch.get_rng_state()
    augment.alternating(10, 0.5, 0, 1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_reflected_shift_brings_in_the_edge(sample):
    x = to_unit(torch.tensor(sample[0].images[:4]))
    none, shift = torch.zeros(4), torch.tensor([[2.0, 0.0]] * 4)
    moved = augment.warp(x, none, shift, none.bool(), "nearest", "reflection")
    assert torch.equal(moved[..., 2:], x[..., :-2])
    assert torch.equal(moved[..., :2], x[..., :2].flip(-1))


def test_filters_keep_their_norm(sample, short):
    model = train.start(NETWORK, sample[0], 0, CPU)
    optimizers = train.make_optimizers(model, short)
    images, labels = train.to_tensors(sample[0], CPU)
    step = train.make_step(model, short, images, labels, CPU)
    next(train.epoch_steps(step, model, optimizers, short, labels, 0, 1))
    filters = [layer for layer in model if isinstance(layer, models.MatrixConv)]
    assert len(filters) == 6
    for layer in filters:
        norm = layer.weight.norm().item()
        assert norm == pytest.approx(layer.out_channels**0.5, rel=1e-4)


def test_every_trainable_parameter_has_one_optimizer(sample, short):
    model = models.build(NETWORK)
    groups = [group for one in train.make_optimizers(model, short) for group in one.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_rates_fall_to_zero_and_that_of_the_whitening_sooner(short):
    cfg = dataclasses.replace(short, epochs=8, peak_lr=1.0)
    rates = [train.lr_at(cfg, step, 10) for step in range(80)]
    np.testing.assert_allclose(rates, 1 - np.arange(80) / 80)
    sooner = [train.lr_at(cfg, step, 10, 3 / 8) for step in range(80)]
    np.testing.assert_allclose(sooner, np.maximum(0, 1 - np.arange(80) / 30), atol=1e-12)


def test_muon_is_for_fastnet(short):
    with pytest.raises(ValueError, match="optimizer muon trains FastNet only"):
        train.make_optimizers(models.build("ImprovedNet"), short)


def test_pieces_add_up_to_the_batch(sample):
    """Without batch normalisation the gradient of pieces, also of unequal ones, is the batch's."""
    cfg = train.plain(config.train_config("BaselineNet", "smoke", batch_size=360))
    whole, pieces = (
        train.replay("BaselineNet", dataclasses.replace(cfg, epochs=3, microbatch=m), sample[0], 0, CPU)
        for m in (0, 100)
    )
    assert whole == pytest.approx(pieces, rel=1e-5)


def test_stopped_and_resumed_gives_the_same_bits(few, short, tmp_path, monkeypatch):
    whole = train.fit(NETWORK, short, *few, 3, CPU, log=silent)
    save, state = train._save, tmp_path / "state.pt"

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_save", save_and_stop)
        train.fit(NETWORK, short, *few, 3, CPU, state, log=silent)
    resumed = train.fit(NETWORK, short, *few, 3, CPU, state, log=silent)
    assert len(resumed.history) == 2
    for name, tensor in whole.weights.items():
        assert torch.equal(tensor, resumed.weights[name]), name
    assert whole.first_losses == resumed.first_losses


def test_a_smoke_training_learns(few, short):
    cfg = dataclasses.replace(short, epochs=5, batch_size=40, microbatch=30)
    history = train.fit(NETWORK, cfg, *few, 0, CPU, log=silent).history
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.1
    assert history[-1]["train_accuracy"] > 0.3


def test_a_stored_run_answers_as_the_trained_network(few, short, tmp_path):
    run = runs.train_run(NETWORK, short, "smoke", 0, CPU, few, tmp_path, quiet=True)
    assert run.cfg == short
    loss, accuracy = train.evaluate(run.model, few[1])
    row = run.history.loc[run.history["validation_loss"].idxmin()]
    assert (loss, accuracy) == (pytest.approx(row["validation_loss"]), row["validation_accuracy"])
    maps = explain.grad_cam(run.model, few[1].images[:3], few[1].labels[:3])
    assert maps.shape == (3, 32, 32) and 0 <= maps.min() <= maps.max() <= 1
    assert len(explain.stage_features(run.model, few[1].images[:3])) == 5  # pixels, 4 poolings


def test_mirror_images_get_the_same_answer(sample):
    images = sample[1].images[:6]
    model = train.start(NETWORK, sample[0], 0, CPU)
    views = images, images[:, :, ::-1]
    alone = [infer(model, view).logits for view in views]
    both = [with_mirror(model, view, logits) for view, logits in zip(views, alone, strict=True)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    np.testing.assert_allclose(both[0], np.mean(alone, axis=0), atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_new_settings_leave_old_names_as_they_are():
    for folder in RUNS.iterdir():
        record = json.loads((folder / "run.json").read_text())
        cfg = config.from_record(record["config"])
        name = runs.identity(record["network"], cfg, record["seed"], record["data"])
        assert folder.name == f"{record['network']}-{name}"
        assert config.to_record(cfg) == record["config"]


def test_settings_are_stored_where_they_differ():
    stored = config.to_record(config.FAST)
    assert stored["microbatch"] == 125 and stored["flipping"] == "alternate"
    assert config.from_record(stored) == config.FAST
    assert "microbatch" not in config.to_record(config.IMPROVED)
    names = {
        runs.identity("FastNet", dataclasses.replace(config.FAST, **change), 0, {})
        for change in ({}, {"microbatch": 0}, {"padding": "zeros"}, {"flipping": "random"})
    }
    assert len(names) == 4
