"""`make search`, `seeds`, `ablation`, ...: lists of trainings, side by side, kept without their weights.

What is stored is not trained again, and what was interrupted goes on after its last finished epoch.
joblib runs the trials in processes of this machine or, with --cluster, on the workers of a Dask
cluster; what a worker finds travels back, so the machines need not share a disk. (Without a shared
cache folder, an interrupted trial goes on only if the machine that began it takes it up again.)

A finished experiment keeps its definition beside its results, in experiment.json. So editing a
recipe in config.py changes what the next training does, not what the stored ones are read as.
"""

import argparse
import contextlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch

from helpers import config, data, files, inference, metrics, runs, train
from helpers.analysis import robustness
from helpers.config import BASELINE, IMPROVED, TrainConfig
from helpers.data import Part
from helpers.errors import Problem, exit_cleanly


class Trial(NamedTuple):
    """One training. Trials with the same key differ only in their seeds; the title is for readers."""

    key: str
    title: str
    network: str
    cfg: TrainConfig
    seed: int


class Experiment(NamedTuple):
    """Trials on the first `images` training images of a profile, with or without keeping logits."""

    trials: list[Trial]
    images: int = 45_000
    keep_logits: bool = False  # of the validation and test images
    profile: str = "full"
    classes: tuple[int, ...] = ()  # to train and validate on images of these alone; all if empty
    wrong_labels: float = 0.0  # share of the training images whose label is drawn from the other classes
    imbalance: float = 1.0  # how many times as many training images the first class has as the last


# Seed 0 of BaselineNet is the published run; ImprovedNet is repeated, seed 0 too, at a length that three runs allow.
REPEATED = replace(IMPROVED, epochs=15)
SEEDS = Experiment(
    [
        *(Trial("BaselineNet", "BaselineNet", "BaselineNet", BASELINE, seed) for seed in range(1, 5)),
        *(Trial("ImprovedNet", "ImprovedNet", "ImprovedNet", REPEATED, seed) for seed in range(3)),
    ],
    keep_logits=True,
)

SHORT = replace(IMPROVED, epochs=10)
NO_AUGMENTATION: dict[str, Any] = {"crop_padding": 0, "flip": 0.0, "rotation": 0.0, "jitter": 0.0, "erasing": 0.0}
NO_SMOOTHING: dict[str, Any] = {"label_smoothing": 0.0}
FLIPS_CROPS = {"rotation": 0.0, "jitter": 0.0, "erasing": 0.0}
# AdamW's rate and decay mean something else to SGD.
SGD: dict[str, Any] = {"optimizer": "sgd", "peak_lr": 0.05, "weight_decay": 0.0005}
ABLATION = Experiment(
    [
        Trial(key, title, network, replace(SHORT, **changes), seed)
        for key, title, network, changes in (
            ("recipe", "the full recipe", "ImprovedNet", {}),
            ("no_batch_norm", "without batch normalisation", "NoBatchNorm", {}),
            ("no_dropout", "without dropout", "NoDropout", {}),
            ("no_augmentation", "without augmentation", "ImprovedNet", NO_AUGMENTATION),
            ("flips_crops", "flips and shifts only", "ImprovedNet", FLIPS_CROPS),
            ("no_weight_decay", "without weight decay", "ImprovedNet", {"weight_decay": 0.0}),
            ("sgd", "SGD for AdamW", "ImprovedNet", SGD),
            ("constant_lr", "constant learning rate for cosine", "ImprovedNet", {"schedule": "constant"}),
            ("default_init", "PyTorch's initialisation for Kaiming's", "DefaultInit", {}),
            ("half_width", "half the channels", "HalfWidth", {}),
        )
        for seed in range(3)
    ],
    images=10_000,
)

# What augmentation teaches: recipes of the ablation, and what is changed in the images they are tried on.
AUGMENTATIONS = ["recipe", "flips_crops", "no_augmentation"]
CUES = ["nothing", "pose_10", "pose_20", "place_4", "place_8", "square_12", "colour"]

