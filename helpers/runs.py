"""The store of trained runs. `load_or_train` is the one door to a trained network.

A run is a folder: history.json, weights.safetensors or logits.safetensors or both, and run.json, which says how they
came about and carries their SHA-256. Its identity is the digest of network, configuration, recipe version, seed and
data.
"""

import functools
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from helpers import config, data, files, models, train
from helpers.config import TrainConfig
from helpers.data import Part
from helpers.errors import Problem

# How far losses, in nats, may lie from the recorded ones on a device of the same kind. Measured on
# a CPU for the published runs, in bfloat16 and float32 with 1 and 2 threads. First 20 losses:
# rounding moves BaselineNet's by up to 0.00005, ten times the learning rate by 0.0007, noise for
# images by 0.003, other labels or another seed by 0.02 or more. ImprovedNet's: 0.0014, and 0.044,
# 0.06, 0.12. Twenty steps of the warm-up hardly depend on momentum, betas and decay (0.0001,
# 0.002): check_history sees the first two.
REPLAY_TOLERANCE = {"BaselineNet": 0.0003, "ImprovedNet": 0.006}
HISTORY_EPOCHS = {"BaselineNet": 2, "ImprovedNet": 3, "FastNet": 1}  # one more than the warm-up has
# Losses of whole epochs. Rounding moved BaselineNet's by up to 0.026, another seed by 0.14, momentum
# 0.8 for 0.9 by 0.29, none by 0.7; rounding moved ImprovedNet's by up to 0.068. FastNet's steps are
# so large that after 20 of them rounding has moved the loss by 0.16, as far as another seed does:
# only what changes the learning as a whole can be seen in its first epoch.
HISTORY_TOLERANCE = {"BaselineNet": 0.06, "ImprovedNet": 0.15, "FastNet": 0.3}
WEIGHTS_TOLERANCE = 1e-4  # nats: validation is float32 everywhere
FILES = ("history.json", "weights.safetensors", "logits.safetensors")


@dataclass(frozen=True)
class Results:
    """What a training left besides its weights.

    history: one row an epoch. first_losses: of the first steps, in nats. record: its run.json.
    logits: (n, 10) by the name of a part, where they are kept.
    """

    history: pd.DataFrame
    first_losses: list[float]
    record: dict
    logits: dict[str, np.ndarray]

    @property
    def cfg(self) -> TrainConfig:
        """The settings of the training."""
        return config.from_record(self.record["config"])


@dataclass(frozen=True)
class Run(Results):
    """A trained network in eval mode, with its results."""

    model: nn.Sequential


class CorruptRun(Problem):
    """Raised when a stored run is not what its record says."""


class TrainingNeeded(Problem):
    """Raised when a run is missing and training it here would take too long."""


def identity(network: str, cfg: TrainConfig, seed: int, digests: dict, recipe: int = train.RECIPE) -> str:
    """Twelve hexadecimal digits that name what is trained."""
    what = [network, config.to_record(cfg), recipe, seed, digests]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def run_name(network: str, cfg: TrainConfig, seed: int, parts: tuple[Part, Part]) -> tuple[str, dict]:
    """The folder name of a run, and the digests of its training and validation images and labels."""
    digests = dict(zip(("training", "validation"), map(data.part_digest, parts), strict=True))
    return f"{network}-{identity(network, cfg, seed, digests)}", digests


def load_or_train(
    network: str,
    profile: str = "full",
    seed: int = 0,
    device: str = "auto",
    train_minutes: float = 2,
    changes: dict | None = None,
) -> Run:
    """Load the run with this identity if it is stored and verifies; train it and keep it in the cache if it is missing.

    changes: hyper-parameters that differ from the profile's, by network: {"ImprovedNet": {"epochs": 20}}.
    Raises CorruptRun, and TrainingNeeded if the estimate exceeds `train_minutes`.
    """
    cfg = config.train_config(network, profile, **(changes or {}).get(network, {}))
    parts = data.train_validation(profile)
    name, _ = run_name(network, cfg, seed, parts)
    for store in (config.PUBLISHED, config.CACHE / "runs"):
        if (store / name).exists():
            run = load(store / name)
            print(f"{network}: loaded {name}, {when_where(run.record)}", flush=True)
            return run
    chosen = train.pick_device(device)
    minutes = train.estimate_seconds(network, cfg, *parts, chosen) / 60
    print(f"{network}: no trained run {name}; training {cfg.epochs} epochs takes about {minutes:.1f} min", flush=True)
    if minutes > train_minutes:
        raise TrainingNeeded(
            f"{network} (profile {profile}) is not trained yet, and its {minutes:.0f} min exceed the {train_minutes:g} "
            "min that may be spent here. `make retrain` trains the full profile, `make quick` a short one; in a "
            "notebook, raise train_minutes in the parameters cell."
        )
    return train_run(network, cfg, profile, seed, chosen, parts, config.CACHE / "runs")


