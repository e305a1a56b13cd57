"""The networks against arithmetic by hand, and inference against its five steps written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers import config, models
from helpers.data import CIFAR10_MEAN, CIFAR10_STD
from helpers.inference import denormalise, infer, normalise, to_unit

# ---- Networks


def test_baseline_has_the_parameters_of_the_reference():
    assert models.parameters(models.build("BaselineNet")) == 48_252


def test_improved_has_the_parameters_of_its_formula():
    channels = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    convolutions = sum(9 * i * o + 2 * o for i, o in channels)  # no bias; scale and shift of batch normalisation
    linear = (2048 + 1) * 256 + (256 + 1) * 10
    assert models.parameters(models.build("ImprovedNet")) == convolutions + linear


@pytest.mark.parametrize("network", config.NETWORKS)
def test_logits_have_one_column_a_class(network):
    model = models.build(network).eval()
    for n in (1, 7):
        assert model(torch.zeros(n, 3, 32, 32)).shape == (n, 10)


@pytest.mark.parametrize("network", config.NETWORKS)
def test_the_seed_decides_the_weights(network):
    weights = [torch.cat([p.flatten() for p in models.build(network, seed).parameters()]) for seed in (5, 5, 6)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="unknown network 'Net': choose one of BaselineNet, ImprovedNet"):
        models.build("Net")


def test_improved_starts_near_uniform(sample):
    prediction = infer(models.build("ImprovedNet"), sample[0].images)
    loss = F.cross_entropy(torch.from_numpy(prediction.logits), torch.tensor(sample[0].labels).long()).item()
    assert loss == pytest.approx(math.log(10), abs=0.1)
    assert prediction.confidence.max() < 0.5


def test_improved_is_initialised_as_he_et_al():
    """Zero mean, variance 2 / (inputs of a unit); zero biases; a small last layer."""
    model = models.build("ImprovedNet")
    layers = [layer for layer in model if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers[:-1]:
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    assert layers[-1].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert all(layer.bias is None or not layer.bias.any() for layer in layers)


# ---- The table of layers

# Output, parameters, multiply-adds, receptive field of the layers that change any of them, worked out by hand.
BASELINE = [
    ("6 x 31 x 31", 3 * 2 * 2 * 6 + 6, 3 * 2 * 2 * 6 * 31 * 31, 2),
    ("6 x 15 x 15", 0, 0, 3),
    ("16 x 16 x 16", 6 * 2 * 2 * 16 + 16, 6 * 2 * 2 * 16 * 16 * 16, 5),
    ("16 x 8 x 8", 0, 0, 7),
    ("32 x 7 x 7", 16 * 2 * 2 * 32 + 32, 16 * 2 * 2 * 32 * 7 * 7, 11),
    ("32 x 3 x 3", 0, 0, 15),
    ("120", 288 * 120 + 120, 288 * 120, 29),
    ("84", 120 * 84 + 84, 120 * 84, 29),
    ("10", 84 * 10 + 10, 84 * 10, 29),
]
IMPROVED = [
    ("32 x 32 x 32", 3 * 9 * 32, 3 * 9 * 32 * 1024, 3),
    ("32 x 32 x 32", 32 * 9 * 32, 32 * 9 * 32 * 1024, 5),
    ("32 x 16 x 16", 0, 0, 6),
    ("64 x 16 x 16", 32 * 9 * 64, 32 * 9 * 64 * 256, 10),
    ("64 x 16 x 16", 64 * 9 * 64, 64 * 9 * 64 * 256, 14),
    ("64 x 8 x 8", 0, 0, 16),
    ("128 x 8 x 8", 64 * 9 * 128, 64 * 9 * 128 * 64, 24),
    ("128 x 8 x 8", 128 * 9 * 128, 128 * 9 * 128 * 64, 32),
    ("128 x 4 x 4", 0, 0, 32),  # 36, but the image has 32
    ("256", 2048 * 256 + 256, 2048 * 256, 32),
    ("10", 256 * 10 + 10, 256 * 10, 32),
]


def test_the_total_adds_up_all_layers_also_those_left_out():
    table = models.layer_table(models.build("ImprovedNet"))
    shown = models.with_total(table, "all")
    assert len(shown) == len(IMPROVED) + 1 and not shown["layer"].str.contains("Norm").any()
    assert shown["layer"].iloc[-1] == "all" and shown["receptive field"].isna().iloc[-1]
    assert shown["parameters"].iloc[-1] == table["parameters"].sum() > shown["parameters"].iloc[:-1].sum()


def test_the_share_of_the_linear_layers():
    small = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Flatten(), torch.nn.Linear(2, 8))
    assert models.linear_share(small) == 24 / 32


def test_pooling_hides_the_last_rows_and_columns_from_the_baseline():
    """Odd sizes lose their last row: 31 -> 15 drops one pixel, 7 -> 3 drops more, so 29 rows and columns remain."""
    visible = models.visible_pixels(models.build("BaselineNet"))
    assert visible[:29, :29].all() and not visible[29:].any() and not visible[:, 29:].any()
    assert models.visible_pixels(models.build("ImprovedNet")).all()


@pytest.mark.parametrize(("network", "expected"), [("BaselineNet", BASELINE), ("ImprovedNet", IMPROVED)])
def test_layer_table(network, expected):
    model = models.build(network).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = models.layer_table(model)
    main = table[table["layer"].str.match("Conv|MaxPool|Linear")]
    columns = ["output", "parameters", "multiply-adds", "receptive field"]
    assert list(main[columns].itertuples(index=False, name=None)) == expected
    others = table[table["layer"].str.match("ReLU|BatchNorm|Flatten|Dropout")]
    assert len(main) + len(others) == len(table) == len(model) and (others["multiply-adds"] == 0).all()
    assert table["parameters"].sum() == models.parameters(model)
    assert models.macs(model) == sum(row[2] for row in expected)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_layers_in_words():
    described = models.layer_table(models.build("ImprovedNet"))["layer"].tolist()
    assert described[:3] == ["Conv 3x3, 3-32, padding 1", "BatchNorm", "ReLU"]
    assert described[-3:] == ["ReLU", "Dropout 0.5", "Linear 256-10"]
    assert models.layer_table(models.build("BaselineNet"))["layer"][0] == "Conv 2x2, 3-6"


# ---- Inference


def test_preprocessing(sample):
    images = sample[0].images[:5]
    expected = (images / 255 - np.array(CIFAR10_MEAN)) / np.array(CIFAR10_STD)
    seen = normalise(to_unit(torch.tensor(images)))
    np.testing.assert_allclose(seen.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_the_five_steps(model, sample):
    images = sample[1].images
    prediction = infer(model, images)
    for i in range(0, len(images), 8):
        x = (images[i] / 255 - np.array(CIFAR10_MEAN)) / np.array(CIFAR10_STD)
        with torch.no_grad():
            logits = model.eval()(torch.tensor(x.transpose(2, 0, 1)[None], dtype=torch.float32))[0].double().numpy()
        exponentials = [math.exp(z) for z in logits]
        probabilities = [e / sum(exponentials) for e in exponentials]
        np.testing.assert_allclose(prediction.logits[i], logits, atol=1e-5)
        np.testing.assert_allclose(prediction.probabilities[i], probabilities, atol=1e-6)
        assert prediction.labels[i] == probabilities.index(max(probabilities))
        assert prediction.confidence[i] == pytest.approx(max(probabilities), abs=1e-6)
    assert prediction.logits.shape == prediction.probabilities.shape == (len(images), 10)


def test_denormalise_is_the_inverse_of_normalise(sample):
    x = to_unit(torch.tensor(sample[1].images))
    torch.testing.assert_close(denormalise(normalise(x)), x, atol=1e-6, rtol=0)


def test_inference_in_any_batch_size(model, sample):
    whole = infer(model, sample[1].images)
    for size in (1, 7, 40):
        part = infer(model, sample[1].images, batch_size=size)
        np.testing.assert_allclose(part.logits, whole.logits, atol=1e-5)
        np.testing.assert_allclose(part.probabilities, whole.probabilities, atol=1e-5)


def test_inference_changes_nothing(model, sample):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = sample[1].images.copy()
    infer(model, images)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert np.array_equal(images, sample[1].images) and not model.training