# How the recipe was found, from this start. Half of the images at this length bring over-fitting into view, as the full
# length does; all trials cost the same.
START = replace(IMPROVED, epochs=20, interpolation="bilinear", label_smoothing=0.0)
SHARP = replace(START, interpolation="nearest")
NO_ROTATION = replace(SHARP, rotation=0.0)
SEARCH = Experiment(
    [
        Trial("bilinear", "start: rotations interpolated", "ImprovedNet", START, 0),
        Trial("nearest", "rotations by the nearest pixel", "ImprovedNet", SHARP, 0),
        Trial("no_rotation", "... and no rotations", "ImprovedNet", NO_ROTATION, 0),
        Trial("smoothing_10", "... and label smoothing 0.1", "ImprovedNet", replace(SHARP, label_smoothing=0.1), 0),
        Trial("smoothing_05", "... and label smoothing 0.05", "ImprovedNet", replace(SHARP, label_smoothing=0.05), 0),
    ],
    images=22_500,
)

# What the recipe does and what the architecture does: every architecture with both recipes. From BaselineNet to
# ImprovedNet one thing changes at a time: the size, the layers, batch normalisation, dropout. Seed 0 of the two
# networks with their own recipes are the published runs, and SEEDS has other seeds of BaselineNet.
ARCHITECTURES = {
    "BaselineNet": "BaselineNet",
    "WideBaseline": "BaselineNet, four times as wide",
    "ConvolutionsAlone": "ImprovedNet without batch normalisation and dropout",
    "NoDropout": "ImprovedNet without dropout",
    "ImprovedNet": "ImprovedNet",
    "QuarterWidth": "ImprovedNet, a quarter as wide",
}
DESIGN = Experiment(
    [
        Trial(f"{network}, {owner}", f"{title}, recipe of {owner}", network, cfg, seed)
        for network, title in ARCHITECTURES.items()
        for owner, cfg in (("BaselineNet", BASELINE), ("ImprovedNet", IMPROVED))
        for seed in range(3)
        if network != owner or (network == "ImprovedNet" and seed > 0)
    ],
    keep_logits=True,
)

# Shifts by up to 4 pixels, as in the recipe of ImprovedNet.
SHIFTED = replace(BASELINE, crop_padding=4)
SHIFTS = Experiment(
    [Trial("shifted_baseline", "BaselineNet, shifts of 4 pixels", "BaselineNet", SHIFTED, seed) for seed in range(3)],
    keep_logits=True,
)

# The parts of the recipe at its full length, on all images. DESIGN has the recipe itself, and without dropout.
LONG = Experiment(
    [
        Trial(key, title, network, replace(IMPROVED, **changes), seed)
        for key, title, network, changes in (
            ("no_batch_norm", "without batch normalisation", "NoBatchNorm", {}),
            ("no_augmentation", "without augmentation", "ImprovedNet", NO_AUGMENTATION),
            ("no_smoothing", "without label smoothing", "ImprovedNet", NO_SMOOTHING),
        )
        for seed in (0, 1)
    ],
    keep_logits=True,
)

# What in the recipe of ImprovedNet helps: between that of BaselineNet and its own, both in DESIGN, a group of settings
# changes at a time. First augmentation and label smoothing, then the optimiser, and last the length.
WITH_SGD: dict[str, Any] = {name: getattr(BASELINE, name) for name in ("optimizer", "peak_lr", "weight_decay")}
FORTY = replace(IMPROVED, epochs=40)
RECIPE = Experiment(
    [
        Trial(key, title, "ImprovedNet", cfg, seed)
        for key, title, cfg in (
            ("forty_sgd", "ImprovedNet, 40 epochs, SGD", replace(FORTY, **WITH_SGD)),
            ("forty", "ImprovedNet, 40 epochs", FORTY),
        )
        for seed in range(2)
    ],
    keep_logits=True,
)

