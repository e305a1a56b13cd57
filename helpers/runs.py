"""The store of trained runs. `load_or_train` is the one door to a trained network.

A run is a folder: history.json, weights.safetensors or logits.safetensors or both, and run.json, which says how they
came about and carries their SHA-256. Its identity is the digest of network, configuration, recipe version, seed and
data.
"""

import argparse
import functools
import hashlib
import json
import shutil
import subprocess
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from helpers import config, data, files, models, train
from helpers.command import Problem, ending
from helpers.config import TrainConfig
from helpers.data import Part

REPLAY_TOLERANCE = 0.05  # nats: processors round differently, and twenty steps let that grow
FILES = ("history.json", "weights.safetensors", "logits.safetensors")


class Run(NamedTuple):
    """A trained network in eval mode, its history (one row an epoch), and its run.json.

    Experiments keep no weights, so their model is None. logits: by the name of a part, each (n, 10), where kept.
    """

    model: nn.Module | None
    history: pd.DataFrame
    first_losses: list[float]
    record: dict
    logits: dict[str, np.ndarray]


class CorruptRun(Problem):
    """A stored run is not what its record says."""


class TrainingNeeded(Problem):
    """A run is missing and may not be trained here: it takes too long."""


def identity(network: str, cfg: TrainConfig, seed: int, digests: dict, recipe: int = train.RECIPE) -> str:
    """Twelve hexadecimal digits that name what is trained."""
    what = [network, config.stored_settings(cfg), recipe, seed, digests]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def run_name(network: str, cfg: TrainConfig, seed: int, parts: tuple[Part, Part]) -> tuple[str, dict]:
    """The folder name of a run, and the digests of its training and validation images and labels."""
    digests = dict(zip(("training", "validation"), map(data.part_digest, parts), strict=True))
    return f"{network}-{identity(network, cfg, seed, digests)}", digests


