"""`make retrain`: train the published runs from scratch."""

import argparse
import shutil

from helpers import config, data, files, runs, train
from helpers.errors import exit_cleanly


def retrain(device: str = "auto", networks=config.NETWORKS) -> None:
    """Train the published runs from scratch, resumable: interrupted, the same command goes on where it stopped."""
    parts, chosen = data.train_validation("full"), train.pick_device(device)
    names = {network: runs.run_name(network, config.train_config(network, "full"), 0, parts)[0] for network in networks}
    finished = config.CACHE / "states" / "retrained"  # what an interrupted retraining has finished, a name a line
    done = finished.read_text().split() if finished.exists() else []
    for network in networks:
        if names[network] in done and (config.PUBLISHED / names[network]).is_dir():
            continue
        cfg = config.train_config(network, "full")
        minutes = train.estimate_seconds(network, cfg, *parts, chosen) / 60
        print(f"{network}: training {cfg.epochs} epochs takes about {minutes:.0f} min", flush=True)
        runs.train_run(network, cfg, "full", 0, chosen, parts, config.PUBLISHED)
        for superseded in set(config.PUBLISHED.glob(f"{network}-*")) - {config.PUBLISHED / names[network]}:
            shutil.rmtree(superseded)
        done.append(names[network])
        files.write(finished, "\n".join(done))
    finished.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=retrain.__doc__)
    parser.add_argument("command", choices=["retrain"])
    parser.add_argument("networks", nargs="*", default=config.NETWORKS, help="which networks (default: both)")
    parser.add_argument("--device", default="auto", choices=config.DEVICES)
    arguments = parser.parse_args()
    with exit_cleanly("Stopped. The same command goes on from the last finished epoch."):
        retrain(arguments.device, arguments.networks)