# Labels of the training images that are wrong on purpose: cross-entropy and a bounded loss.
PLAIN_LOSS = replace(IMPROVED, epochs=40, label_smoothing=0.0)
WRONG_LABELS = Experiment(
    [
        Trial(key, title, "ImprovedNet", cfg, seed)
        for key, title, cfg in (
            ("cross_entropy", "cross-entropy", PLAIN_LOSS),
            ("bounded", "bounded loss", replace(PLAIN_LOSS, bounded=0.7)),
        )
        for seed in range(2)
    ],
    keep_logits=True,
    wrong_labels=0.4,
)

# Fewer and fewer training images from class to class, a hundred times as many of the first as of the last.
RARE = Experiment(
    [Trial("rare", "ImprovedNet on classes of unequal size", "ImprovedNet", IMPROVED, seed) for seed in range(2)],
    keep_logits=True,
    imbalance=100,
)

# Which teacher, how much of it and how soft: short trainings of ImprovedNet, compared on the validation images.
TAUGHT_SHORT = replace(IMPROVED, epochs=25)
TEACHING = Experiment(
    [
        Trial("alone", "without a teacher", "ImprovedNet", TAUGHT_SHORT, 0),
        *(
            Trial(
                f"{teacher}_{100 * share:.0f}_{temperature}",
                f"{teacher}, share {share}, temperature {temperature}",
                "ImprovedNet",
                replace(TAUGHT_SHORT, teacher=teacher, teacher_share=share, temperature=temperature),
                0,
            )
            for teacher in config.TEACHERS
            for share in (0.5, 0.9)
            for temperature in (1, 4)
        ),
    ]
)

# The best of these at full length, and the teachers that were trained for them.
TAUGHT = Experiment(
    [
        *(
            Trial(
                "taught",
                "ImprovedNet, taught by FastNet",
                "ImprovedNet",
                replace(IMPROVED, teacher="FastNet", teacher_share=0.9, temperature=4),
                seed,
            )
            for seed in (0, 1)
        ),
        Trial("hard", "FastNet, 24 epochs without label smoothing", *config.TEACHERS["hard"], 0),
        Trial("augmented", "the same with the augmentation of ImprovedNet", *config.TEACHERS["augmented"], 0),
    ],
    keep_logits=True,
)

# How far accuracy comes for how much arithmetic: the modern recipe at several lengths, the longest of each from five
# seeds.
FRONTIER = Experiment(
    [
        Trial(f"{network}_{epochs}", f"{network}, {epochs} epochs", network, replace(config.FAST, epochs=epochs), seed)
        for network, epochs, seeds in (
            ("FastNet", 24, 1),
            ("FastNet", 16, 5),
            ("FastNet", 9, 5),
            ("FastNet", 5, 1),
            ("FastNet", 3, 1),
            ("FastNetSmall", 6, 5),
            ("FastNetSmall", 4, 1),
            ("FastNetSmall", 2, 1),
        )
        for seed in range(seeds)
    ],
    keep_logits=True,
)

# Who decides between cats and dogs alone, the pair that is confused most.
SPECIALIST = Experiment(
    [Trial("cat_dog", "ImprovedNet, trained on cats and dogs alone", "ImprovedNet", IMPROVED, 0)],
    keep_logits=True,
    classes=(config.CLASSES.index("cat"), config.CLASSES.index("dog")),
)

# Label smoothing alone, at the length of the repeated trainings.
SMOOTHING = Experiment(
    [
        Trial("no_smoothing", "without label smoothing", "ImprovedNet", replace(REPEATED, **NO_SMOOTHING), seed)
        for seed in range(3)
    ],
    keep_logits=True,
)

