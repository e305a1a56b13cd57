"""Experiments: independent runs, listed as data, trained side by side, kept with their histories but without weights.

What is stored is not trained again, and what was interrupted goes on after its last finished epoch. joblib runs the
trials in processes of this machine or, with --cluster, on the workers of a Dask cluster; what a worker finds travels
back, so the machines need not share a disk. (Without a shared cache folder, an interrupted trial goes on only if the
machine that began it takes it up again.)
"""

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import scipy.stats
import torch

from helpers import config, data, files, inference, metrics, robustness, runs, train
from helpers.command import Problem, ending
from helpers.config import BASELINE, IMPROVED, PRESETS, TrainConfig
from helpers.data import Part


class Trial(NamedTuple):
    """One run: what is special about it, in words, and what to train."""

    label: str
    network: str
    config: TrainConfig
    seed: int


class Experiment(NamedTuple):
    """Trials on the first `images` training images of a profile, with or without keeping logits."""

    trials: list[Trial]
    images: int = 45_000
    keep_logits: bool = False  # of the validation and test images
    profile: str = "full"


# Seed 0 of BaselineNet is the published run; ImprovedNet is repeated, seed 0 too, at a length that three runs allow.
REPEATED = replace(IMPROVED, epochs=15)
SEEDS = Experiment([
    *(Trial("BaselineNet", "BaselineNet", BASELINE, seed) for seed in range(1, 5)),
    *(Trial("ImprovedNet", "ImprovedNet", REPEATED, seed) for seed in range(3)),
], keep_logits=True)  # fmt: skip

SHORT = replace(IMPROVED, epochs=10)
NO_AUGMENTATION = {"crop_padding": 0, "flip": 0.0, "rotation": 0.0, "jitter": 0.0, "erasing": 0.0}
ABLATION = Experiment([
    Trial(label, network, replace(SHORT, **changes), seed)
    for label, network, changes in (
        ("as it is", "ImprovedNet", {}),
        ("without batch normalisation", "NoBatchNorm", {}),
        ("without dropout", "NoDropout", {}),
        ("without augmentation", "ImprovedNet", NO_AUGMENTATION),
        ("flips and crops only", "ImprovedNet", {"rotation": 0.0, "jitter": 0.0, "erasing": 0.0}),
        ("without weight decay", "ImprovedNet", {"weight_decay": 0.0}),
        # rate and decay of AdamW mean something else to SGD, so it has its own
        ("SGD for AdamW", "ImprovedNet", {"optimizer": "sgd", "peak_rate": 0.05, "weight_decay": 0.0005}),
        ("constant rate for cosine", "ImprovedNet", {"schedule": "constant"}),
        ("PyTorch's initialisation for Kaiming's", "DefaultInit", {}),
        ("half the channels", "HalfWidth", {}),
    )
    for seed in range(3)
], images=10_000)  # fmt: skip

# What augmentation teaches: recipes of the ablation, and what is changed in the images they are tried on.
RECIPES = ["as it is", "flips and crops only", "without augmentation"]
CUES = ["nothing", "pose, 10 degrees", "pose, 20 degrees", "place, 4 pixels", "place, 8 pixels",
        "a square, 12 pixels a side", "colour"]  # fmt: skip

# How the recipe was found, from this start. Half of the images at this length bring over-fitting into view, as the full
# length does; all trials cost the same.
START = TrainConfig(
    epochs=20, batch_size=64, optimizer="adamw", peak_rate=0.002, weight_decay=0.05, schedule="cosine", warmup_epochs=2,
    crop_padding=4, flip=0.5, rotation=5.0, interpolation="bilinear", jitter=0.1, erasing=0.2, label_smoothing=0.0,
)  # fmt: skip
SHARP = replace(START, interpolation="nearest")
SEARCH = Experiment([
    Trial("start: rotations interpolated", "ImprovedNet", START, 0),
    Trial("rotations by the nearest pixel", "ImprovedNet", SHARP, 0),
    Trial("... and no rotations", "ImprovedNet", replace(SHARP, rotation=0.0), 0),
    Trial("... and label smoothing 0.1", "ImprovedNet", replace(SHARP, label_smoothing=0.1), 0),
    Trial("... and label smoothing 0.05", "ImprovedNet", replace(SHARP, label_smoothing=0.05), 0),
], images=22_500)  # fmt: skip

# What the recipe does and what the architecture does: each network with the other's recipe, and sizes between the two.
DESIGN = Experiment([
    Trial("ImprovedNet, BaselineNet's recipe", "ImprovedNet", BASELINE, 0),
    Trial("BaselineNet, ImprovedNet's recipe", "BaselineNet", IMPROVED, 0),
    Trial("BaselineNet four times as wide", "WideBaseline", BASELINE, 0),
    Trial("BaselineNet, shifts of 4 pixels", "BaselineNet", replace(BASELINE, crop_padding=4), 0),
    *(Trial("ImprovedNet at a quarter of its width", "QuarterWidth", IMPROVED, seed) for seed in range(3)),
], keep_logits=True)  # fmt: skip

