"""Names, paths and hyper-parameters. Imports next to nothing of ours, so that everything may import it."""

import os
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

from helpers.command import BadInput

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("CIFAR10_REPORT_CACHE", ROOT / "cache"))  # git-ignored: resume states, unpublished runs
PUBLISHED = ROOT / "reports" / "runs"  # committed: the runs of profile `full`
EXPERIMENTS = ROOT / "reports" / "experiments"  # committed: the runs of helpers/experiments.py, without weights

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ANIMALS = (2, 3, 4, 5, 6, 7)
NETWORKS = ("BaselineNet", "ImprovedNet")
PROFILES = ("smoke", "quick", "full")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes, besides the network, the seed and the data."""

    epochs: int
    batch_size: int  # images a step
    optimizer: str  # "sgd" (momentum 0.9), "adamw" (decoupled weight decay) or "muon" (FastNet)
    peak_rate: float  # learning rate after the warm-up
    weight_decay: float
    schedule: str  # "constant", or "cosine" or "linear" to zero over the whole length
    warmup_epochs: float  # the rate rises linearly over these
    crop_padding: int  # pixels: every image is shifted by up to this many, both ways
    flip: float  # probability of a horizontal mirror image
    rotation: float  # degrees: angles are uniform in [-rotation, rotation]
    interpolation: str  # of rotated images: "nearest" (sharp) or "bilinear" (blurs)
    jitter: float  # brightness, contrast and saturation factors are uniform in [1 - jitter, 1 + jitter]
    erasing: float  # probability that a rectangle is erased
    label_smoothing: float  # share of the target that is spread evenly over the classes
    # Settings with a default came later. A run's record and identity leave them out at it, so that
    # older runs keep their names (stored_settings).
    microbatch: int = 0  # images at a time through the network, 0 for the whole batch
    padding: str = "zeros"  # what a shift brings in: "zeros" (black) or "reflection"
    flipping: str = "random"  # in every epoch, or "alternate": drawn once, then every other one

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = (int, float) if field.type is float else field.type
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise BadInput(f"{field.name} must be of type {field.type.__name__}, not {value!r}.")
            if not isinstance(value, str) and not 0 <= value <= 1e6:
                raise BadInput(f"{field.name} must lie between 0 and a million, not {value!r}.")
        choices = {"optimizer": ("sgd", "adamw", "muon"),
                   "schedule": ("constant", "cosine", "linear"),
                   "interpolation": ("nearest", "bilinear"), "padding": ("zeros", "reflection"),
                   "flipping": ("random", "alternate")}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise BadInput(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "peak_rate"):
            if getattr(self, name) == 0:
                raise BadInput(f"{name} must be more than 0.")
        for name in ("flip", "jitter", "erasing", "label_smoothing"):
            if getattr(self, name) > 1:
                raise BadInput(f"{name} must lie between 0 and 1, not {getattr(self, name)!r}.")


# The baseline is small and plain but trained with care: a baseline trained badly would flatter the comparison.
BASELINE = TrainConfig(
    epochs=40, batch_size=64, optimizer="sgd", peak_rate=0.02, weight_decay=0.0005, schedule="cosine",
    warmup_epochs=1, crop_padding=2, flip=0.5, rotation=0.0, interpolation="nearest", jitter=0.0, erasing=0.0,
    label_smoothing=0.0,
)  # fmt: skip

# Rotation by the nearest pixel and label smoothing come from the trials of `make search`. Augmentation is mild: the
# network is short of steps rather than over-fitted.
IMPROVED = TrainConfig(
    epochs=125, batch_size=64, optimizer="adamw", peak_rate=0.002, weight_decay=0.05, schedule="cosine",
    warmup_epochs=2, crop_padding=4, flip=0.5, rotation=5.0, interpolation="nearest", jitter=0.1, erasing=0.2,
    label_smoothing=0.05,
)  # fmt: skip

# The recipe of K. Jordan's airbench (2024) with Muon, in batches half as large and so in twice as
# many steps. Pieces of 125 images stay in a CPU's cache. The weight decay is that of an image.
FAST = TrainConfig(
    epochs=9, batch_size=1000, optimizer="muon", peak_rate=0.24, weight_decay=2e-6,
    schedule="linear", warmup_epochs=0, crop_padding=2, flip=0.5, rotation=0.0,
    interpolation="nearest", jitter=0.0, erasing=0.0, label_smoothing=0.2,
    microbatch=125, padding="reflection", flipping="alternate",
)  # fmt: skip

PRESETS = {"BaselineNet": BASELINE, "ImprovedNet": IMPROVED, "FastNet": FAST,
           "FastNetSmall": replace(FAST, epochs=6)}  # fmt: skip
QUICK_EPOCHS = {"BaselineNet": 10, "ImprovedNet": 7, "FastNet": 3, "FastNetSmall": 3}


def stored_settings(config: TrainConfig) -> dict:
    """The settings as a run's record and identity hold them: without those at their default."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {field.name: values[field.name] for field in fields(config)
            if field.default is MISSING or values[field.name] != field.default}  # fmt: skip


def train_config(network: str, profile: str, **changes) -> TrainConfig:
    """The hyper-parameters of one network under one profile, with `changes` to single fields on top.

    Raises BadInput for an unknown network, profile or field, or a value out of range.
    """
    for what, value, allowed in (("network", network, PRESETS), ("profile", profile, PROFILES)):
        if value not in allowed:
            raise BadInput(f"unknown {what} {value!r}: choose one of {', '.join(allowed)}.")
    unknown = set(changes) - {field.name for field in fields(TrainConfig)}
    if unknown:
        allowed = ", ".join(field.name for field in fields(TrainConfig))
        raise BadInput(f"unknown hyper-parameter {sorted(unknown)[0]!r}: choose from {allowed}.")
    full = PRESETS[network]
    epochs = {"full": full.epochs, "quick": QUICK_EPOCHS[network], "smoke": 2}[profile]
    wanted = replace(full, **{"epochs": epochs, **changes})
    return replace(wanted, warmup_epochs=min(wanted.warmup_epochs, wanted.epochs / 4))