def train_run(
    network: str,
    cfg: TrainConfig,
    profile: str,
    seed: int,
    device: train.Device,
    parts: tuple[Part, Part],
    store: Path,
    quiet: bool = False,
    again: bool = False,
    told: Callable | None = None,
) -> Run:
    """Train a run, going on from its resume state if there is one, and save it in the folder `store`.

    If another process is training it, wait and load what that one has stored. again: train it even
    if it is stored already. told: as for train.fit.
    """
    name, digests = run_name(network, cfg, seed, parts)
    code = commit()  # before training: the code may be edited while it runs
    log = (lambda line: None) if quiet else functools.partial(print, flush=True)
    fresh = models.build(network)
    with files.locked(_state(name).with_suffix(".lock"), f"training {name}", wait=True):
        if (store / name).exists() and not again:
            return load(store / name)
        progress = not quiet and train.watched()
        teacher = taught_by(cfg, profile, device, parts, store, quiet) if cfg.teacher else None
        trained = train.fit(
            network, cfg, *parts, seed, device, _state(name), log, progress=progress, told=told, teacher=teacher
        )
        record = {
            "network": network,
            "profile": profile,
            "config": config.to_record(cfg),
            "recipe": train.RECIPE,
            "seed": seed,
            "data": digests,
            "device": "; ".join(trained.devices),
            "device_label": trained.devices[0].split(", ")[-1],  # as the first losses are of the first sitting
            "parameters": models.parameters(fresh),
            "flop": 6 * models.macs(fresh) * cfg.epochs * len(parts[0].labels),  # 2 forward, 4 backward
            "seconds": round(sum(row["seconds"] for row in trained.history)),
            "epochs": cfg.epochs,
            "best_epoch": min(trained.history, key=lambda row: row["validation_loss"])["epoch"],
            "date": datetime.now(UTC).date().isoformat(),
            "commit": code,
            "code": train.code_digest(),
            "versions": {package: version(package) for package in ("torch", "numpy", "scikit-learn")},
        }
        history = {"first_losses": trained.first_losses, "epochs": trained.history}
        save(store / name, record, history, weights=trained.weights)
        _state(name).unlink(missing_ok=True)
    return load(store / name)


def taught_by(
    cfg: TrainConfig, profile: str, device: train.Device, parts: tuple[Part, Part], store: Path, quiet: bool
) -> nn.Module:
    """The teacher of a configuration, on the device: published, or trained and kept in `store` if it is missing."""
    network, recipe = config.TEACHERS[cfg.teacher]
    name, _ = run_name(network, recipe, 0, parts)
    folder = config.PUBLISHED / name
    run = load(folder) if folder.exists() else train_run(network, recipe, profile, 0, device, parts, store, quiet)
    return run.model.to(device.kind)


def _state(name: str) -> Path:
    return config.CACHE / "states" / f"{name}.pt"


def save(folder: Path, record: dict, history: dict, **tensors: dict[str, torch.Tensor]) -> None:
    """Write a run atomically. tensors: what to keep as `weights` and as `logits`."""
    with files.scratch(folder.with_name(f".{folder.name}.new")) as partial:
        files.write(partial / "history.json", json.dumps(history, indent=1) + "\n")
        for name, kept in tensors.items():  # safetensors' own file writing has errors of its own for a full disk
            content = safetensors.torch.save({k: v.contiguous() for k, v in kept.items()})
            files.write(partial / f"{name}.safetensors", content)
        digests = {path.name: files.file_digest(path) for path in sorted(partial.iterdir())}
        record = {**record, "files": digests | {"run.json": record_digest(record)}}
        files.write(partial / "run.json", json.dumps(record, indent=1) + "\n")
        files.replace(partial, folder)


