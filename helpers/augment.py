"""Random augmentation of whole batches, with one independent draw per image.

One affine warp does flip, rotation and crop together, so that each image is interpolated once. Every operation equals
torchvision.transforms.v2.functional applied image by image (see tests/test_augment.py).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.config import TrainConfig
from helpers.inference import channelwise

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, the weights that torchvision uses


def _uniform(n: int, low: float, high: float, device) -> Tensor:
    return torch.rand(n, device=device) * (high - low) + low


def warp(
    images: Tensor, degrees: Tensor, shift: Tensor, flip: Tensor, interpolation: str, padding: str = "zeros"
) -> Tensor:
    """Mirror, then rotate about the centre (positive turns counter-clockwise), then shift.

    images: (n, c, h, w) floats. degrees: (n,). shift: (n, 2) pixels, right and down. flip: (n,) booleans.
    interpolation: "nearest" or "bilinear"; both are exact where the angle is 0 and the shift whole pixels.
    padding: empty corners become black ("zeros") or mirror the image at its edge ("reflection").
    """
    n, _, height, width = images.shape
    angle = torch.deg2rad(degrees)
    cos, sin = torch.cos(angle), torch.sin(angle)
    dx, dy = shift[:, 0] * 2 / width, shift[:, 1] * 2 / height  # affine_grid measures the image from -1 to 1
    # Output position (x, y) reads the input at R(-angle) ((x, y) - shift), mirrored in x where flipped.
    ratio = height / width
    x_row = torch.stack([cos, -sin * ratio, -cos * dx + sin * ratio * dy], dim=1)
    y_row = torch.stack([sin / ratio, cos, -sin / ratio * dx - cos * dy], dim=1)
    x_row = torch.where(flip[:, None], -x_row, x_row)
    grid = F.affine_grid(torch.stack([x_row, y_row], dim=1), [n, 1, height, width], align_corners=False)
    return F.grid_sample(images, grid, interpolation, padding, align_corners=False)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale (n, 3, h, w) images in [0, 1] by their (n,) factors, clipped to [0, 1]."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    return (images * channelwise(GRAY, images.device)).sum(dim=1, keepdim=True)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move (n, 3, h, w) images in [0, 1] away from (factor > 1) or towards their own mean grey value."""
    mean = _gray(images).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, images, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move (n, 3, h, w) images in [0, 1] away from (factor > 1) or towards their grey version."""
    return torch.lerp(_gray(images), images, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Set one rectangle of each (n, c, h, w) image to 0, the mean colour after normalisation. Boxes in whole pixels."""
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    rows = (y >= top[:, None]) & (y < (top + height)[:, None])
    columns = (x >= left[:, None]) & (x < (left + width)[:, None])
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def draw_boxes(n: int, probability: float, size: int, device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rectangles of Zhong et al. (2020): area 2 to 33 % of the image, log-uniform aspect ratio 0.3 to 3.3.

    Returns top, left, height, width, each (n,) integers; a box that is not drawn, or does not fit, has height 0.
    """
    area = _uniform(n, 0.02, 0.33, device) * size * size
    aspect = torch.exp(_uniform(n, math.log(0.3), math.log(3.3), device))
    height, width = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    drawn = (torch.rand(n, device=device) < probability) & (height < size) & (width < size)
    top = (torch.rand(n, device=device) * (size - height + 1)).long()
    left = (torch.rand(n, device=device) * (size - width + 1)).long()
    return top, left, torch.where(drawn, height, 0), width


def alternating(n: int, probability: float, seed: int, epoch: int) -> Tensor:
    """Which of n images are mirrored in an epoch: (n,) booleans, on the CPU. Epochs count from 1.

    Drawn for the first epoch and inverted for every second one, so that two epochs show every image
    both ways (Jordan 2024). Depends on the arguments alone and draws no global random number.
    """
    first = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < probability
    return first if epoch % 2 else ~first


def geometry(images: Tensor, cfg: TrainConfig, flip: Tensor | None = None) -> Tensor:
    """Random flip, rotation and crop of (n, 3, h, w) images, as strong as `cfg` says.

    flip: (n,) booleans where it is already decided which images are mirrored.
    """
    n, device = len(images), images.device
    if not (cfg.flip or cfg.rotation or cfg.crop_padding):
        return images
    degrees = _uniform(n, -cfg.rotation, cfg.rotation, device)
    shift = torch.randint(-cfg.crop_padding, cfg.crop_padding + 1, (n, 2), device=device).float()
    flip = torch.rand(n, device=device) < cfg.flip if flip is None else flip
    return warp(images, degrees, shift, flip, cfg.interpolation, cfg.padding)


def colour(images: Tensor, cfg: TrainConfig) -> Tensor:
    """Random brightness, contrast and saturation of (n, 3, h, w) images in [0, 1]."""
    if cfg.jitter:
        for change in (brightness, contrast, saturation):
            images = change(images, _uniform(len(images), 1 - cfg.jitter, 1 + cfg.jitter, images.device))
    return images


def erasing(images: Tensor, cfg: TrainConfig) -> Tensor:
    """Random erasing of normalised (n, 3, s, s) images."""
    if cfg.erasing:
        images = erase(images, *draw_boxes(len(images), cfg.erasing, images.shape[-1], images.device))
    return images