# The parts of the recipe at its full length.
LONG = Experiment([
    Trial("without dropout", "NoDropout", IMPROVED, 0),
    Trial("without label smoothing", "ImprovedNet", replace(IMPROVED, label_smoothing=0.0), 0),
], keep_logits=True)  # fmt: skip

# The modern recipe, from five seeds.
FAST = Experiment([Trial("FastNetSmall", "FastNetSmall", PRESETS["FastNetSmall"], seed) for seed in range(5)],
                  keep_logits=True)  # fmt: skip

EXPERIMENTS = {"fast": FAST, "search": SEARCH, "seeds": SEEDS, "ablation": ABLATION, "design": DESIGN, "long": LONG}


def parts_of(experiment: Experiment) -> tuple[Part, Part]:
    """The training images of an experiment, and all validation images."""
    training, validation = data.train_validation(experiment.profile)
    return data.first(training, experiment.images), validation


def train_trial(trial: Trial, experiment: Experiment, device: str) -> tuple[Trial, runs.Run]:
    """Train a trial in the cache of the machine where this runs, or load it from there.

    The run comes without its model, but with the logits that the experiment keeps. Its record gains `images`, how many
    it was trained on, and of the kept checkpoint `training_accuracy`, that on the first 5,000 of them, not augmented,
    `cues`, its accuracies on the first 1,000 validation images without single cues, and `scores`, those of the logits.
    """
    training, validation = parts = parts_of(experiment)
    folder = config.CACHE / "runs" / runs.run_name(trial.network, trial.config, trial.seed, parts)[0]
    if folder.exists():
        run = runs.load(folder)
    else:
        run = runs.train_run(trial.network, trial.config, experiment.profile, trial.seed, train.pick_device(device),
                             parts, folder.parent, quiet=True)  # fmt: skip
    _, accuracy = train.evaluate(run.model, data.first(training, 5_000))
    cues = robustness.without_cues({trial.network: run.model}, data.first(validation, 1_000))
    shown = {"validation": validation, "test": data.test(experiment.profile)} if experiment.keep_logits else {}
    logits = {name: inference.infer(run.model, part.images).logits for name, part in shown.items()}
    return trial, run._replace(model=None, logits=logits, record={
        **run.record, "images": len(training.labels), "training_accuracy": accuracy,
        "cues": dict(zip(cues["changed"], cues["accuracy"], strict=True)),
        "scores": {name: metrics.summary(z, shown[name].labels) for name, z in logits.items()},
    })  # fmt: skip


def conduct(experiment: Experiment, store: Path, device: str = "auto", jobs: int = -1) -> Iterator[str]:
    """Train the trials that `store` lacks, `jobs` at a time (-1: one for each core), and yield a line for each.

    Runs where joblib.parallel_config says: by default in processes of this machine. When all trials are stored, runs
    of earlier versions of the experiment are removed. Raises Problem if a trial diverges or is trained by another
    process, when all others are stored, and if a process is killed.
    """
    parts = parts_of(experiment)
    folders = {trial: store / runs.run_name(trial.network, trial.config, trial.seed, parts)[0]
               for trial in experiment.trials}  # fmt: skip
    wanted = "logits.safetensors" if experiment.keep_logits else "run.json"
    missing = [trial for trial, folder in folders.items() if not (folder / wanted).exists()]
    yield f"{len(folders) - len(missing)} of {len(folders)} runs are stored already"
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    work = parallel(joblib.delayed(_attempt)(trial, experiment, device) for trial in missing)
    failed = []
    try:
        for done, (trial, run) in enumerate(work, 1):
            if isinstance(run, Problem):
                failed.append(f"{trial.label}, seed {trial.seed}: {run}")
                outcome = str(run)
            else:
                _keep(run, folders[trial])
                accuracy, minutes = at_checkpoint(run)["validation_accuracy"], run.record["seconds"] / 60
                outcome = f"validation {accuracy:.2%}, {minutes:.1f} min"
            yield f"{done} of {len(missing)}: {trial.label}, seed {trial.seed}: {outcome}"
    except BrokenProcessPool:
        raise Problem("A process was killed, mostly for want of memory: run fewer at once with --jobs.") from None
    if failed:
        raise Problem(f"{len(failed)} of {len(missing)} trials failed, the first of them {failed[0]}")
    for superseded in set(store.glob("*-*")) - set(folders.values()):
        shutil.rmtree(superseded)