def load(folder: Path) -> Run:
    """Read a stored run with its weights. Raises CorruptRun, naming the file, if anything differs from its record."""
    results = load_results(folder)
    path = folder / "weights.safetensors"
    model = models.build(results.record["network"])
    try:
        model.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise _corrupt(folder, path.name) from error
    return Run(**vars(results), model=model.eval())


def load_results(folder: Path) -> Results:
    """Read a stored run without weights. Raises CorruptRun, naming the file, if anything differs from its record."""
    try:
        record = json.loads((folder / "run.json").read_text())
        digests, network = dict(record["files"]), record["network"]
        try:
            cfg = config.from_record(record["config"])
        except TypeError:
            raise CorruptRun(
                f"{folder.name} is from a version with other settings: delete the folder and train again."
            ) from None
        name = f"{network}-{identity(network, cfg, record['seed'], record['data'], record['recipe'])}"
        own = record_digest(record)
        intact = folder.name == name and digests.pop("run.json") == own and "history.json" in digests
    except CorruptRun:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(folder, "run.json") from error
    if not intact:
        raise _corrupt(folder, "run.json")
    for name, digest in digests.items():
        if name not in FILES or not (folder / name).is_file() or files.file_digest(folder / name) != digest:
            raise _corrupt(folder, name)
    history = json.loads((folder / "history.json").read_text())
    logits = {}
    if "logits.safetensors" in digests:
        stored = safetensors.torch.load_file(folder / "logits.safetensors")
        logits = {part: tensor.numpy() for part, tensor in stored.items()}
    epochs = pd.DataFrame(history["epochs"]).rename(columns=OLD_COLUMNS)
    return Results(epochs, history["first_losses"], _translated(record), logits)


OLD_COLUMNS = {"rate": "lr"}  # of histories recorded until 24 November 2026


def _translated(record: dict) -> dict:
    """A record with the names of today. Until 24 November 2026 cues were phrases: "pose, 10 degrees"."""
    cues = {
        "_".join(re.findall(r"nothing|colour|shape|pose|place|square|\d+", phrase)): accuracy
        for phrase, accuracy in record.get("cues", {}).items()
    }
    settings = asdict(config.from_record(record["config"]))
    return {**record, "config": settings} | ({"cues": cues} if cues else {})


def _corrupt(folder: Path, name: str) -> CorruptRun:
    where = folder.relative_to(config.ROOT) if folder.is_relative_to(config.ROOT) else folder.name
    restore = "" if folder.is_relative_to(config.CACHE) else f"restore it with `git checkout -- {where}`, or "
    return CorruptRun(
        f"{where}/{name} is missing or differs from what was recorded: {restore}delete the folder and train again."
    )


def published(network: str) -> Run:
    """The committed run of a network. Raises TrainingNeeded if there is none, CorruptRun if there are several."""
    folders = sorted(config.PUBLISHED.glob(f"{network}-*"))
    if not folders:
        raise TrainingNeeded(f"there is no trained {network} in reports/runs: run `make retrain`.")
    if len(folders) > 1:  # killed before the older one was removed
        raise CorruptRun(f"reports/runs holds several trained {network}: delete all but the newest.")
    return load(folders[0])


def published_facts(run: Run) -> dict:
    """What results.json says about a run."""
    keys = ("parameters", "flop", "epochs", "best_epoch", "seconds", "device", "date", "seed", "recipe", "config")
    return {key: run.record[key] for key in keys} | {"minutes": run.record["seconds"] / 60}


def check_replay(run: Run, replayed: list[float], device: train.Device) -> str:
    """Compare replayed first losses with the recorded ones; returns the outcome as a sentence.

    Raises CorruptRun if they differ by more than REPLAY_TOLERANCE on the same kind of device.
    """
    difference = float(np.abs(np.subtract(run.first_losses, replayed)).max())
    return _compared(run, f"first {len(replayed)} steps", difference, REPLAY_TOLERANCE, device)


