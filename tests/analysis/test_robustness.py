"""Accuracy on changed images, and linear probes."""

import numpy as np
import pytest
import torch

from helpers import metrics, models
from helpers.analysis import corruptions, explain, robustness
from helpers.data import Part, first
from helpers.inference import infer


@pytest.fixture(scope="module")
def networks():
    return {name: models.build(name, seed=1) for name in ("BaselineNet", "ImprovedNet")}


def test_every_corruption_at_every_severity(networks, sample):
    part = first(sample[0], 20)
    table = robustness.under_corruption(networks, part, {"BaselineNet": np.copy, "ImprovedNet": lambda z: z / 0.5})
    assert len(table) == 2 * 9 * 6 and table.groupby(["corruption", "severity"]).size().eq(2).all()
    row = table.query("network == 'ImprovedNet' and corruption == 'contrast' and severity == 5").iloc[0]
    logits = infer(networks["ImprovedNet"], corruptions.corrupt(part.images, "contrast", 5)).logits
    assert row["accuracy"] == metrics.accuracy(logits, part.labels) and row["ece"] == metrics.ece(logits, part.labels)
    assert row["ece_corrected"] == metrics.ece(logits / 0.5, part.labels) != row["ece"]
    clean = table.query("severity == 0").groupby("network")["accuracy"]
    assert (clean.nunique() == 1).all()


def test_the_highest_severity_is_that_of_the_whole_table(networks, sample):
    part = first(sample[0], 20)
    table = robustness.under_corruption(networks, part, dict.fromkeys(networks, np.copy))
    worst = table.query("network == 'BaselineNet' and severity == 5").set_index("corruption")["accuracy"]
    assert robustness.at_highest_severity(networks["BaselineNet"], part) == worst.to_dict()
    assert set(robustness.NOISES) < set(worst.index)


def test_every_cue(networks, sample):
    part = first(sample[0], 20)
    table = robustness.without_cues(networks, part)
    assert table["cue"].unique().tolist() == list(robustness.CUES)
    kinds = table["cue"].str.split("_").str[0].unique()
    assert kinds.tolist() == ["nothing", "colour", "shape", "pose", "place", "square"]
    assert len(table) == 2 * (1 + 1 + 2 + 3 + 3 + 3)
    row = table.query("network == 'BaselineNet' and cue == 'place_8'").iloc[0]
    logits = infer(networks["BaselineNet"], corruptions.shift(part.images, 8, 8)).logits
    assert row["ece"] == metrics.ece(logits, part.labels)


def test_every_direction_with_both_margins(networks, sample):
    part = first(sample[0], 12)
    table = robustness.under_shifts(networks, part)
    assert len(table) == 2 * 2 * 2 * 4 and not table.duplicated().any()
    row = table.query("network == 'BaselineNet' and pixels == 8 and margins == 'reflected'").set_index("direction")
    logits = infer(networks["BaselineNet"], corruptions.shift(part.images, -8, 8, "reflected")).logits
    assert row.loc["left and down", "accuracy"] == metrics.accuracy(logits, part.labels)


def test_rotations_stand_beside_the_half_pixel(networks, sample):
    part = first(sample[0], 12)
    table = robustness.under_rotation(networks, part)
    assert list(table.columns) == list(networks) and table.index[0] == "as they are"
    logits = infer(networks["ImprovedNet"], corruptions.shift(part.images, 0.5, 0.5)).logits
    half = table.loc["moved by half a pixel, bilinear", "ImprovedNet"]
    assert half == metrics.accuracy(logits, part.labels)


def test_shape_against_place(networks, sample):
    part = first(sample[0], 12)
    right = robustness.shape_against_place(networks, part)
    assert list(right) == ["nothing", "shuffled", "moved"]
    for change, images in (("nothing", part.images), ("moved", corruptions.move_tiles(part.images, 4))):
        for name, model in networks.items():
            assert (right[change][name] == (infer(model, images).labels == part.labels)).all()


def test_kernels_pass_what_their_spectrum_says():
    flat = np.zeros((1, 3, 3, 3))
    flat[:, :, 1, 1] = 2  # each of three channels doubles: 3 x 2^2 of the power in every band
    assert robustness.gain_by_band(flat) == pytest.approx([12] * 4)
    mean = np.full((1, 1, 3, 3), 1 / 9)
    gains = robustness.gain_by_band(mean)
    assert gains == sorted(gains, reverse=True) and gains[0] > 0.5 and gains[3] < 0.2
    noise = corruptions.band_noise(np.full((20, 32, 32, 3), 128, np.uint8), *robustness.BANDS[1], rms=0.1) / 255
    noise = torch.tensor(noise - noise.mean(axis=(1, 2, 3), keepdims=True)).float()[..., :1].permute(0, 3, 1, 2)
    passed = torch.nn.functional.conv2d(torch.nn.functional.pad(noise, [1] * 4, "circular"), torch.tensor(mean).float())
    assert float(passed.var() / noise.var()) == pytest.approx(gains[1], rel=0.1)


