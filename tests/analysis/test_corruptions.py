"""Corruptions against slow formulas, other libraries and the statistics of their noise; probes against what they keep.

The published constants are written out again here, so that a wrong table shows.
"""

import colorsys
import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from helpers.analysis import corruptions
from helpers.analysis.corruptions import corrupt

NAMES = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "contrast",
    "brightness",
    "saturate",
    "jpeg",
    "pixelate",
]
NOISE = NAMES[:3]
EVERY = {name: lambda x, name=name: corrupt(x, name, 3) for name in NAMES} | {
    "band_noise": lambda x: corruptions.band_noise(x, 4, 8, 0.06),
    "grey": corruptions.grey,
    "half_resolution": corruptions.half_resolution,
    "low_pass": lambda x: corruptions.low_pass(x, 8),
    "move_tiles": lambda x: corruptions.move_tiles(x, 4, 0),
    "patch_shuffle": lambda x: corruptions.patch_shuffle(x, 4, 0),
    "rotate": lambda x: corruptions.rotate(x, 20),
    "shift": lambda x: corruptions.shift(x, 3, -2),
    "occlude": lambda x: corruptions.occlude(x, 8, 0),
}
every = pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)


def severities(*constants):
    return pytest.mark.parametrize("severity, c", list(enumerate(constants, start=1)))


@pytest.fixture
def images(sample):
    return sample[1].images


@pytest.fixture
def noise_image():
    """Three images in which no two pixels are likely to be the same."""
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def flat(value, n=100):
    return np.full((n, 32, 32, 3), value, dtype=np.uint8)


def assert_cut_off(result, expected):
    """The bytes are the expected floats, 0..255, without their fraction, but for rounding errors of the floats."""
    fraction = expected - result
    assert fraction.min() > -1e-6 and fraction.max() < 1 + 1e-6


# ---------------------------------------------------------------- corruptions


@severities(0.04, 0.06, 0.08, 0.09, 0.10)
def test_gaussian_noise_has_its_deviation_and_shape(severity, c):
    noise = (corrupt(flat(128), "gaussian_noise", severity) + 0.5 - 128) / 255  # cutting off takes half a step
    assert abs(noise.mean()) < 0.001
    assert noise.std() == pytest.approx(c, rel=0.01)
    assert np.mean(np.abs(noise) < c) == pytest.approx(0.683, abs=0.03)


@pytest.mark.parametrize("level", [51, 128])
@severities(500, 250, 100, 75, 50)
def test_shot_noise_counts_photons(severity, c, level):
    noisy = corrupt(flat(level), "shot_noise", severity)
    counts = np.arange(2 * c)
    values = np.floor(np.minimum(counts / c, 1) * 255)
    probabilities = scipy.stats.poisson.pmf(counts, level / 255 * c)
    mean = values @ probabilities
    assert set(np.unique(noisy)) <= set(values)
    assert noisy.mean() == pytest.approx(mean, abs=0.3)
    assert noisy.var() == pytest.approx((values - mean) ** 2 @ probabilities, rel=0.02)


@severities(0.01, 0.02, 0.03, 0.05, 0.07)
def test_impulse_noise_is_half_salt_half_pepper(severity, c):
    noisy = corrupt(flat(128), "impulse_noise", severity)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert np.mean(noisy == 0) == pytest.approx(c / 2, rel=0.15)
    assert np.mean(noisy == 255) == pytest.approx(c / 2, rel=0.15)
    assert np.mean((noisy != 128).any(axis=3)) == pytest.approx(1 - (1 - c) ** 3, rel=0.1)  # each channel by itself


@severities(0.4, 0.6, 0.7, 0.8, 1.0)
def test_blur_equals_scipy_channel_by_channel(images, severity, c):
    blurred = corrupt(images[:3], "gaussian_blur", severity)
    for i, channel in itertools.product(range(3), range(3)):
        expected = scipy.ndimage.gaussian_filter(images[i, :, :, channel].astype(float), c, mode="nearest", truncate=4)
        assert_cut_off(blurred[i, :, :, channel], expected)


@severities(0.75, 0.5, 0.4, 0.3, 0.15)
def test_contrast_equals_its_formula(images, severity, c):
    changed = corrupt(images[:3], "contrast", severity)
    for i, channel in itertools.product(range(3), range(3)):
        values = images[i, :, :, channel].astype(float)
        mean = sum(values.ravel().tolist()) / 1024
        assert_cut_off(changed[i, :, :, channel], np.clip((values - mean) * c + mean, 0, 255))


