"""Each operation equals torchvision's, applied image by image."""

import pytest
import torch

from helpers import augment
from helpers.config import IMPROVED
from helpers.torchvision_compat import transforms_v2
from helpers.train import plain

reference = transforms_v2.functional
MODES = {mode.value: mode for mode in transforms_v2.InterpolationMode}
N = 6


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(N, 3, 32, 32)


def one_by_one(images, operation, *arguments):
    return torch.stack([operation(image, *(a[i].item() for a in arguments)) for i, image in enumerate(images)])


def assert_same(warped, expected, interpolation):
    """Equal but for rounding, by which the nearest of two pixels can be either."""
    if interpolation == "nearest":
        assert ((warped - expected).abs() < 1e-4).float().mean() > 0.999
    else:
        torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)


interpolations = pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])


def still(n=N):
    return torch.zeros(n), torch.zeros(n, 2), torch.zeros(n, dtype=torch.bool)


@interpolations
def test_rotation(images, interpolation):
    _, shift, flip = still()
    degrees = torch.tensor([-15.0, -5.0, 0.0, 3.0, 10.0, 40.0])
    expected = one_by_one(images, lambda x, a: reference.rotate(x, a, MODES[interpolation]), degrees)
    assert_same(augment.warp(images, degrees, shift, flip, interpolation), expected, interpolation)


@interpolations
def test_flip(images, interpolation):
    degrees, shift, _ = still()
    flip = torch.tensor([True, False] * 3)
    expected = torch.where(flip[:, None, None, None], reference.horizontal_flip(images), images)
    torch.testing.assert_close(augment.warp(images, degrees, shift, flip, interpolation), expected, atol=1e-5, rtol=0)


@interpolations
def test_shift_is_a_crop_of_the_padded_image(images, interpolation):
    degrees, _, flip = still()
    shift = torch.tensor([[0, 0], [4, -4], [1, 2], [-3, 0], [0, 4], [-4, -4]])
    expected = torch.stack(
        [
            reference.crop(reference.pad(x, 4), top=4 - int(dy), left=4 - int(dx), height=32, width=32)
            for x, (dx, dy) in zip(images, shift, strict=True)
        ]
    )
    warped = augment.warp(images, degrees, shift.float(), flip, interpolation)
    torch.testing.assert_close(warped, expected, atol=1e-5, rtol=0)


@interpolations
def test_the_composed_warp(images, interpolation):
    degrees, shift = torch.linspace(-20, 20, N), torch.randint(-4, 5, (N, 2))
    flip = torch.tensor([True, True, False, True, False, False])
    expected = torch.stack(
        [
            reference.affine(
                reference.horizontal_flip(x) if f else x,
                angle=-a.item(),
                translate=s.tolist(),
                scale=1.0,
                shear=[0.0],
                interpolation=MODES[interpolation],
            )
            for x, a, s, f in zip(images, degrees, shift, flip, strict=True)
        ]
    )
    assert_same(augment.warp(images, degrees, shift.float(), flip, interpolation), expected, interpolation)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour(images, name):
    factor = torch.tensor([0.5, 0.8, 0.9, 1.0, 1.2, 1.6])
    expected = one_by_one(images, getattr(reference, f"adjust_{name}"), factor)
    torch.testing.assert_close(getattr(augment, name)(images, factor), expected, atol=1e-4, rtol=0)


def test_erase(images):
    boxes = torch.tensor([[0, 0, 32, 32], [3, 5, 10, 7], [20, 0, 12, 1], [0, 31, 1, 1], [5, 5, 0, 9], [8, 8, 8, 8]])
    expected = one_by_one(images, lambda x, *box: reference.erase(x, *box, v=torch.zeros(1)), *boxes.T)
    assert torch.equal(augment.erase(images, *boxes.T), expected)


def test_every_image_has_its_own_draw():
    torch.manual_seed(0)
    same = torch.rand(1, 3, 32, 32).expand(8, -1, -1, -1).contiguous()
    for operation in (augment.geometry, augment.colour, augment.erasing):
        strong = type(IMPROVED)(**{**vars(IMPROVED), "erasing": 1.0})
        out = operation(same, strong)
        assert all(not torch.equal(out[i], out[j]) for i in range(8) for j in range(i))


def test_ranges_of_the_draws():
    torch.manual_seed(0)
    top, left, height, width = augment.draw_boxes(5000, 0.25, 32, "cpu")
    drawn = height > 0
    assert 0.20 < drawn.float().mean() < 0.27  # a few boxes do not fit and are dropped
    area = (height * width)[drawn] / 32**2
    assert area.min() > 0.01 and area.max() < 0.36
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height)[drawn].max() <= 32 and (left + width)[drawn].max() <= 32


def test_no_strength_means_no_change(images):
    for operation in (augment.geometry, augment.colour, augment.erasing):
        assert operation(images, plain(IMPROVED)) is images