# Choices of the recipe, each with its learning rate set anew. PyTorch's default gives filters a sixth of Kaiming's
# variance, so that steps of one length change them sqrt(6) times as much.
FOURFOLD = replace(SHORT, peak_lr=4 * SHORT.peak_lr)
CHOICES = Experiment(
    [
        Trial(key, title, network, cfg, seed)
        for key, title, network, cfg in (
            (
                "default_init_slow",
                "PyTorch's initialisation, learning rate / √6",
                "DefaultInit",
                replace(SHORT, peak_lr=SHORT.peak_lr / 6**0.5),
            ),
            ("sgd_slow", "SGD, learning rate 0.0125", "ImprovedNet", replace(SHORT, **SGD | {"peak_lr": 0.0125})),
            ("sgd_fast", "SGD, learning rate 0.2", "ImprovedNet", replace(SHORT, **SGD | {"peak_lr": 0.2})),
            ("fourfold", "fourfold learning rate", "ImprovedNet", FOURFOLD),
            ("fourfold_no_batch_norm", "the same without batch normalisation", "NoBatchNorm", FOURFOLD),
        )
        for seed in range(3)
    ],
    images=10_000,
)

EXPERIMENTS = {
    "search": SEARCH,
    "seeds": SEEDS,
    "ablation": ABLATION,
    "design": DESIGN,
    "shifts": SHIFTS,
    "long": LONG,
    "recipe": RECIPE,
    "wrong_labels": WRONG_LABELS,
    "rare": RARE,
    "teaching": TEACHING,
    "taught": TAUGHT,
    "frontier": FRONTIER,
    "specialist": SPECIALIST,
    "smoothing": SMOOTHING,
    "choices": CHOICES,
}
DEFINITION = "experiment.json"


def parts_of(experiment: Experiment) -> tuple[Part, Part]:
    """The training images of an experiment, and all validation images."""
    training, validation = data.train_validation(experiment.profile)
    training = data.first(training, experiment.images)
    if experiment.wrong_labels:
        training = with_wrong_labels(training, experiment.wrong_labels)
    if experiment.imbalance > 1:
        training = imbalanced(training, experiment.imbalance)
    return of_classes(training, experiment), of_classes(validation, experiment)


def of_classes(part: Part, experiment: Experiment) -> Part:
    """The images of the classes of an experiment, and their labels."""
    if not experiment.classes:
        return part
    chosen = np.isin(part.labels, experiment.classes)
    return Part(part.images[chosen], part.labels[chosen])


def with_wrong_labels(part: Part, share: float) -> Part:
    """The same images, a share of whose labels is replaced by one of the other classes, drawn at random."""
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(part.labels))[: round(share * len(part.labels))]
    labels = part.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, len(config.CLASSES), len(wrong))) % len(config.CLASSES)
    return Part(part.images, labels)


def class_shares(ratio: float) -> np.ndarray:
    """Shares (10,) of its training images that each class keeps: they fall by a constant factor, `ratio` in all."""
    return ratio ** -np.linspace(0, 1, len(config.CLASSES))


def imbalanced(part: Part, ratio: float) -> Part:
    """The first images of each class, as many as class_shares says (Cui et al. 2019)."""
    counts = np.bincount(part.labels, minlength=len(config.CLASSES)) * class_shares(ratio)
    kept = [np.flatnonzero(part.labels == k)[: round(count)] for k, count in enumerate(counts)]
    chosen = np.sort(np.concatenate(kept))
    return Part(part.images[chosen], part.labels[chosen])


def train_trial(trial: Trial, experiment: Experiment, device: str) -> tuple[Trial, runs.Results]:
    """Train a trial in the cache of the machine where this runs, or load it from there.

    The record gains `images`, how many it was trained on, and of the kept checkpoint `training_accuracy`, that on the
    first 5,000 of them, not augmented, and `cues`, its accuracies on the first 1,000 validation images without single
    cues. If the experiment keeps logits, it also gains `scores`, which follow from them, and `corrupted`, the
    accuracies on the first 2,000 test images under corruptions of the highest severity.
    """
    training, validation = parts = parts_of(experiment)
    chosen, store = train.pick_device(device), config.CACHE / "runs"
    run = runs.train_run(trial.network, trial.cfg, experiment.profile, trial.seed, chosen, parts, store, quiet=True)
    _, accuracy = train.evaluate(run.model, data.first(training, 5_000))
    cues = robustness.without_cues({trial.network: run.model}, data.first(validation, 1_000))
    shown = {}
    if experiment.keep_logits:  # of images of all classes
        shown = {"validation": data.train_validation(experiment.profile)[1], "test": data.test(experiment.profile)}
    logits = {name: inference.infer(run.model, part.images).logits for name, part in shown.items()}
    record = run.record | {
        "images": len(training.labels),
        "training_accuracy": accuracy,
        "cues": dict(zip(cues["cue"], cues["accuracy"], strict=True)),
        "scores": {name: metrics.summary(z, shown[name].labels) for name, z in logits.items()},
    }
    if experiment.keep_logits:
        record["corrupted"] = robustness.at_highest_severity(run.model, data.first(shown["test"], 2_000))
    return trial, runs.Results(run.history, run.first_losses, record, logits)