def in_hsv(image, change):
    """Pixel by pixel with the standard library."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(rgb / 255)))) for rgb in image.reshape(-1, 3)]
    return np.array(pixels).reshape(image.shape) * 255


@severities(0.05, 0.10, 0.15, 0.20, 0.30)
def test_brightness_equals_colorsys(images, severity, c):
    expected = in_hsv(images[0], lambda h, s, v: (h, s, min(v + c, 1)))
    assert_cut_off(corrupt(images[:2], "brightness", severity)[0], expected)


@severities((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
def test_saturate_equals_colorsys(images, severity, c):
    image = images[0].copy()
    image[:4] = image[:4, :, :1]  # some grey, whose hue is a convention
    expected = in_hsv(image, lambda h, s, v: (h, min(s * c[0] + c[1], 1), v))
    assert_cut_off(corrupt(image[None], "saturate", severity)[0], expected)


@severities(80, 65, 58, 50, 40)
def test_jpeg_equals_a_file_written_by_pillow(images, severity, c, tmp_path):
    compressed = corrupt(images[:3], "jpeg", severity)
    for image, result in zip(images, compressed, strict=False):
        Image.fromarray(image).save(tmp_path / "image.jpg", quality=c)
        with Image.open(tmp_path / "image.jpg") as file:
            assert np.array_equal(result, np.asarray(file))


@severities(30, 28, 27, 24, 20)  # 32 times 0.95, 0.90, 0.85, 0.75, 0.65
def test_pixelate_averages_boxes(noise_image, severity, c):
    centres = (np.arange(32) + 0.5) * c / 32  # of the pixels, measured in boxes
    inside = np.floor(centres) == np.arange(c)[:, None]
    average = inside / inside.sum(axis=1, keepdims=True)
    spread = (average.T > 0).astype(float)  # every pixel shows the box that its centre lies in
    expected = np.einsum("ij,njkc,lk->nilc", spread @ average, noise_image.astype(float), spread @ average)
    assert np.abs(corrupt(noise_image, "pixelate", severity) - expected).max() < 1.01  # Pillow rounds twice
    assert np.array_equal(corrupt(flat(77, 2), "pixelate", severity), flat(77, 2))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "saturate"])  # which first fades, then colours
def test_a_higher_severity_changes_more(images, name):
    change = [np.abs(corrupt(images, name, severity).astype(int) - images).mean() for severity in range(1, 6)]
    assert change[0] > 0 and change == sorted(set(change))


def test_every_corruption_is_listed_in_order():
    assert list(corruptions.CORRUPTIONS) == NAMES
    assert all(len(constants) == 5 for constants in corruptions.CORRUPTIONS.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(images, name, monkeypatch):
    first = corrupt(images, name, 3, seed=1)
    assert np.array_equal(corrupt(images, name, 3, seed=1), first)
    assert np.array_equal(corrupt(images, name, 3, seed=2), first) == (name not in NOISE)
    monkeypatch.setattr(corruptions, "BLOCK", 7)  # how many are computed at once changes nothing
    assert np.array_equal(corrupt(images, name, 3, seed=1), first)


@pytest.mark.parametrize("name", NOISE)
def test_every_image_has_its_own_noise(name, monkeypatch):
    monkeypatch.setattr(corruptions, "BLOCK", 2)
    noisy = corrupt(flat(128, 4), name, 3)
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(noisy, 2))


# ---------------------------------------------------------------- all of them


@every
def test_bytes_in_and_new_bytes_out(images, function):
    before = images.copy()
    result = function(images)
    assert result.dtype == np.uint8 and result.shape == images.shape
    assert np.array_equal(images, before) and not np.shares_memory(result, images)
    assert not np.array_equal(result, images)
    assert np.array_equal(function(images[:5]), result[:5])  # whatever follows


@every
def test_other_arrays_are_refused(images, function):
    for wrong in (images / 255, images[0], images[..., :1], images[:, :31], images.transpose(0, 3, 1, 2), images[:0]):
        with pytest.raises(ValueError, match=r"^Images must be uint8 of shape \(n, 32, 32, 3\)"):
            function(wrong)


def test_other_arguments_are_refused(images):
    with pytest.raises(ValueError, match="^Unknown corruption 'fog': choose one of gaussian_noise, shot_noise,"):
        corrupt(images, "fog", 1)
    for severity in (0, 6, -1, 2.5, "3", None):
        with pytest.raises(ValueError, match="^Severity must be a whole number from 1 to 5, not"):
            corrupt(images, "jpeg", severity)
    for grid in (0, 3, 5, 64, -4):
        with pytest.raises(ValueError, match=f"^The grid must divide 32 .* not {grid}"):
            corruptions.patch_shuffle(images, grid)
        with pytest.raises(ValueError, match=f"^The grid must divide 32 .* not {grid}"):
            corruptions.move_tiles(images, grid)
    with pytest.raises(ValueError, match="^No frequency has a radius from 23 to 24"):
        corruptions.band_noise(images, 23, 24, 0.06)
    for side in (-1, 33, 1.5):
        with pytest.raises(ValueError, match=f"^The side must be a whole number of pixels from 0 to 32, not {side}"):
            corruptions.occlude(images, side)
    for call in (lambda: corruptions.rotate(images, np.nan), lambda: corruptions.shift(images, 1, np.inf)):
        with pytest.raises(ValueError, match="^Degrees and pixels must be finite numbers"):
            call()


@pytest.mark.parametrize("low, high", [(0, 4), (4, 8), (8, 12), (12, 16)])
def test_band_noise_has_its_power_and_no_other_frequencies(low, high):
    noise = corruptions.band_noise(flat(128, 20), low, high, 0.06, seed=1) / 255 - 128 / 255
    assert np.sqrt((noise**2).mean(axis=(1, 2, 3))) == pytest.approx(np.full(20, 0.06), rel=0.01)
    power = np.abs(np.fft.fft2(noise, axes=(1, 2))) ** 2
    y, x = np.meshgrid(*[np.minimum(np.arange(32), 32 - np.arange(32))] * 2, indexing="ij")
    inside = (low**2 <= x**2 + y**2) & (x**2 + y**2 < high**2)
    assert power[:, inside].sum() > 0.99 * power.sum()  # rounding to bytes puts a little elsewhere
    assert not np.array_equal(noise[0], noise[1])


# ---------------------------------------------------------------- probes


def waves(cycles):
    """Two images with a wave across and down, of as many cycles, around a middle grey."""
    wave = 100 + 50 * np.cos(2 * np.pi * cycles * np.arange(32) / 32)
    across = np.broadcast_to(wave[None, :, None], (32, 32, 3))
    return np.rint(np.stack([across, across.transpose(1, 0, 2)])).astype(np.uint8)


def test_low_pass_keeps_what_lies_below_its_cutoff():
    assert np.abs(corruptions.low_pass(waves(6), 8).astype(int) - waves(6)).max() <= 1
    assert np.abs(corruptions.low_pass(waves(10), 8).astype(int) - 100).max() <= 1
    assert np.ptp(corruptions.low_pass(waves(6), 1)) <= 1  # the mean colour alone
    with pytest.raises(ValueError, match="No frequency"):
        corruptions.low_pass(waves(6), 0)


def test_half_resolution_keeps_coarse_waves_and_loses_the_finest():
    assert np.ptp(corruptions.half_resolution(waves(2)).astype(int)) > 90
    checkers = np.zeros((1, 32, 32, 3), np.uint8)
    checkers[:, ::2, ::2] = checkers[:, 1::2, 1::2] = 200
    assert (corruptions.half_resolution(checkers) == 100).all()


def test_grey_is_the_luma_of_itu_601(images):
    grey = corruptions.grey(images)
    assert (grey == grey[..., :1]).all()
    luma = 0.299 * images[..., 0] + 0.587 * images[..., 1] + 0.114 * images[..., 2]
    assert np.abs(grey[..., 0] - luma).max() < 0.51  # Pillow's weights have 16 bits


def tiles(image, grid):
    side = 32 // grid
    corners = itertools.product(range(0, 32, side), repeat=2)
    return [image[y : y + side, x : x + side].tobytes() for y, x in corners]


@pytest.mark.parametrize("grid", [1, 2, 4, 8, 16, 32])
def test_patch_shuffle_keeps_the_tiles(noise_image, grid):
    for before, after in zip(noise_image, corruptions.patch_shuffle(noise_image, grid, seed=3), strict=True):
        assert sorted(tiles(before, grid)) == sorted(tiles(after, grid))
        assert grid < 4 or tiles(before, grid) != tiles(after, grid)


def test_patch_shuffle_draws_every_order_for_each_image(noise_image):
    same = np.repeat(noise_image[:1], 1200, axis=0)
    shuffled = corruptions.patch_shuffle(same, 2, seed=3)
    orders, counts = np.unique([b"".join(tiles(image, 2)) for image in shuffled], return_counts=True)
    assert len(orders) == 24 and counts.min() > 20 and counts.max() < 90  # 50 expected
    assert np.array_equal(corruptions.patch_shuffle(same, 2, seed=3), shuffled)
    assert not np.array_equal(corruptions.patch_shuffle(same, 2, seed=4), shuffled)


def test_move_tiles_keeps_neighbours_and_reaches_every_place(noise_image):
    same = np.repeat(noise_image[:1], 400, axis=0)
    moved = corruptions.move_tiles(same, 4, seed=3)
    rolled = {np.roll(same[0], (dy, dx), axis=(0, 1)).tobytes() for dy in range(0, 32, 8) for dx in range(0, 32, 8)}
    found, counts = np.unique([image.tobytes() for image in moved], return_counts=True)
    assert set(found) == rolled and counts.min() > 8  # 25 expected
    assert np.array_equal(corruptions.move_tiles(same, 4, seed=3), moved)


def test_rotate_by_the_nearest_pixel_makes_no_new_colours(images):
    turned = corruptions.rotate(images, 10, "nearest")
    assert not np.array_equal(turned, images)
    for before, after in zip(images, turned, strict=True):
        colours = {tuple(pixel) for pixel in before.reshape(-1, 3)} | {(0, 0, 0)}
        assert {tuple(pixel) for pixel in after.reshape(-1, 3)} <= colours


def test_rotate_equals_numpy_and_scipy(images):
    assert np.array_equal(corruptions.rotate(images, 0), images)
    assert np.array_equal(corruptions.rotate(images, 90), np.rot90(images, 1, axes=(1, 2)))  # counter-clockwise
    for degrees in (-15, 10, 45):
        expected = scipy.ndimage.rotate(
            images[:8].astype(float), degrees, axes=(2, 1), reshape=False, order=1, mode="grid-constant"
        )
        assert np.abs(corruptions.rotate(images[:8], degrees) - expected).max() < 0.51


def test_shift_moves_by_exact_pixels(images):
    assert np.array_equal(corruptions.shift(images, 0, 0), images)
    for dx, dy in ((3, 0), (0, 5), (-4, 7), (2, -32)):
        expected = np.zeros_like(images)
        for y, x in itertools.product(range(32), range(32)):
            if 0 <= y - dy < 32 and 0 <= x - dx < 32:
                expected[:, y, x] = images[:, y - dy, x - dx]
        assert np.array_equal(corruptions.shift(images, dx, dy), expected)
    between = (images[:, :, :-1].astype(float) + images[:, :, 1:]) / 2
    assert np.abs(corruptions.shift(images, 0.5, 0)[:, :, 1:] - between).max() < 0.51


def test_shift_reflects_its_margins(images):
    shifted = corruptions.shift(images, 3, -5, "reflected")
    expected = np.pad(images, ((0, 0), (0, 5), (3, 0), (0, 0)), mode="symmetric")[:, 5:, :32]
    assert np.array_equal(shifted, expected)


@pytest.mark.parametrize("side", [1, 8, 31, 32])
def test_occlude_covers_one_square_with_the_mean_colour(side):
    black = flat(0)
    occluded = corruptions.occlude(black, side, seed=5)
    for image in occluded:
        rows, columns = np.nonzero(image.any(axis=2))
        assert len(rows) == side**2 and np.ptp(rows) == np.ptp(columns) == side - 1
        assert (image[rows, columns] == (125, 123, 114)).all()  # 255 * (0.4914, 0.4822, 0.4465)
    assert np.array_equal(corruptions.occlude(black, side, seed=5), occluded)
    assert np.array_equal(corruptions.occlude(black, side, seed=6), occluded) == (side == 32)


def test_occlude_reaches_every_place_and_can_be_nothing(images):
    occluded = corruptions.occlude(flat(0), 30, seed=5)
    corners = {tuple(np.argwhere(image.any(axis=2)).min(axis=0).tolist()) for image in occluded}
    assert corners == set(itertools.product(range(3), range(3)))
    assert np.array_equal(corruptions.occlude(images, 0), images)