def load_or_train(network: str, profile: str = "full", seed: int = 0, device: str = "auto", train_minutes: float = 2,
                  changes: dict | None = None) -> Run:  # fmt: skip
    """Load the run with this identity if it is stored and verifies; train it and keep it in the cache if it is missing.

    changes: hyper-parameters that differ from the profile's, by network: {"ImprovedNet": {"epochs": 20}}.
    Raises CorruptRun, TrainingNeeded if the estimate exceeds `train_minutes`, files.Busy if another process trains it.
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


def train_run(network: str, cfg: TrainConfig, profile: str, seed: int, device: train.Device, parts: tuple[Part, Part],
              store: Path, quiet: bool = False) -> Run:  # fmt: skip
    """Train a run, going on from its resume state if there is one, and save it in the folder `store`."""
    name, digests = run_name(network, cfg, seed, parts)
    code = commit()  # before training: the code may be edited while it runs
    log = (lambda line: None) if quiet else functools.partial(print, flush=True)
    fresh = models.build(network)
    with files.only_here(_state(name).with_suffix(".lock"), f"training {name}"):
        trained = train.fit(network, cfg, *parts, seed, device, _state(name), log)
        record = {
            "network": network, "profile": profile, "config": config.stored_settings(cfg),
            "recipe": train.RECIPE, "seed": seed, "data": digests, "device": "; ".join(trained.devices),
            "device_label": trained.devices[0].split(", ")[-1],  # of the first sitting, as the first losses are
            "parameters": models.parameters(fresh),
            "flop": 6 * models.macs(fresh) * cfg.epochs * len(parts[0].labels),  # 2 forward, 4 backward
            "seconds": round(sum(row["seconds"] for row in trained.history)), "epochs": cfg.epochs,
            "best_epoch": min(trained.history, key=lambda row: row["validation_loss"])["epoch"],
            "date": datetime.now(UTC).date().isoformat(), "commit": code,
            "versions": {package: version(package) for package in ("torch", "numpy", "scikit-learn")},
        }  # fmt: skip
        history = {"first_losses": trained.first_losses, "epochs": trained.history}
        save(store / name, record, history, weights=trained.weights)
        _state(name).unlink(missing_ok=True)
    return load(store / name)


def _state(name: str) -> Path:
    return config.CACHE / "states" / f"{name}.pt"


def save(folder: Path, record: dict, history: dict, **tensors: dict[str, torch.Tensor]) -> None:
    """Write the run beside its place and move it there whole. tensors: what to keep as weights and as logits."""
    with files.scratch(folder.with_name(f".{folder.name}.new")) as partial:
        files.write(partial / "history.json", json.dumps(history, indent=1) + "\n")
        for name, kept in tensors.items():  # safetensors' own file writing has errors of its own for a full disk
            content = safetensors.torch.save({k: v.contiguous() for k, v in kept.items()})
            files.write(partial / f"{name}.safetensors", content)
        digests = {path.name: files.digest(path) for path in sorted(partial.iterdir())}
        record = {**record, "files": digests | {"run.json": record_digest(record)}}
        files.write(partial / "run.json", json.dumps(record, indent=1) + "\n")
        files.replace(partial, folder)


def load(folder: Path) -> Run:
    """Read a stored run. Raises CorruptRun, naming the file, if anything differs from its record."""
    try:
        record = json.loads((folder / "run.json").read_text())
        allowed = {field.name for field in fields(TrainConfig)}
        required = {field.name for field in fields(TrainConfig) if field.default is MISSING}
        if not required <= record["config"].keys() <= allowed:
            raise CorruptRun(f"{folder.name} is from a version with other settings: delete the folder and train again.")
        digests, network, cfg = dict(record["files"]), record["network"], TrainConfig(**record["config"])
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
        if name not in FILES or not (folder / name).is_file() or files.digest(folder / name) != digest:
            raise _corrupt(folder, name)
    history, model, logits = json.loads((folder / "history.json").read_text()), None, {}
    try:
        if "weights.safetensors" in digests:
            model = models.build(network)
            model.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
            model.eval()
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise _corrupt(folder, "weights.safetensors") from error
    if "logits.safetensors" in digests:
        logits = {part: z.numpy() for part, z in safetensors.torch.load_file(folder / "logits.safetensors").items()}
    return Run(model, pd.DataFrame(history["epochs"]), history["first_losses"], record, logits)


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


def facts(run: Run) -> dict:
    """What results.json says about a run."""
    keys = ("parameters", "flop", "epochs", "best_epoch", "seconds", "device", "date", "seed", "recipe", "config")
    return {key: run.record[key] for key in keys} | {"minutes": run.record["seconds"] / 60}


def check_replay(run: Run, replayed: list[float], device: train.Device) -> str:
    """Compare replayed first losses (nats) with the recorded ones; returns the outcome as a sentence.

    Raises CorruptRun if they differ by more than REPLAY_TOLERANCE on the same kind of device and precision.
    """
    difference = float(np.abs(np.subtract(run.first_losses, replayed)).max())
    says = f"Its first {len(replayed)} steps, replayed here, differ from the recorded losses by up to {difference:.1g}"
    if device.label != run.record["device_label"]:
        return f"{says}; it was trained with {run.record['device_label']}, this is {device.label}."
    if not difference <= REPLAY_TOLERANCE:  # nor is it a number
        raise CorruptRun(f"{says}: the code or the data are not those that trained {run.record['network']}.")
    if difference == 0:
        return f"Its first {len(replayed)} steps, replayed here, give exactly the recorded losses."
    return f"{says}."


def when_where(record: dict) -> str:
    """When, where and how long a run was trained, in words."""
    return f"trained on {record['date']} on {record['device']} in {record['seconds'] / 60:.0f} min"


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


def retrain(device: str = "auto", networks=config.NETWORKS) -> None:
    """Train the published runs from scratch, resumable: interrupted, the same command goes on where it stopped."""
    parts, chosen = data.train_validation("full"), train.pick_device(device)
    names = {network: run_name(network, config.train_config(network, "full"), 0, parts)[0] for network in networks}
    finished = config.CACHE / "states" / "retrained"  # what an interrupted retraining has finished, a name a line
    done = finished.read_text().split() if finished.exists() else []
    for network in networks:
        if names[network] in done and (config.PUBLISHED / names[network]).is_dir():
            continue
        cfg = config.train_config(network, "full")
        minutes = train.estimate_seconds(network, cfg, *parts, chosen) / 60
        print(f"{network}: training {cfg.epochs} epochs takes about {minutes:.0f} min", flush=True)
        train_run(network, cfg, "full", 0, chosen, parts, config.PUBLISHED)
        for superseded in set(config.PUBLISHED.glob(f"{network}-*")) - {config.PUBLISHED / names[network]}:
            shutil.rmtree(superseded)
        done.append(names[network])
        files.write(finished, "\n".join(done))
    finished.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=retrain.__doc__)
    parser.add_argument("command", choices=["retrain"])
    parser.add_argument("networks", nargs="*", default=config.NETWORKS, help="which networks (default: both)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    arguments = parser.parse_args()
    with ending("Stopped. The same command goes on from the last finished epoch."):
        retrain(arguments.device, arguments.networks)
