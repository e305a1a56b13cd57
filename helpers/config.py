"""Names, paths and hyper-parameters."""

import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_type_hints

from helpers.errors import BadInput

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"  # git-ignored: CIFAR-10 as it was downloaded and verified
PUBLISHED = ROOT / "reports" / "runs"  # committed: the runs of profile `full`
EXPERIMENTS = ROOT / "reports" / "experiments"  # committed: histories of all other trainings


def folder(variable: str, default: Path) -> Path:
    """A folder that an environment variable may name, absolute; a relative one starts at ROOT.

    Commands run in ROOT and notebooks in ROOT/notebooks: both must mean the same folder.
    """
    return ROOT / Path(os.environ.get(variable) or default).expanduser()


CACHE = folder("CIFAR10_REPORT_CACHE", ROOT / "cache")  # git-ignored: resume states, unpublished runs

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ANIMALS = (2, 3, 4, 5, 6, 7)
VEHICLES = (0, 1, 8, 9)
NETWORKS = ("BaselineNet", "ImprovedNet", "FastNet")
PAIR = NETWORKS[:2]  # whose comparison is the subject of the report
PROFILES = ("smoke", "quick", "full")
DEVICES = ("auto", "cpu", "cuda", "mps")

TEACHERS: dict[str, tuple[str, "TrainConfig"]] = {}  # network and recipe of each, filled in below

