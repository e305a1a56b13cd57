"""Grad-CAM against arithmetic by hand and against autograd, and the check with random weights."""

import warnings

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from helpers.analysis.explain import (
    grad_cam,
    last_block,
    map_similarity,
    pair_logits,
    randomised,
    sanity_check,
    thumbnail_logits,
    thumbnails,
)
from helpers.data import Part
from helpers.inference import infer, normalise, to_unit


@pytest.fixture(scope="module")
def images(sample):
    return sample[1].images[:12]


@pytest.fixture(scope="module")
def classes():
    return np.arange(12) % 10


def tiny(inplace=False):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 3)
    )


def finish(coarse):
    """Coarse maps (n, h, w) with signs -> ReLU, 32 x 32, maximum 1."""
    maps = F.interpolate(F.relu(coarse)[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    return (maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)).numpy()


@pytest.mark.parametrize("inplace", [False, True])
def test_agrees_with_arithmetic_by_hand(images, inplace):
    model, classes = tiny(inplace), np.arange(12) % 3
    with torch.no_grad():
        activations = model[:2](normalise(to_unit(torch.from_numpy(images))))
        # Each weight of the linear layer reaches one of four places: the mean gradient is their sum / 32^2.
        weights = model[-1].weight.view(3, 4, 16, 16).sum(dim=(2, 3))[classes] / 32**2
        expected = finish((weights[:, :, None, None] * activations).sum(1))
    np.testing.assert_allclose(grad_cam(model, images, classes), expected, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_agrees_with_autograd_on_both_networks(model, images, classes, layout):
    model = model.eval().to(memory_format=layout)
    layers = list(model)
    cut = layers.index(last_block(model)) + 1
    assert [type(layer) for layer in layers[cut : cut + 2]] == [nn.MaxPool2d, nn.Flatten]
    front, back = nn.Sequential(*layers[:cut]), nn.Sequential(*layers[cut:])
    activations = front(normalise(to_unit(torch.from_numpy(images)))).detach().requires_grad_()
    logits = back(activations)
    (gradient,) = torch.autograd.grad(logits[torch.arange(12), torch.from_numpy(classes)].sum(), activations)
    expected = finish((gradient.mean(dim=(2, 3), keepdim=True) * activations).sum(1).detach())
    maps = grad_cam(model, images, classes)
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    assert maps.shape == (12, 32, 32) and maps.dtype == np.float32 and maps.min() >= 0
    assert set(maps.max(axis=(1, 2))) <= {0.0, 1.0} and maps.max() == 1


def test_batches_bytes_and_frozen_parameters_change_nothing(model, images, classes):
    maps = grad_cam(model, images, classes)
    np.testing.assert_allclose(grad_cam(model, images, classes.astype(np.uint8), batch_size=5), maps, atol=1e-4)
    np.testing.assert_allclose(grad_cam(model, images[3:4], classes[3:4]), maps[3:4], atol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(grad_cam(model.requires_grad_(False), images, classes), maps, atol=1e-4)


def test_leaves_the_model_as_it_was(model, images, classes):
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [p.requires_grad for p in model.parameters()]
    before = images.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad_cam(model.train(), images, classes)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == trained
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    np.testing.assert_array_equal(images, before)


def test_no_evidence_gives_an_empty_map(images):
    model = tiny()
    nn.init.constant_(model[-1].weight, -1)
    assert not grad_cam(model, images, np.zeros(12, int)).any()


def test_wrong_input_is_refused_in_one_sentence(images, classes):
    for wrong in (classes[:3], classes / 2, classes[:, None]):
        with pytest.raises(ValueError, match="12 images need as many classes"):
            grad_cam(tiny(), images, wrong)
    with pytest.raises(ValueError, match="0 images"):
        grad_cam(tiny(), images[:0], classes[:0])
    for layers in ([nn.Flatten(), nn.Linear(3072, 10), nn.ReLU()], [nn.MaxPool2d(2), nn.ReLU()]):
        with pytest.raises(ValueError, match="ReLU before its last max-pooling"):
            last_block(nn.Sequential(*layers))


def test_randomised_forgets_everything_and_leaves_the_original_alone(model, images):
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    copies = [randomised(model, images, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    first, same, other = (infer(each, images).logits for each in copies)
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other) and not np.allclose(first, infer(model, images).logits)
    for name, tensor in copies[0].state_dict().items():
        if tensor.ndim > 1:  # the weights of convolutions and linear layers
            assert not torch.equal(tensor, weights[name]), name
        if "running_mean" in name:  # of these images now
            assert tensor.any() and not torch.equal(tensor, weights[name])


def test_the_sanity_check_compares_with_other_networks_classes_and_images(model, images):
    found = sanity_check(model, images)
    best = np.argsort(-infer(model, images).logits, axis=1)
    maps, second = grad_cam(model, images, best[:, 0]), grad_cam(model, images, best[:, 1])
    expected = {
        "random": map_similarity(maps, grad_cam(randomised(model, images, 1), images, best[:, 0])),
        "second class": map_similarity(maps, second),
        "other image": map_similarity(maps, maps[np.arange(12) - 1]),
        "mean": map_similarity(maps, np.stack([maps.mean(0)] * 12)),
    }
    assert found.keys() == expected.keys() and len(found["random"]) == 3 * 12
    found["random"] = found["random"][12:24]
    for kind, similar in expected.items():
        np.testing.assert_allclose(found[kind], similar, atol=1e-6)


def test_similarity_is_a_rank_correlation():
    a, b = np.random.default_rng(0).random((2, 3, 32, 32))
    assert map_similarity(a, a) == pytest.approx([1, 1, 1])
    assert map_similarity(a, np.exp(a)) == pytest.approx([1, 1, 1])  # only the order of the places counts
    assert map_similarity(a, 1 - a) == pytest.approx([-1, -1, -1])
    ranks = [scipy.stats.rankdata(maps[1]) for maps in (a, b)]
    assert map_similarity(a, b)[1] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_similarity_with_a_constant_map_is_undefined():
    a = np.random.default_rng(0).random((2, 8, 8))
    b = a.copy()
    b[0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        similarity = map_similarity(a, b)
    assert np.isnan(similarity[0]) and similarity[1] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"not \(2, 8, 8\) with \(1, 8, 8\)"):
        map_similarity(a, b[:1])


def test_a_thumbnail_holds_the_means_of_squares(images):
    coarse = thumbnails(images).reshape(len(images), 8, 8, 3)
    assert coarse[2, 1, 3].tolist() == pytest.approx((images[2, 4:8, 12:16] / 255).mean(axis=(0, 1)).tolist())


def test_thumbnails_tell_brightness_but_no_detail():
    rng, labels = np.random.default_rng(0), np.tile([0, 1], 100)
    bright = np.where(labels == 1, 160, 90)[:, None, None, None] + rng.integers(-20, 21, (200, 32, 32, 3))
    z = thumbnail_logits(Part(bright[:100].astype(np.uint8), labels[:100]), Part(bright[100:], labels[100:]))
    assert ((z > 0) == labels[100:]).all()
    board = np.indices((32, 32)).sum(0) % 2  # two chequerboards, one inverted: the same in every square
    fine = 100 + 50 * np.where(labels[:, None, None] == 1, board, 1 - board)[..., None].repeat(3, axis=3)
    assert np.ptp(thumbnails(fine)) == pytest.approx(0)


def test_a_specialist_for_a_pair_decides_between_these_alone(model, sample):
    training, pair = sample[0], (3, 5)
    shown = np.isin(training.labels, pair)
    z = pair_logits(model, training, training.images[shown], pair)
    assert (np.delete(z, 5, axis=1) == 0).all()
    decided = np.where(z[:, 5] > z[:, 3], 5, 3)
    assert (decided == training.labels[shown]).mean() > 0.9  # features of few images are separable
