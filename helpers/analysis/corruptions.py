"""Images made harder, in a measured way: common corruptions, and probes that take one cue away.

The corruptions follow CIFAR-10-C (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019; constants and definitions from ImageNet-C/create_c/make_cifar_c.py at
github.com/hendrycks/robustness). These nine of its nineteen need no library or picture that the project does not have.
The noise is drawn anew, so images equal the published ones in distribution, not byte for byte.

Every function takes and returns (n, 32, 32, 3) uint8 RGB images, leaves its input unchanged, and raises ValueError for
another dtype or shape, or no image. Randomness depends on the seed and goes through the batch in order: the first
images come out the same, however many follow, and two batches with one seed get the same draws.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import gaussian_filter

from helpers import augment
from helpers.data import CIFAR10_MEAN

SIZE = 32
BLOCK = 500  # images held as float64 at once

# The constants of severity 1 to 5.
CORRUPTIONS: dict[str, tuple] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # deviation
    "shot_noise": (500, 250, 100, 75, 50),  # photons that make white
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of values replaced
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # sigma in pixels
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor
    "brightness": (0.05, 0.10, 0.15, 0.20, 0.30),  # added to V of HSV
    "saturate": ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),  # factor and offset of S of HSV
    "jpeg": (80, 65, 58, 50, 40),  # quality
    "pixelate": (0.95, 0.90, 0.85, 0.75, 0.65),  # scale
}


def _check(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE, 3) or len(images) == 0:
        raise ValueError(
            f"Images must be uint8 of shape (n, 32, 32, 3) with n > 0, not {images.dtype} of shape {images.shape}."
        )
    return images


# ---------------------------------------------------------------- corruptions


def _hsv(x: np.ndarray, channel: int, factor: float, offset: float) -> np.ndarray:
    """Hue, saturation or value (channel 0, 1, 2) of RGB in [0, 1] times factor plus offset, clipped to [0, 1]."""
    hsv = rgb_to_hsv(x)
    hsv[..., channel] = np.clip(hsv[..., channel] * factor + offset, 0, 1)
    return hsv_to_rgb(hsv)


def _impulse(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Half of the share becomes 0, the other half 1, each channel by itself as in scikit-image."""
    draw = rng.random(x.shape)
    return np.where(draw < share / 2, 0.0, np.where(draw >= 1 - share / 2, 1.0, x))


