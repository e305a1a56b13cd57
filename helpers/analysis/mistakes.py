"""Mistakes that are easy to make when a network is measured, each made on purpose to see what it costs."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers import train
from helpers.config import TrainConfig
from helpers.data import CIFAR10_MEAN, Part
from helpers.inference import infer, normalise, to_unit

SHORTCUT_STD = (0.2023, 0.1994, 0.2010)  # mean of the deviations within single images, often taken for CIFAR-10's


FILE_IMAGES = 50_000  # in the training file, of which the validation images are a tenth

TITLES = {
    "summed_loss": "summed loss divided by the 50,000 images of the file, not by those seen",
    "augmented": "images augmented as in training",
    "shortcut_std": "normalised by the deviations within images",
    "training_mode": "network left in training mode",
    "luckiest_epoch": "luckiest epoch instead of one fixed in advance, the last",
}


def measure_mistakes(
    model: nn.Module, history: pd.DataFrame, part: Part, cfg: TrainConfig, seed: int = 0
) -> pd.DataFrame:
    """One row a mistake, by its key: `quantity`, and its value when measured `correctly` and `mistakenly`.

    part: the validation images, n of them; cfg: the training configuration, for its augmentation; history: one row
    an epoch. Leaves the model in eval mode with its own statistics.
    """
    labels = torch.from_numpy(part.labels).long()
    right = infer(model, part.images)
    loss = nn.functional.cross_entropy(torch.from_numpy(right.logits), labels).item()
    accuracy = float((right.labels == part.labels).mean())
    torch.manual_seed(seed)
    augmented = train.training_batch(torch.from_numpy(part.images), cfg)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR10_MEAN, SHORTCUT_STD))
    shortcut = (to_unit(torch.from_numpy(part.images)) - mean) / std
    last, luckiest = float(history["validation_accuracy"].iloc[-1]), float(history["validation_accuracy"].max())
    rows = [
        ("summed_loss", "loss", loss, loss * len(labels) / FILE_IMAGES),
        ("augmented", "accuracy", accuracy, _accuracy(model, augmented, labels)),
        ("shortcut_std", "accuracy", accuracy, _accuracy(model, shortcut, labels)),
        ("training_mode", "accuracy", accuracy, _in_training_mode(model, part, seed)),
        ("luckiest_epoch", "accuracy", last, luckiest),
    ]
    return pd.DataFrame(rows, columns=["key", "quantity", "correctly", "mistakenly"]).set_index("key")


@torch.inference_mode()
def _accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Accuracy on normalised images (n, 3, 32, 32), in the mode that the model is in."""
    answers = [model(batch.contiguous(memory_format=torch.channels_last)).argmax(dim=1) for batch in x.split(500)]
    return float((torch.cat(answers) == labels).float().mean())


def _in_training_mode(model: nn.Module, part: Part, seed: int) -> float:
    """Accuracy with dropout on and batch normalisation by the statistics of each batch of 500."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # the running averages move too
    torch.manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(part.labels))
    x = normalise(to_unit(torch.from_numpy(part.images[order])))
    accuracy = _accuracy(model.train(), x, torch.from_numpy(part.labels[order]).long())
    model.load_state_dict(before)
    model.eval()
    return accuracy