def run_experiment(experiment: Experiment, store: Path, device: str = "auto", jobs: int = -1) -> Iterator[str]:
    """Train the trials that `store` lacks, `jobs` at a time (-1: one for each core), and yield a line for each.

    Runs where joblib.parallel_config says: by default in processes of this machine. When all trials are stored, the
    definition is written and runs of earlier versions of the experiment are removed. Raises Problem if a trial
    diverges, when all others are stored, and if a process is killed.
    """
    parts = parts_of(experiment)
    folders = {trial: store / runs.run_name(*trial[2:], parts)[0] for trial in experiment.trials}
    wanted = "logits.safetensors" if experiment.keep_logits else "run.json"
    missing = [trial for trial, folder in folders.items() if not (folder / wanted).exists()]
    yield f"{len(folders) - len(missing)} of {len(folders)} runs are stored already"
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    work = parallel(joblib.delayed(_attempt)(trial, experiment, device) for trial in missing)
    failed = []
    try:
        for done, (trial, found) in enumerate(work, 1):
            if isinstance(found, Problem):
                failed.append(f"{trial.title}, seed {trial.seed}: {found}")
                outcome = str(found)
            else:
                _keep(found, folders[trial])
                accuracy, minutes = at_checkpoint(found)["validation_accuracy"], found.record["seconds"] / 60
                outcome = f"validation {accuracy:.2%}, {minutes:.1f} min"
            yield f"{done} of {len(missing)}: {trial.title}, seed {trial.seed}: {outcome}"
    except BrokenProcessPool:
        raise Problem("A process was killed, mostly for want of memory: run fewer at once with --jobs.") from None
    if failed:
        raise Problem(f"{len(failed)} of {len(missing)} trials failed, the first of them {failed[0]}")
    define(experiment, store, folders)
    for superseded in set(store.glob("*-*")) - set(folders.values()):
        shutil.rmtree(superseded)


def define(experiment: Experiment, store: Path, folders: dict[Trial, Path]) -> None:
    """Write the definition of an experiment whose trials are all stored."""
    trials = [{"key": trial.key, "title": trial.title, "run": folder.name} for trial, folder in folders.items()]
    definition = {"images": experiment.images, "keep_logits": experiment.keep_logits, "trials": trials}
    files.write(store / DEFINITION, json.dumps(definition, indent=1, ensure_ascii=False) + "\n")


def _attempt(trial: Trial, experiment: Experiment, device: str) -> tuple[Trial, runs.Results | Problem]:
    """What is wrong with one trial is handed back, so that it does not stop those beside it."""
    try:
        return train_trial(trial, experiment, device)
    except (train.Diverged, files.Busy) as error:
        return trial, error


def _keep(found: runs.Results, folder: Path) -> None:
    """Store what a worker found, without weights."""
    record = {key: value for key, value in found.record.items() if key != "files"}
    record["config"] = config.to_record(found.cfg)
    history = {"first_losses": found.first_losses, "epochs": found.history.to_dict("records")}
    logits = {name: torch.from_numpy(z) for name, z in found.logits.items()}
    runs.save(folder, record, history, **({"logits": logits} if logits else {}))


def at_checkpoint(results: runs.Results) -> pd.Series:
    """The row of the history at the kept checkpoint, that of the lowest validation loss."""
    return results.history.loc[results.history["validation_loss"].idxmin()]


