"""`make retrain`: train the published runs from scratch."""

import argparse
import json
import shutil
from pathlib import Path

import safetensors.numpy

from helpers import config, data, files, inference, runs, train
from helpers.errors import exit_cleanly


def retrain(device: str = "auto", networks=config.NETWORKS) -> None:
    """Train the published runs from scratch.

    After an interruption the same command goes on where it stopped.
    """
    parts, chosen = data.train_validation("full"), train.pick_device(device)
    names = {network: runs.run_name(network, config.train_config(network, "full"), 0, parts)[0] for network in networks}
    # what an interrupted retraining has finished, a name a line
    finished = config.CACHE / "states" / "retrained"
    done = finished.read_text().split() if finished.exists() else []
    for network in networks:
        if names[network] in done and (config.PUBLISHED / names[network]).is_dir():
            continue
        cfg = config.train_config(network, "full")
        minutes = train.estimate_seconds(network, cfg, *parts, chosen) / 60
        print(f"{network}: training {cfg.epochs} epochs takes about {minutes:.0f} min", flush=True)
        runs.train_run(network, cfg, "full", 0, chosen, parts, config.PUBLISHED, again=True)
        folder = config.PUBLISHED / names[network]
        for superseded in set(config.PUBLISHED.glob(f"{network}-*")) - {folder}:
            shutil.rmtree(superseded)
        done.append(names[network])
        files.write(finished, "\n".join(done))
    shown = {"validation": parts[1], "test": data.test("full")}
    for network in networks:
        add_logits(config.PUBLISHED / names[network], shown)
    finished.unlink(missing_ok=True)


def add_logits(folder: Path, parts: dict[str, data.Part]) -> None:
    """Add to a stored run its logits (n, 10) of these parts, and their labels as PART_labels.

    So the scores can be computed without CIFAR-10. A run that has logits stays as it is.
    """
    run, path = runs.load(folder), folder / "logits.safetensors"
    record = json.loads((folder / "run.json").read_text())  # run.record has newer names
    if path.name in record["files"]:
        return
    kept = {name: inference.infer(run.model, part.images).logits for name, part in parts.items()}
    kept |= {f"{name}_labels": part.labels for name, part in parts.items()}
    files.write(path, safetensors.numpy.save(kept))
    record["files"] = {path.name: files.file_digest(path), **record["files"]}
    files.write(folder / "run.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    which = "which networks (default: all)"
    parser.add_argument("networks", nargs="*", default=config.NETWORKS, help=which)
    parser.add_argument("--device", default="auto", choices=config.DEVICES)
    arguments = parser.parse_args()
    with exit_cleanly("Stopped. The same command goes on from the last finished epoch."):
        retrain(arguments.device, arguments.networks)