def _contrast(x: np.ndarray, factor: float) -> np.ndarray:
    mean = x.mean(axis=(1, 2), keepdims=True)  # of each image and channel
    return (x - mean) * factor + mean


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _pixelate(image: Image.Image, scale: float) -> Image.Image:
    small = int(SIZE * scale)
    return image.resize((small, small), Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


# Of floats x (n, 32, 32, 3) in [0, 1], the constant c and a generator. Results may leave [0, 1].
_ON_FLOATS: dict[str, Callable] = {
    "gaussian_noise": lambda x, c, rng: x + rng.normal(scale=c, size=x.shape),
    "shot_noise": lambda x, c, rng: rng.poisson(x * c) / c,  # white counts c photons on average
    "impulse_noise": _impulse,
    # Border and reach are those of scikit-image, which the original calls.
    "gaussian_blur": lambda x, c, _: gaussian_filter(x, sigma=(0, c, c, 0), mode="nearest", truncate=4.0),
    "contrast": lambda x, c, _: _contrast(x, c),
    "brightness": lambda x, c, _: _hsv(x, 2, 1, c),
    "saturate": lambda x, c, _: _hsv(x, 1, *c),  # grey has hue 0: an offset makes it reddish, in the original too
}
_ON_PILLOW: dict[str, Callable] = {"jpeg": _jpeg, "pixelate": _pixelate}  # of one image and the constant


def corrupt(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """The images with the named corruption of CIFAR-10-C at severity 1 (weakest) to 5.

    Floats become bytes as in the original: clipped to [0, 1], times 255, and cut off rather than rounded. Only the
    three kinds of noise use the seed. Raises ValueError for an unknown name or severity.
    """
    images = _check(images)
    if name not in CORRUPTIONS:
        raise ValueError(f"Unknown corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}.")
    if severity not in range(1, 6):
        raise ValueError(f"Severity must be a whole number from 1 to 5, not {severity!r}.")
    constant = CORRUPTIONS[name][int(severity) - 1]
    result = np.empty_like(images)
    if name in _ON_PILLOW:
        for i, image in enumerate(images):
            result[i] = np.asarray(_ON_PILLOW[name](Image.fromarray(image), constant))
        return result
    rng = np.random.default_rng(seed)
    for start in range(0, len(images), BLOCK):
        x = _ON_FLOATS[name](images[start : start + BLOCK] / 255, constant, rng)
        result[start : start + BLOCK] = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    return result


def in_band(low: float, high: float) -> np.ndarray:
    """Which frequencies (32, 32) of np.fft.fft2 have a radius of low <= r < high cycles an image."""
    frequencies = np.fft.fftfreq(SIZE, 1 / SIZE)
    radius = np.hypot(frequencies[:, None], frequencies)
    return (radius >= low) & (radius < high)


def band_noise(images: np.ndarray, low: float, high: float, rms: float, seed: int = 0) -> np.ndarray:
    """Gaussian noise whose spatial frequencies have a radius of low <= r < high cycles an image, at most 22.6.

    rms: root mean square of the noise added to each image, as a share of white, before the sum is clipped to [0, 1] and
    rounded. So bands are compared at equal power. Raises ValueError for a band that holds no frequency.
    """
    images = _check(images)
    band = in_band(low, high)
    if not band.any():
        raise ValueError(f"No frequency has a radius from {low} to {high} cycles an image.")
    rng, result = np.random.default_rng(seed), np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        x = images[start : start + BLOCK] / 255
        spectrum = np.fft.fft2(rng.normal(size=x.shape), axes=(1, 2)) * band[:, :, None]
        noise = np.fft.ifft2(spectrum, axes=(1, 2)).real
        noise *= rms / np.sqrt((noise**2).mean(axis=(1, 2, 3), keepdims=True))
        result[start : start + BLOCK] = np.rint(np.clip(x + noise, 0, 1) * 255)
    return result


# ---------------------------------------------------------------- probes: one cue is taken away


def grey(images: np.ndarray) -> np.ndarray:
    """Colour taken away: three equal channels of ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B, rounded to nearest."""
    images = _check(images)
    luma = Image.fromarray(images.reshape(-1, SIZE, 3)).convert("L")  # the whole batch as one tall image
    return np.repeat(np.asarray(luma).reshape(-1, SIZE, SIZE, 1), 3, axis=3)


def low_pass(images: np.ndarray, cutoff: float) -> np.ndarray:
    """Detail taken away: only the spatial frequencies with a radius below `cutoff` cycles an image are kept.

    Raises ValueError for a cutoff that keeps none, not even the mean colour.
    """
    images = _check(images)
    kept = in_band(0, cutoff)
    if not kept.any():
        raise ValueError(f"No frequency has a radius below {cutoff} cycles an image.")
    result = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        spectrum = np.fft.fft2(images[start : start + BLOCK], axes=(1, 2)) * kept[:, :, None]
        result[start : start + BLOCK] = np.rint(np.clip(np.fft.ifft2(spectrum, axes=(1, 2)).real, 0, 255))
    return result


def half_resolution(images: np.ndarray) -> np.ndarray:
    """Detail taken away: 2 x 2 pixels become their mean, and the small image is enlarged again (bicubic)."""
    images, small = _check(images), (SIZE // 2, SIZE // 2)
    halved = [Image.fromarray(image).resize(small, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in halved])


def _check_grid(grid: int) -> None:
    if grid not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"The grid must divide 32 (1, 2, 4, 8, 16 or 32), not {grid!r}.")


def patch_shuffle(images: np.ndarray, grid: int, seed: int = 0) -> np.ndarray:
    """Shape taken away, texture kept: grid x grid tiles, in a random order of its own for each image.

    grid: 1 (no change), 2, 4, 8, 16 or 32; ValueError otherwise. An order may leave tiles where they were.
    """
    images = _check(images)
    _check_grid(grid)
    n, grid, side = len(images), int(grid), SIZE // int(grid)
    tiles = images.reshape(n, grid, side, grid, side, 3).swapaxes(2, 3).reshape(n, grid**2, side, side, 3)
    order = np.random.default_rng(seed).random((n, grid**2)).argsort(axis=1)
    tiles = np.take_along_axis(tiles, order[:, :, None, None, None], axis=1)
    return tiles.reshape(n, grid, grid, side, side, 3).swapaxes(2, 3).reshape(images.shape)


def move_tiles(images: np.ndarray, grid: int, seed: int = 0) -> np.ndarray:
    """The control of patch_shuffle: grid x grid tiles move as far, but all of an image alike, so that shape stays.

    Each image moves by a random number of tiles right and down, and what leaves at one edge comes in at the other. So a
    tile is as likely to reach each place as in patch_shuffle. grid: as there.
    """
    images = _check(images)
    _check_grid(grid)
    moves = np.random.default_rng(seed).integers(0, grid, (len(images), 2)) * (SIZE // int(grid))
    rows, columns = (np.arange(SIZE) - moves[:, :, None]).swapaxes(0, 1) % SIZE
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _warp(images: np.ndarray, degrees: float, dx: float, dy: float, interpolation: str, padding: str) -> np.ndarray:
    images = _check(images)
    if not np.isfinite([degrees, dx, dy]).all():
        raise ValueError("Degrees and pixels must be finite numbers.")
    n = len(images)
    x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
    moves = torch.tensor([[dx, dy]], dtype=torch.float32).expand(n, 2)
    upright = torch.zeros(n, dtype=torch.bool)
    x = augment.warp(x, torch.full((n,), float(degrees)), moves, upright, interpolation, padding)
    return x.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def rotate(images: np.ndarray, degrees: float, interpolation: str = "bilinear") -> np.ndarray:
    """Pose changed: turned counter-clockwise about the centre, rounded to nearest; black corners.

    interpolation: "bilinear", which blurs too, or "nearest", which does not.
    """
    return _warp(images, degrees, 0, 0, interpolation, "zeros")


def shift(images: np.ndarray, dx: float, dy: float, margins: str = "black") -> np.ndarray:
    """Place changed: moved dx pixels right and dy down, exact for whole pixels, else bilinear.

    margins: "black", or "reflected" for the image mirrored at its edge.
    """
    padding = {"black": "zeros", "reflected": "reflection"}[margins]
    return _warp(images, 0, dx, dy, "bilinear", padding)


def occlude(images: np.ndarray, side: int, seed: int = 0) -> np.ndarray:
    """A part taken away: a square of side x side pixels, anywhere inside the image, in the mean colour of CIFAR-10.

    side: 0 (no change) to 32; ValueError otherwise. Each image has a place of its own.
    """
    images = _check(images)
    if side not in range(SIZE + 1):
        raise ValueError(f"The side must be a whole number of pixels from 0 to 32, not {side!r}.")
    corners = np.random.default_rng(seed).integers(0, SIZE + 1 - int(side), (len(images), 2))
    from_corner = np.arange(SIZE) - corners[:, :, None]  # (n, 2, 32): how far each row and column lies past the corner
    rows, columns = ((from_corner >= 0) & (from_corner < side)).swapaxes(0, 1)
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return np.where(covered, np.rint(np.multiply(CIFAR10_MEAN, 255)).astype(np.uint8), images)