def stored(name: str) -> list[tuple[Trial, runs.Results]]:
    """The trials of a finished experiment with their results, verified. Raises TrainingNeeded if it is not stored."""
    folder = config.EXPERIMENTS / name
    try:
        definition = json.loads((folder / DEFINITION).read_text(encoding="utf-8"))
        wanted = [(trial["key"], trial["title"], folder / trial["run"]) for trial in definition["trials"]]
    except FileNotFoundError:
        raise runs.TrainingNeeded(f"the experiment {name!r} is not stored: run `make {name}`.") from None
    except (ValueError, KeyError, TypeError):
        raise runs.CorruptRun(f"{folder / DEFINITION} is damaged: restore it from git, or run `make {name}`.") from None
    found = []
    for key, title, path in wanted:
        results = runs.load_results(path)
        trial = Trial(key, title, results.record["network"], results.cfg, results.record["seed"])
        found.append((trial, results))
    return found


def of_key(name: str, key: str) -> list[runs.Results]:
    """What the trials with a key left, of a stored experiment, a seed each. Raises KeyError for an unknown key."""
    found = [each for trial, each in stored(name) if trial.key == key]
    if not found:
        raise KeyError(f"the experiment {name!r} has no trial {key!r}.")
    return found


# Trials of DESIGN that are also trainings at full length, of the recipe and without one part.
ALSO_LONG = {
    "ImprovedNet, ImprovedNet": ("recipe", "the full recipe"),
    "NoDropout, ImprovedNet": ("no_dropout", "without dropout"),
}


def at_full_length() -> pd.DataFrame:
    """The trainings of ImprovedNet at full length, a row each: key, title, seed, and their scores on the test images.

    The published run is the first seed of the recipe; DESIGN, LONG and TAUGHT are the others.
    """
    published = runs.published("ImprovedNet")
    scores = metrics.summary(published.logits["test"], published.logits["test_labels"])
    rows = [{"key": "recipe", "title": "the full recipe", "seed": published.record["seed"], **scores}]
    design = []
    for trial, found in stored("design"):
        if trial.key in ALSO_LONG:
            key, title = ALSO_LONG[trial.key]
            design.append((trial._replace(key=key, title=title), found))
    for trial, found in design + stored("long") + stored("taught"):
        if trial.network != "FastNet":
            tested = found.record["scores"]["test"]
            rows.append({"key": trial.key, "title": trial.title, "seed": trial.seed, **tested})
    return pd.DataFrame(rows)


def confident_mistakes() -> pd.DataFrame:
    """How confident mistakes fare once each training is corrected, a row a training: key, seed, wrong.

    ImprovedNet at full length with label smoothing ("recipe"), which is undone, and without it ("no_smoothing"), at a
    temperature that is fitted on validation images. wrong: of the test images above 0.9, the share that is wrong.
    """
    published = runs.published("ImprovedNet")
    labels = {part: published.logits[f"{part}_labels"] for part in ("validation", "test")}
    trainings = [("recipe", published), *(("recipe", each) for each in of_key("design", "ImprovedNet, ImprovedNet"))]
    trainings += [("no_smoothing", each) for each in of_key("long", "no_smoothing")]
    rows = []
    for key, each in trainings:
        z = metrics.unsmoothed(each.logits["test"], each.cfg.label_smoothing)
        if key == "no_smoothing":
            z = z / metrics.fit_temperature(each.logits["validation"], labels["validation"])
        wrong = metrics.answered(z, labels["test"], 0.9)["risk"]
        rows.append({"key": key, "seed": each.record["seed"], "wrong": wrong})
    return pd.DataFrame(rows)


