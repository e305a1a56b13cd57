"""Inference, the same five steps everywhere: validation, test, notebooks and the command line."""

import contextlib
import ctypes
import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from helpers.data import CIFAR10_MEAN, CIFAR10_STD


class Prediction(NamedTuple):
    """Logits (n, 10), softmax probabilities (n, 10), predicted classes (n,) and their confidences (n,) in (0, 1]."""

    logits: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc, the C library of most Linux systems, to keep freed memory in pieces of up to 32 MiB.

    It would hand them back at once, and the next batch would ask for them again and wait until the
    system has zeroed them. This holds for the whole process, so only what computes batches calls it.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems do without
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)


def to_unit(images: Tensor) -> Tensor:
    """(n, 32, 32, 3) bytes -> (n, 3, 32, 32) floats in [0, 1], in the channels_last layout."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def normalise(images: Tensor) -> Tensor:
    """Centre and scale each colour channel by the mean and deviation of the CIFAR-10 training pixels."""
    mean, std = _statistics(images)
    return (images - mean) / std


def denormalise(images: Tensor) -> Tensor:
    """The inverse of normalise, for looking at what a network sees: floats in [0, 1] again."""
    mean, std = _statistics(images)
    return (images * std + mean).clamp(0, 1)


def _statistics(images: Tensor) -> list[Tensor]:
    return [channelwise(values, images.device) for values in (CIFAR10_MEAN, CIFAR10_STD)]


@functools.cache
def channelwise(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """One number for each channel as a tensor (1, 3, 1, 1), made once: a CUDA graph can't copy from the host."""
    with torch.inference_mode(False):  # a tensor made in it could not be used where gradients are
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


@torch.inference_mode()
def infer(model: nn.Module, images: np.ndarray, batch_size: int = 100) -> Prediction:
    """Classify (n, 32, 32, 3) uint8 RGB images, in float32 on the device of the model. Leaves it in eval mode.

    Batches of 100 stay in the cache of a CPU: batches of 500 take 1.4 times as long.
    """
    keep_freed_memory()
    device = next(model.parameters()).device
    model.eval()  # dropout off, batch normalisation with its running statistics
    batches = torch.tensor(np.ascontiguousarray(images)).split(batch_size)
    logits = torch.cat([model(normalise(to_unit(batch.to(device)))) for batch in batches])  # 1 preprocess, 2 forward
    probabilities = logits.softmax(dim=1)  # 3 softmax
    labels = probabilities.argmax(dim=1)  # 4 the most probable class
    confidence = probabilities.amax(dim=1)  # 5 its probability
    return Prediction(*(tensor.cpu().numpy() for tensor in (logits, probabilities, labels, confidence)))


def with_mirror(model: nn.Module, images: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The mean (n, 10) of the logits of images, which are given, and of their mirror images.

    Logits rather than probabilities are averaged, so that all scores still follow from logits.
    """
    return (logits + infer(model, images[:, :, ::-1]).logits) / 2