CHOICES = {
    "optimizer": ("sgd", "adamw", "muon"),
    "schedule": ("constant", "cosine", "linear"),
    "interpolation": ("nearest", "bilinear"),
    "padding": ("zeros", "reflection"),
    "flipping": ("random", "alternate"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes, besides the network, the seed and the data.

    Whole numbers given for a float become floats, so that 5 and 5.0 are one setting.
    Raises BadInput, naming the setting, for a value of another type or out of range.
    """

    epochs: int
    batch_size: int  # images a step
    optimizer: str  # "sgd" (momentum 0.9), "adamw" (decoupled weight decay) or "muon" (FastNet)
    peak_lr: float  # learning rate after the warm-up
    weight_decay: float
    schedule: str  # "constant", or "cosine" or "linear" to zero over the whole length
    warmup_epochs: float  # the learning rate rises linearly over these
    crop_padding: int  # pixels: every image is shifted by up to this many, both ways
    flip: float  # probability of a horizontal mirror image
    rotation: float  # degrees: angles are uniform in [-rotation, rotation]
    interpolation: str  # of rotated images: "nearest" (sharp) or "bilinear" (blurs)
    jitter: float  # brightness, contrast and saturation factors are uniform in [1 - jitter, 1 + jitter]
    erasing: float  # probability that a rectangle is erased
    label_smoothing: float  # share of the target that is spread evenly over the classes
    # Settings with a default came later. Records and identities leave them out where they have it,
    # so that older runs keep their names (to_record).
    microbatch: int = 0  # images at a time through the network, 0 for the whole batch
    padding: str = "zeros"  # what a shift brings in: "zeros" (black) or "reflection"
    flipping: str = "random"  # drawn in every epoch, or "alternate": drawn once, then every other epoch
    teacher: str = ""  # one of TEACHERS, whose logits are part of the target
    teacher_share: float = 0.0  # how large a part of the loss is that to the teacher
    temperature: float = 1.0  # that both logits are divided by in this part
    bounded: float = 0.0  # q of the bounded loss (1 - p^q) / q in place of cross-entropy, if more than 0

    def __post_init__(self):
        for field in fields(self):
            value = _cast(field.name, getattr(self, field.name), KINDS[field.name])
            object.__setattr__(self, field.name, value)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise BadInput(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "peak_lr", "temperature"):
            if getattr(self, name) == 0:
                raise BadInput(f"{name} must be more than 0.")
        if self.teacher not in ("", *TEACHERS):
            raise BadInput(f"teacher must be one of {', '.join(TEACHERS)}, or empty, not {self.teacher!r}.")
        if bool(self.teacher) != bool(self.teacher_share):
            raise BadInput("teacher and teacher_share go together: set both, or neither.")
        for name in ("flip", "jitter", "erasing", "label_smoothing", "teacher_share", "bounded"):
            if getattr(self, name) > 1:
                raise BadInput(f"{name} must lie between 0 and 1, not {getattr(self, name)!r}.")
        if self.bounded and self.label_smoothing:
            raise BadInput("the bounded loss knows no label smoothing: set bounded or label_smoothing to 0.")


KINDS = get_type_hints(TrainConfig)


def _cast(name: str, value, kind: type):
    """The value of a setting in the type of its field."""
    if kind is str and isinstance(value, str):
        return value
    if kind is str or isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{name} must be of type {kind.__name__}, not {value!r}.")
    if not 0 <= value <= 1e6:
        raise BadInput(f"{name} must lie between 0 and a million, not {value!r}.")
    if kind is int and value != int(value):
        raise BadInput(f"{name} must be a whole number, not {value!r}.")
    return kind(value)


# The baseline is small and plain but trained with care: a baseline trained badly would flatter the
# comparison.
BASELINE = TrainConfig(
    epochs=40,
    batch_size=64,
    optimizer="sgd",
    peak_lr=0.02,
    weight_decay=0.0005,
    schedule="cosine",
    warmup_epochs=1,
    crop_padding=2,
    flip=0.5,
    rotation=0,
    interpolation="nearest",
    jitter=0,
    erasing=0,
    label_smoothing=0,
)

# Rotation by the nearest pixel and label smoothing come from the trials of `make search`.
# Augmentation is mild: the network is short of steps rather than over-fitted.
IMPROVED = TrainConfig(
    epochs=125,
    batch_size=64,
    optimizer="adamw",
    peak_lr=0.002,
    weight_decay=0.05,
    schedule="cosine",
    warmup_epochs=2,
    crop_padding=4,
    flip=0.5,
    rotation=5,
    interpolation="nearest",
    jitter=0.1,
    erasing=0.2,
    label_smoothing=0.05,
)

# The recipe of airbench with Muon (Jordan 2024), in batches half as large and so in twice as many
# steps. Pieces of 125 images stay in a CPU's cache. The weight decay is that of one image.
FAST = TrainConfig(
    epochs=9,
    batch_size=1000,
    optimizer="muon",
    peak_lr=0.24,
    weight_decay=2e-6,
    schedule="linear",
    warmup_epochs=0,
    crop_padding=2,
    flip=0.5,
    rotation=0,
    interpolation="nearest",
    jitter=0,
    erasing=0,
    label_smoothing=0.2,
    microbatch=125,
    padding="reflection",
    flipping="alternate",
)

# Networks that teach another, and their recipes. The published FastNet is one of them; the others train longer, two
# of them not towards smoothed labels, which make a teacher tell less about the other classes (Mueller et al. 2019).
LONGER = replace(FAST, epochs=24)
HARD = replace(LONGER, label_smoothing=0.0)
LIKE_PUPIL = {name: getattr(IMPROVED, name) for name in ("crop_padding", "rotation", "jitter", "erasing", "padding")}
TEACHERS.update(
    {
        "FastNet": ("FastNet", FAST),
        "longer": ("FastNet", LONGER),
        "hard": ("FastNet", HARD),
        "augmented": ("FastNet", replace(HARD, **LIKE_PUPIL)),
    }
)

RECIPES = dict(zip(NETWORKS, (BASELINE, IMPROVED, FAST), strict=True))
# About a quarter of an hour on two cores, most of it for FastNet.
QUICK_EPOCHS = {"BaselineNet": 10, "ImprovedNet": 5, "FastNet": 5}
SMOKE_EPOCHS = 2


def train_config(network: str, profile: str, **changes) -> TrainConfig:
    """The hyper-parameters of one network under one profile, with `changes` to single settings.

    Raises BadInput for an unknown network, profile or setting, or a value out of range.
    """
    for what, value, allowed in (("network", network, tuple(RECIPES)), ("profile", profile, PROFILES)):
        if value not in allowed:
            raise BadInput(f"unknown {what} {value!r}: choose one of {', '.join(allowed)}.")
    names = [field.name for field in fields(TrainConfig)]
    for name in changes:
        if name not in names:
            raise BadInput(f"unknown setting {name!r}: choose from {', '.join(names)}.")
    recipe = RECIPES[network]
    epochs = {"full": recipe.epochs, "quick": QUICK_EPOCHS[network], "smoke": SMOKE_EPOCHS}[profile]
    cfg = replace(recipe, **{"epochs": epochs, **changes})
    return replace(cfg, warmup_epochs=min(cfg.warmup_epochs, cfg.epochs / 4))


# Runs recorded until 24 November 2026 call peak_lr "peak_rate", and their names are digests of that.
OLD_NAMES = {"peak_lr": "peak_rate"}


def to_record(cfg: TrainConfig) -> dict:
    """The settings as a run's record and name hold them: old names, and nothing that is at its default.

    A whole number of warm-up epochs has no fraction, as in older records.
    """
    settings = asdict(cfg)
    for field in fields(cfg):
        if settings[field.name] == field.default:
            del settings[field.name]
    if cfg.warmup_epochs.is_integer():
        settings["warmup_epochs"] = int(cfg.warmup_epochs)
    return {OLD_NAMES.get(name, name): value for name, value in settings.items()}


def from_record(settings: dict) -> TrainConfig:
    """The settings of a stored run. Raises BadInput or TypeError if they are not those of this version."""
    new_names = {old: new for new, old in OLD_NAMES.items()}
    return TrainConfig(**{new_names.get(name, name): value for name, value in settings.items()})