def crossed() -> pd.DataFrame:
    """The trainings of every architecture with both recipes, a row each: key ("network, recipe"), title, network, seed.

    Also accuracy, on the test images; fitted, the accuracy on training images; gap, its lead over the validation
    images; and noise, the mean accuracy under the three kinds of noise at their highest severity. The published runs,
    seed 0 of the two networks with their own recipes, have the accuracy alone.
    """
    rows = []
    for network in config.PAIR:
        run = runs.published(network)
        accuracy = metrics.accuracy(run.logits["test"], run.logits["test_labels"])
        rows.append({"key": f"{network}, {network}", "network": network, "seed": 0, "accuracy": accuracy})
    others = [
        (trial._replace(key="BaselineNet, BaselineNet"), found)
        for trial, found in stored("seeds")
        if trial.network == "BaselineNet"
    ]
    for trial, found in others + stored("design"):
        record, kept = found.record, at_checkpoint(found)
        rows.append(
            {
                "key": trial.key,
                "network": trial.network,
                "seed": trial.seed,
                "accuracy": record["scores"]["test"]["accuracy"],
                "fitted": record["training_accuracy"],
                "gap": record["training_accuracy"] - kept["validation_accuracy"],
                "noise": np.mean([record["corrupted"][kind] for kind in robustness.NOISES]),
            }
        )
    return pd.DataFrame(rows).assign(title=lambda table: table["network"].map(ARCHITECTURES))


def between_recipes() -> pd.DataFrame:
    """The rows of crossed, and below them a row for each training of RECIPE, with key, network, seed and accuracy."""
    rows = [
        {
            "key": trial.key,
            "network": trial.network,
            "seed": trial.seed,
            "accuracy": found.record["scores"]["test"]["accuracy"],
        }
        for trial, found in stored("recipe")
    ]
    return pd.concat([crossed(), pd.DataFrame(rows)], ignore_index=True)


def table(name: str) -> pd.DataFrame:
    """The rows of a stored experiment. Raises TrainingNeeded if it is not stored."""
    return in_rows(stored(name))


def in_rows(trials: list[tuple[Trial, runs.Results]]) -> pd.DataFrame:
    """One row a trial: key, title, seed, epochs, and accuracy and loss on validation at the kept checkpoint.

    `training` is the accuracy on training images without augmentation, and `gap` its lead over validation. The columns
    of robustness.without_cues follow, with accuracies on validation images.
    """
    found = []
    for trial, results in trials:
        kept, training = at_checkpoint(results), results.record["training_accuracy"]
        found.append(
            {
                "key": trial.key,
                "title": trial.title,
                "seed": trial.seed,
                "epochs": trial.cfg.epochs,
                "accuracy": kept["validation_accuracy"],
                "loss": kept["validation_loss"],
                "training": training,
                "gap": training - kept["validation_accuracy"],
                **results.record["cues"],
            }
        )
    return pd.DataFrame(found)


def main() -> None:
    """Run an experiment from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--device", default="auto", choices=config.DEVICES)
    parser.add_argument("--jobs", type=int, help="runs side by side here (default: one for each core)")
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="use the workers of this Dask scheduler, as in tcp://host:8786"
    )
    options = parser.parse_args()
    if options.cluster and options.jobs:
        parser.error("--jobs is for this machine; the workers of a cluster take one run each.")
    with place(options.cluster):
        store = config.EXPERIMENTS / options.experiment
        for line in run_experiment(EXPERIMENTS[options.experiment], store, options.device, options.jobs or -1):
            print(line, flush=True)


@contextlib.contextmanager
def place(cluster: str | None):
    """Have joblib work in single-threaded processes here, or on the Dask cluster at this address."""
    if cluster is None:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            yield
    else:
        from dask.distributed import Client  # only who has a cluster pays for the import

        try:
            client = Client(cluster, timeout=5)
        except (OSError, ValueError) as error:
            raise Problem(f"no Dask scheduler answers at {cluster}: start one with `dask scheduler`.") from error
        with client, joblib.parallel_config("dask"):
            if any(threads > 1 for threads in client.nthreads().values()):  # they would share one random generator
                raise Problem("a worker of the cluster has several threads: start it with `--nthreads 1`.")
            yield


if __name__ == "__main__":
    with exit_cleanly("Stopped here (a cluster finishes what it has begun). The same command goes on."):
        main()
