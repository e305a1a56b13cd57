"""How networks fare on images that are not as they were in training."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch import nn

from helpers import metrics
from helpers.analysis import corruptions
from helpers.data import Part
from helpers.inference import infer

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


def under_corruption(networks: dict[str, nn.Module], part: Part) -> pd.DataFrame:
    """Rows of network, corruption, severity, accuracy and ece: every corruption of CIFAR-10-C's kind, severity 0 to 5.

    Severity 0 is the images as they are.
    """
    clean = list(_scores(networks, part.images, part.labels))
    rows = []
    for name in corruptions.CORRUPTIONS:
        rows += [{"corruption": name, "severity": 0, **scores} for scores in clean]
        for severity in range(1, 6):
            images = corruptions.corrupt(part.images, name, severity)
            scored = _scores(networks, images, part.labels)
            rows += [{"corruption": name, "severity": severity, **scores} for scores in scored]
    return pd.DataFrame(rows)


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


def _scores(networks: dict[str, nn.Module], images: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    for name, model in networks.items():
        logits = infer(model, images).logits
        yield {"network": name, "accuracy": metrics.accuracy(logits, labels), "ece": metrics.ece(logits, labels)}