def check_history(run: Run, rows: list[dict], device: train.Device) -> str:
    """Compare replayed first epochs with the recorded ones; returns the outcome as a sentence.

    Raises CorruptRun if a learning rate differs or, on the same kind of device, a training or
    validation loss by more than HISTORY_TOLERANCE.
    """
    replayed, recorded = pd.DataFrame(rows), run.history.head(len(rows))
    if not np.allclose(replayed["lr"], recorded["lr"], rtol=1e-6, atol=0):
        raise CorruptRun(
            f"The learning rates are not those that trained {run.record['network']}.{code_changed(run.record)}"
        )
    losses = ["train_loss", "validation_loss"]
    difference = float(np.abs(replayed[losses].to_numpy() - recorded[losses].to_numpy()).max())
    return _compared(run, f"first {len(rows)} epochs", difference, HISTORY_TOLERANCE, device)


def replay_history(run: Run, parts: tuple[Part, Part], device: train.Device, epochs: int | None = None) -> str:
    """Train the first epochs of a run again and compare them with the recorded ones.

    epochs: how many (default: HISTORY_EPOCHS). Returns the outcome as a sentence; raises CorruptRun
    if they differ.
    """
    network = run.record["network"]
    epochs = epochs or HISTORY_EPOCHS[network]
    try:
        rows = train.replay_epochs(network, run.cfg, *parts, run.record["seed"], device, epochs)
    except train.Diverged as error:
        raise CorruptRun(f"Its first {epochs} epochs, replayed here, diverge.{code_changed(run.record)}") from error
    return check_history(run, rows, device)


def check_weights(run: Run, validation: Part) -> str:
    """Compare the validation loss of the stored weights with the lowest of the history.

    Returns the outcome as a sentence; raises CorruptRun if they differ by more than
    WEIGHTS_TOLERANCE.
    """
    loss, _ = train.evaluate(run.model, validation)
    difference = abs(loss - run.history["validation_loss"].min())
    says = f"Its weights give the lowest validation loss of the history to within {difference:.1g}"
    if not difference <= WEIGHTS_TOLERANCE:  # nor is it a number
        raise CorruptRun(f"{says}: they are not those that the training of {run.record['network']} kept.")
    return "Its weights give exactly the lowest validation loss of the history." if difference == 0 else f"{says}."


def _compared(run: Run, what: str, difference: float, tolerances: dict, device: train.Device) -> str:
    """The sentence on replayed losses. Raises CorruptRun beyond the tolerance of the network.

    Another kind of device draws other augmentations, so that nothing can be refused there.
    """
    trained_with, network = run.record["device_label"], run.record["network"]
    changed = code_changed(run.record)
    says = f"Its {what}, replayed here, differ from the recorded losses by up to {difference:.1g}"
    if device.kind != trained_with.split("/")[0]:
        return f"{says}; it was trained with {trained_with}, this is {device.label}.{changed}"
    tolerance = tolerances.get(network, max(tolerances.values()))
    if not difference <= tolerance:  # nor is it a number
        raise CorruptRun(f"{says}: the code or the data are not those that trained {network}.{changed}")
    if difference == 0:
        return f"Its {what}, replayed here, give exactly the recorded losses.{changed}"
    return f"{says}.{changed}"


def code_changed(record: dict) -> str:
    """A sentence if the training code is not what it was; nothing for records that do not tell."""
    return "" if record.get("code") in (None, train.code_digest()) else " The training code has changed since."


def when_where(record: dict) -> str:
    """When, where and how long a run was trained, in words."""
    return f"trained on {record['date']} in {record['seconds'] / 60:.0f} min ({record['device']})"


def record_digest(record: dict) -> str:
    """SHA-256 of what run.json says, but for its digests."""
    said = {key: value for key, value in record.items() if key != "files"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def commit() -> str:
    """The git commit of the code, marked if the code has uncommitted changes; "unknown" outside a clone."""

    def git(*words):
        command = ["git", "-C", config.ROOT, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", "helpers")
        return git("rev-parse", "HEAD") + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
