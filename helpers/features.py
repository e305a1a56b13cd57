"""What the features of each stage are worth, by a linear probe."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.data import Part
from helpers.inference import normalise, to_unit

GRID = 4  # features are averaged over a grid of at most this many places a side


@torch.inference_mode()
def stage_features(model: nn.Sequential, images: np.ndarray, batch_size: int = 500) -> list[np.ndarray]:
    """Features of (n, 32, 32, 3) uint8 images as they are and after each max-pooling, each (n, channels x places)."""
    model.eval()
    collected = []
    for batch in torch.from_numpy(np.ascontiguousarray(images)).split(batch_size):
        x = normalise(to_unit(batch))
        stages = [x]
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                stages.append(x)
        pooled = [F.adaptive_avg_pool2d(maps, min(GRID, maps.shape[-1])).flatten(1).numpy() for maps in stages]
        collected.append(pooled)
    return [np.concatenate(parts) for parts in zip(*collected, strict=True)]


def linear_probe(model: nn.Sequential, training: Part, held_out: Part) -> dict[str, float]:
    """Held-out accuracy of a linear classifier on the "pixels" and on the features after "stage_1", "stage_2", ...

    After Alain and Bengio (2017), but by ridge regression to the ten classes on standardised features, which is faster
    than a softmax.
    """
    fitted_on, scored_on = stage_features(model, training.images), stage_features(model, held_out.images)
    probes = (make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0)) for _ in fitted_on)
    accuracies = [float(probe.fit(fit, training.labels).score(score, held_out.labels))
                  for probe, fit, score in zip(probes, fitted_on, scored_on, strict=True)]  # fmt: skip
    return {f"stage_{i}" if i else "pixels": accuracy for i, accuracy in enumerate(accuracies)}