def _attempt(trial: Trial, experiment: Experiment, device: str) -> tuple[Trial, runs.Run | Problem]:
    """What is wrong with one trial is handed back, so that it does not stop those beside it."""
    try:
        return train_trial(trial, experiment, device)
    except (train.Diverged, files.Busy) as error:
        return trial, error


def _keep(run: runs.Run, folder: Path) -> None:
    """Store what a worker found, without weights."""
    record = {key: value for key, value in run.record.items() if key != "files"}
    history = {"first_losses": run.first_losses, "epochs": run.history.to_dict("records")}
    logits = {name: torch.from_numpy(z) for name, z in run.logits.items()}
    runs.save(folder, record, history, **({"logits": logits} if logits else {}))


def at_checkpoint(run: runs.Run) -> pd.Series:
    """The row of the history at the kept checkpoint, that of the lowest validation loss."""
    return run.history.loc[run.history["validation_loss"].idxmin()]


def stored(name: str) -> list[tuple[Trial, runs.Run]]:
    """The trials of an experiment with their runs, verified. Raises TrainingNeeded if one is missing."""
    experiment, by_content = EXPERIMENTS[name], {}
    for run in map(runs.load, sorted((config.EXPERIMENTS / name).glob("[!.]*-*"))):
        current = run.record["images"] == experiment.images and run.record["recipe"] == train.RECIPE
        if current and (run.logits or not experiment.keep_logits):
            by_content[run.record["network"], TrainConfig(**run.record["config"]), run.record["seed"]] = run
    trials = experiment.trials
    missing = [trial for trial in trials if trial[1:] not in by_content]
    if missing:
        raise runs.TrainingNeeded(
            f"{len(missing)} of the {len(trials)} runs of the experiment {name!r} are not stored, the first of them "
            f"{missing[0].label!r} with seed {missing[0].seed}: run `make {name}`."
        )
    return [(trial, by_content[trial[1:]]) for trial in trials]


def table(name: str) -> pd.DataFrame:
    """The rows of a stored experiment. Raises TrainingNeeded if a trial is missing."""
    return in_rows(stored(name))


def in_rows(trials: list[tuple[Trial, runs.Run]]) -> pd.DataFrame:
    """One row a trial: label, seed, epochs, and accuracy and loss on validation at the kept checkpoint.

    `training` is the accuracy on training images without augmentation, and `gap` its lead over validation. The columns
    of robustness.without_cues follow, with accuracies on validation images.
    """
    found = []
    for trial, run in trials:
        kept, training = at_checkpoint(run), run.record["training_accuracy"]
        found.append({
            "label": trial.label, "seed": trial.seed, "epochs": trial.config.epochs,
            "accuracy": kept["validation_accuracy"], "loss": kept["validation_loss"],
            "training": training, "gap": training - kept["validation_accuracy"],
            **run.record["cues"],
        })  # fmt: skip
    return pd.DataFrame(found)


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a label of a table of trials, in their order: n, and mean and deviation of accuracy, loss and gap.

    The sample deviation, with n - 1, is NaN for a group of one.
    """
    groups = rows.groupby("label", sort=False)[["accuracy", "loss", "gap"]]
    return pd.concat([groups.size().rename("n"), groups.mean(), groups.std().add_suffix("_std")], axis=1)


def against_first(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """How the mean of each label differs from that of the first: difference, low and high, a row a label.

    The 95 % intervals hold for all labels together (Dunnett 1955), supposing one deviation for all of them.
    """
    groups = {label: rows.loc[rows["label"] == label, score].to_numpy() for label in rows["label"].unique()}
    (_, control), *others = groups.items()
    test = scipy.stats.dunnett(*(values for _, values in others), control=control, rng=np.random.default_rng(0))
    interval = test.confidence_interval()
    return pd.DataFrame(
        {"difference": [values.mean() - control.mean() for _, values in others],
         "low": interval.low, "high": interval.high},
        index=pd.Index([label for label, _ in others], name="label"),
    )  # fmt: skip


def in_points(change: pd.DataFrame) -> pd.Series:
    """Differences of shares as text, in percentage points with their intervals: "-5.0 [-7.0, -2.9]"."""
    cells = (100 * change[["difference", "low", "high"]].astype(float)).map("{:+.1f}".format)
    return cells["difference"] + " [" + cells["low"] + ", " + cells["high"] + "]"


def main() -> None:
    """Conduct an experiment from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--jobs", type=int, help="runs side by side here (default: one for each core)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="use the workers of this Dask scheduler, as in tcp://host:8786")
    options = parser.parse_args()
    if options.cluster and options.jobs:
        parser.error("--jobs is for this machine; the workers of a cluster take one run each.")
    with place(options.cluster):
        store = config.EXPERIMENTS / options.experiment
        for line in conduct(EXPERIMENTS[options.experiment], store, options.device, options.jobs or -1):
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
    with ending("Stopped here (a cluster finishes what it has begun). The same command goes on."):
        main()
