"""How networks fare on images that are not as they were in training."""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import metrics
from helpers.analysis import corruptions
from helpers.data import Part
from helpers.inference import infer, normalise, to_unit

# What is taken away or changed: key, unit, strengths, function of images and strength.
PROBES = (
    ("colour", "", (0,), lambda images, _: corruptions.grey(images)),
    ("shape", "tiles a side", (2, 4), corruptions.patch_shuffle),
    ("pose", "degrees", (10, 20, 30), corruptions.rotate),
    ("place", "pixels", (2, 4, 8), lambda images, pixels: corruptions.shift(images, pixels, pixels)),
    ("square", "pixels a side", (8, 12, 16), corruptions.occlude),
)
CUES = {"nothing": "nothing"} | {  # key: title
    f"{key}_{strength}" if strength else key: f"{key}, {strength} {unit}" if strength else key
    for key, unit, strengths, _ in PROBES
    for strength in strengths
}

DIRECTIONS = {"right and down": (1, 1), "right and up": (1, -1), "left and down": (-1, 1), "left and up": (-1, -1)}
ROTATIONS = {  # title: change. Rotation by interpolation also blurs, as the last one does alone
    "rotated by 5 degrees, bilinear": lambda images: corruptions.rotate(images, 5),
    "rotated by 5 degrees, nearest": lambda images: corruptions.rotate(images, 5, "nearest"),
    "rotated by 10 degrees, bilinear": lambda images: corruptions.rotate(images, 10),
    "rotated by 10 degrees, nearest": lambda images: corruptions.rotate(images, 10, "nearest"),
    "moved by half a pixel, bilinear": lambda images: corruptions.shift(images, 0.5, 0.5),
}
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")
BANDS = ((0, 4), (4, 8), (8, 12), (12, 16))  # cycles an image
RMS = 0.06  # of the noise in each of them, as a share of white
HARMS = {"as they are": lambda images: images} | {  # title: change
    f"noise, {low} to {high} cycles": lambda images, low=low, high=high: corruptions.band_noise(images, low, high, RMS)
    for low, high in BANDS
}
HARMS |= {
    name.replace("_", " "): lambda images, name=name: corruptions.corrupt(images, name, 5)
    for name in corruptions.CORRUPTIONS
}
DETAIL = {  # title: change
    "as they are": lambda images: images,
    "no detail above 8 cycles": lambda images: corruptions.low_pass(images, 8),
    "half the resolution": corruptions.half_resolution,
}


def under_corruption(
    networks: dict[str, nn.Module], part: Part, correct: dict[str, Callable[[np.ndarray], np.ndarray]]
) -> pd.DataFrame:
    """Rows of network, corruption, severity, accuracy and ece: every corruption of CIFAR-10-C's kind, severity 0 to 5.

    Severity 0 is the images as they are. ece_corrected is the ece of the corrected logits; correct: a
    function of logits for each network.
    """
    clean = list(_scores(networks, part.images, part.labels, correct))
    rows = []
    for name in corruptions.CORRUPTIONS:
        rows += [{"corruption": name, "severity": 0, **scores} for scores in clean]
        for severity in range(1, 6):
            images = corruptions.corrupt(part.images, name, severity)
            scored = _scores(networks, images, part.labels, correct)
            rows += [{"corruption": name, "severity": severity, **scores} for scores in scored]
    return pd.DataFrame(rows)


def at_highest_severity(model: nn.Module, part: Part) -> dict[str, float]:
    """The accuracy under each corruption at severity 5, by its name."""
    found = {}
    for name in corruptions.CORRUPTIONS:
        logits = infer(model, corruptions.corrupt(part.images, name, 5)).logits
        found[name] = metrics.accuracy(logits, part.labels)
    return found


def without_cues(networks: dict[str, nn.Module], part: Part) -> pd.DataFrame:
    """Rows of network, cue (a key of CUES, such as "pose_20"), accuracy and ece: images with one cue changed.

    Colour to grey; shape by shuffled tiles; pose by rotation; place by a shift right and down; a covered square.
    """
    rows = [{"cue": "nothing", **scores} for scores in _scores(networks, *part)]
    for key, _, strengths, change in PROBES:
        for strength in strengths:
            scored = _scores(networks, change(part.images, strength), part.labels)
            rows += [{"cue": f"{key}_{strength}" if strength else key, **scores} for scores in scored]
    return pd.DataFrame(rows)


def under_shifts(networks: dict[str, nn.Module], part: Part, pixels: tuple[int, ...] = (4, 8)) -> pd.DataFrame:
    """Rows of network, pixels, margins (black or reflected), direction (a key of DIRECTIONS) and accuracy."""
    rows = []
    for distance in pixels:
        for margins in ("black", "reflected"):
            for direction, (x, y) in DIRECTIONS.items():
                images = corruptions.shift(part.images, x * distance, y * distance, margins)
                found = {"pixels": distance, "margins": margins, "direction": direction}
                rows += [found | scores for scores in _scores(networks, images, part.labels)]
    return pd.DataFrame(rows).drop(columns="ece")