def test_renewed_statistics_are_those_of_the_images(networks, sample):
    images, model = sample[0].images[:30], networks["ImprovedNet"]
    state, draw = model.state_dict(), torch.get_rng_state()
    adapted = robustness.renewed(model, images, batch_size=30)
    assert (torch.get_rng_state() == draw).all() and not adapted.training
    maps = model[0](robustness.normalise(robustness.to_unit(torch.tensor(images))))
    torch.testing.assert_close(adapted[1].running_mean, maps.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(adapted[1].running_var, maps.var(dim=(0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not torch.equal(adapted[1].running_mean, model[1].running_mean)
    plain = networks["BaselineNet"]
    assert (infer(robustness.renewed(plain, images), images).logits == infer(plain, images).logits).all()


def test_statistics_are_renewed_from_images_that_are_not_scored(networks, sample):
    part = first(sample[0], 20)
    table = robustness.with_renewed_statistics(networks, part, "ImprovedNet")
    assert list(table.columns) == ["BaselineNet", "ImprovedNet", "renewed"] and len(table) == 1 + 4 + 9
    harmed = corruptions.corrupt(part.images, "contrast", 5)
    adapted = robustness.renewed(networks["ImprovedNet"], harmed[10:])
    logits = infer(adapted, harmed[:10]).logits
    assert table.loc["contrast", "renewed"] == metrics.accuracy(logits, part.labels[:10])


def test_features_are_those_after_each_pooling(networks, sample):
    images = sample[0].images[:3]
    shapes = [f.shape for f in explain.stage_features(networks["ImprovedNet"], images, batch_size=2)]
    assert shapes == [(3, 48), (3, 512), (3, 1024), (3, 2048)]
    last = explain.stage_features(networks["BaselineNet"], images)[3]
    flat = list(networks["BaselineNet"])[:10]
    x = explain.normalise(explain.to_unit(explain.torch.tensor(images)))
    for layer in flat:
        x = layer(x)
    np.testing.assert_allclose(last, x.detach().numpy(), rtol=1e-5)


def test_a_probe_finds_what_is_linear():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 600).astype(np.uint8)
    images = np.full((600, 32, 32, 3), 100, np.uint8)
    images[np.arange(600), 0, 3 * labels.astype(int)] = 255  # the class is a place in the first row
    images = np.maximum(images, rng.integers(0, 20, images.shape)).astype(np.uint8)
    parts = Part(images[:400], labels[:400]), Part(images[400:], labels[400:])
    found = explain.linear_probe(models.build("BaselineNet"), *parts)
    chance = Part(images[400:], rng.permutation(labels[400:]))
    assert list(found) == ["pixels", "stage_1", "stage_2", "stage_3"] and found["pixels"] > 0.25
    assert explain.linear_probe(models.build("BaselineNet"), parts[0], chance)["pixels"] < 0.2


class SeesRows(torch.nn.Sequential):
    """Answers class 1 to an image whose rows alternate between light and dark, and class 0 to others."""

    def forward(self, x):
        alternating = (x[:, :, ::2] - x[:, :, 1::2]).mean(dim=(1, 2, 3)).abs()
        return torch.stack([torch.full_like(alternating, 0.5), alternating, *[alternating * 0 - 9] * 8], dim=1)


class SeesNothing(torch.nn.Sequential):
    """Answers class 0 to every image."""

    def forward(self, x):
        return torch.eye(10)[:1].repeat(len(x), 1)


def test_a_lead_that_rests_on_detail_is_lost_without_it():
    images, labels = np.full((40, 32, 32, 3), 90, np.uint8), np.arange(40) % 2
    images[labels == 1, ::2], images[labels == 1, 1::2] = 170, 10
    networks = {"BaselineNet": SeesNothing(torch.nn.Linear(1, 1)), "ImprovedNet": SeesRows(torch.nn.Linear(1, 1))}
    found = robustness.without_detail(networks, Part(images, labels), {"both": (0, 1)}).xs("both", level="group")
    assert found.index.tolist() == list(robustness.DETAIL)
    assert found["BaselineNet"].tolist() == [0.5, 0.5, 0.5]
    assert found["ImprovedNet"].tolist() == [1.0, 0.5, 0.5]
    assert found["lead"].tolist() == [0.5, 0.0, 0.0] and found["change"].tolist() == [0.0, -0.5, -0.5]
    assert found.loc["as they are", ["low", "high"]].tolist() == [0.0, 0.0]
    assert (found["low"][1:] < -0.5).all() and (found["high"][1:] < 0).all()


def test_each_half_has_the_statistics_of_the_other(networks, sample):
    images = sample[0].images[:40]
    halves = [
        infer(robustness.renewed(networks["ImprovedNet"], images[20:]), images[:20]).logits,
        infer(robustness.renewed(networks["ImprovedNet"], images[:20]), images[20:]).logits,
    ]
    found = robustness.statistics_of_others(networks["ImprovedNet"], images)
    np.testing.assert_array_equal(found, np.concatenate(halves))