def under_rotation(networks: dict[str, nn.Module], part: Part) -> pd.DataFrame:
    """Accuracies under ROTATIONS, a row a change, a column a network."""
    changes = {"as they are": lambda images: images} | ROTATIONS
    return pd.DataFrame(
        {title: _accuracies(networks, change(part.images), part.labels) for title, change in changes.items()}
    ).T


def shape_against_place(networks: dict[str, nn.Module], part: Part) -> dict[str, dict[str, np.ndarray]]:
    """Which images (n,) each network gets right: as they are, with 4 x 4 tiles "shuffled", and with all tiles "moved".

    Moved ones are as far from their places, but each is still among its neighbours.
    """
    changes = {
        "nothing": part.images,
        "shuffled": corruptions.patch_shuffle(part.images, 4),
        "moved": corruptions.move_tiles(part.images, 4),
    }
    return {
        change: {name: infer(model, images).labels == part.labels for name, model in networks.items()}
        for change, images in changes.items()
    }


def renewed(model: nn.Sequential, images: np.ndarray, batch_size: int = 100) -> nn.Sequential:
    """A copy, in eval mode, whose batch normalisation has its means and variances from these images, without labels.

    images: (n, 32, 32, 3) uint8 RGB. After Schneider et al. (2020). A network without batch normalisation stays as it
    is.
    """
    adapted = copy.deepcopy(model)
    batches = (normalise(to_unit(batch)) for batch in torch.tensor(images).split(batch_size))
    with torch.random.fork_rng(devices=[]):  # dropout draws random numbers, after all normalisation
        torch.optim.swa_utils.update_bn(batches, adapted)
    return adapted.eval()


def gain_by_band(weights: np.ndarray) -> list[float]:
    """How much of the power of noise in each of BANDS passes kernels (out, in, k, k): the square of their spectrum.

    It is summed over the input channels, whose noise is independent, and averaged over kernels and frequencies.
    """
    spectrum = np.fft.fft2(weights, s=(corruptions.SIZE, corruptions.SIZE))
    power = (np.abs(spectrum) ** 2).sum(axis=1).mean(axis=0)
    return [float(power[corruptions.in_band(low, high)].mean()) for low, high in BANDS]


def with_renewed_statistics(networks: dict[str, nn.Sequential], part: Part, name: str) -> pd.DataFrame:
    """Accuracies under HARMS on the first half of the images, a row a change, a column a network.

    The column "renewed" is the network of this name with the statistics of the other half, harmed alike.
    """
    half, rows = len(part.labels) // 2, {}
    for title, change in HARMS.items():
        images = change(part.images)
        every: dict[str, nn.Module] = {**networks, "renewed": renewed(networks[name], images[half:])}
        rows[title] = _accuracies(every, images[:half], part.labels[:half])
    return pd.DataFrame(rows).T


def without_detail(networks: dict[str, nn.Sequential], part: Part, groups: dict[str, Sequence[int]]) -> pd.DataFrame:
    """What two networks read of images without fine detail: a row a key of DETAIL and a group of classes.

    groups: titles and classes; no class outside its group may be the answer to an image. Columns: the accuracy of each
    network; lead, of the second over the first; change, of this lead against that on the images as they are, with the
    ends low and high of its 95 % interval (bootstrap over images). All answers are of statistics_of_others.
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    at_first: dict[str, np.ndarray] = {}
    for title, change in DETAIL.items():
        images = change(part.images)
        logits = {name: statistics_of_others(model, images) for name, model in networks.items()}
        for group, classes in groups.items():
            right = {name: metrics.right_among(z, part.labels, classes).astype(float) for name, z in logits.items()}
            first, second = right.values()
            change_of_lead = second - first - at_first.setdefault(group, second - first)
            low, high = np.quantile(metrics.resampled_means(change_of_lead[:, None]), [0.025, 0.975])
            means = {name: each.mean() for name, each in right.items()}
            lead = {"lead": (second - first).mean(), "change": change_of_lead.mean(), "low": low, "high": high}
            rows[title, group] = means | lead
    return pd.DataFrame(rows).T.rename_axis(["images", "group"])


def statistics_of_others(model: nn.Sequential, images: np.ndarray) -> np.ndarray:
    """Logits (n, 10) of images, each half of them with the statistics of the other half (renewed)."""
    half = len(images) // 2
    halves = images[:half], images[half:]
    return np.concatenate([infer(renewed(model, other), each).logits for each, other in (halves, halves[::-1])])


def _accuracies(networks: dict[str, nn.Module], images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {scores["network"]: scores["accuracy"] for scores in _scores(networks, images, labels)}


def _scores(
    networks: dict[str, nn.Module],
    images: np.ndarray,
    labels: np.ndarray,
    correct: dict[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> Iterator[dict]:
    for name, model in networks.items():
        logits = infer(model, images).logits
        row = {"network": name, "accuracy": metrics.accuracy(logits, labels), "ece": metrics.ece(logits, labels)}
        yield row | ({"ece_corrected": metrics.ece(correct[name](logits), labels)} if correct else {})
