"""`make bench`: how fast training runs here, beside the way such coursework is usually written.

Contenders take turns in one process, so that whatever else the machine does meets all of them; the table gives the
median over rounds and the range. What counts as usual: torchvision's transforms of the same recipe on one PIL image
after another, a DataLoader with two workers, the default memory layout, float32.
"""

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

from helpers import config, data, files, models, notebook, train
from helpers.config import FAST, IMPROVED, QUICK_EPOCHS, TrainConfig
from helpers.data import CIFAR10_MEAN, CIFAR10_STD, Part
from helpers.errors import Problem, exit_cleanly
from helpers.report import publish
from helpers.torchvision_compat import transforms_v2 as T

RESULT = config.ROOT / "reports" / "bench.json"
FLOAT32 = train.Device("cpu", torch.float32)
USUAL = "ImprovedNet, the usual way"
GPU_EPOCHS = 16  # of FastNet, its most accurate length
# Epochs until a network gets 91.4% of the test images, the reference's accuracy, right.
EPOCHS_TO_GOAL = {"ImprovedNet": IMPROVED.epochs, "FastNet": QUICK_EPOCHS["FastNet"]}


class Contender(NamedTuple):
    """What is timed: steps of a network with a recipe on a device, as `make` takes them."""

    network: str
    cfg: TrainConfig
    device: train.Device
    make: Callable[[], Generator]


class PILImages(torch.utils.data.Dataset):
    """One transformed image and its label at a time, as coursework usually has it."""

    def __init__(self, part: Part, cfg: TrainConfig):
        self.part = part
        self.transform = T.Compose(
            [
                T.RandomCrop(32, padding=cfg.crop_padding),
                T.RandomHorizontalFlip(cfg.flip),
                T.RandomRotation(cfg.rotation),
                T.ColorJitter(cfg.jitter, cfg.jitter, cfg.jitter),
                T.ToImage(),
                T.ToDtype(torch.float32, scale=True),
                T.Normalize(CIFAR10_MEAN, CIFAR10_STD),
                T.RandomErasing(cfg.erasing),
            ]
        )

    def __len__(self):
        return len(self.part.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.part.images[i])), int(self.part.labels[i])


def usual_steps(part: Part, cfg: TrainConfig) -> Generator[float, None, None]:
    """One epoch of training steps in the usual way; yields their losses."""
    model = models.build("ImprovedNet").to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.peak_lr, weight_decay=cfg.weight_decay)
    criterion = nn.CrossEntropyLoss(label_smoothing=cfg.label_smoothing)
    loader = torch.utils.data.DataLoader(PILImages(part, cfg), batch_size=cfg.batch_size, shuffle=True, num_workers=2)
    try:
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            yield loss.item()
    except RuntimeError as error:
        if "shared memory" not in str(error) and "Bus error" not in str(error):
            raise
        raise Problem(
            "the DataLoader's workers need more shared memory: start the container with --shm-size=1g."
        ) from None


def our_steps(network: str, part: Part, cfg: TrainConfig, device: train.Device) -> Generator[float, None, None]:
    """One epoch of training steps as the published runs take them; yields their losses."""
    model = train.start(network, part, 0, device)
    images, labels = train.to_tensors(part, device)
    optimizers = train.make_optimizers(model, cfg)
    step = train.make_step(model, cfg, images, labels, device)
    for loss, _, _ in train.epoch_steps(step, model, optimizers, cfg, labels, 0, 1):
        yield loss.item()  # which waits for a GPU


def matmul_steps(precision: torch.dtype, size: int = 1024) -> Generator[None, None, None]:
    """Products of two matrices, the arithmetic that a CPU does best."""
    a, b = torch.rand(size, size).to(precision), torch.rand(size, size).to(precision)
    while True:
        torch.mm(a, b)
        yield


def contenders(part: Part, cfg: TrainConfig, device: train.Device) -> dict[str, Contender]:
    """What is timed, by its name in the table. cfg: the recipe of ImprovedNet."""

    def ours(network: str, cfg: TrainConfig, device: train.Device) -> Contender:
        return Contender(network, cfg, device, lambda: our_steps(network, part, cfg, device))

    precision = device.label.split("/")[1]
    found = {
        USUAL: Contender("ImprovedNet", cfg, FLOAT32, lambda: usual_steps(part, cfg)),
        "ImprovedNet, float32": ours("ImprovedNet", cfg, FLOAT32),
        "ImprovedNet, float32, no augmentation": ours("ImprovedNet", train.plain(cfg), FLOAT32),
    }
    if device != FLOAT32:
        found[f"ImprovedNet, {precision}"] = ours("ImprovedNet", cfg, device)
    found[f"FastNet, {precision}"] = ours("FastNet", FAST, device)
    return found


def seconds_a_step(make: Callable[[], Generator], steps: int) -> float:
    """Mean seconds a step, after a quarter as many steps to warm up (and to use up what workers prepared)."""
    with closing(make()) as running:
        for _ in islice(running, max(1, steps // 4)):
            pass
        began = time.perf_counter()
        done = sum(1 for _ in islice(running, steps))
        return (time.perf_counter() - began) / done


def measure(part: Part, cfg: TrainConfig, device: train.Device, steps: int, rounds: int) -> dict:
    """Take turns `rounds` times; returns the rates of matrix products by precision, and a dict a contender.

    steps: of ImprovedNet; FastNet takes as many as see about the same number of images.
    """
    timed = contenders(part, cfg, device)
    taken: dict[str, list[float]] = {name: [] for name in timed}
    products: dict[torch.dtype, list[float]] = {each.device.precision: [] for each in timed.values()}
    for _ in range(rounds):
        for name, each in timed.items():
            as_many = max(1, round(steps * cfg.batch_size / each.cfg.batch_size))
            taken[name].append(seconds_a_step(each.make, as_many))
        for precision, rates in products.items():
            multiply = functools.partial(matmul_steps, precision)
            rates.append(2 * 1024**3 / seconds_a_step(multiply, steps) / 1e9)
    peak = {precision: float(np.median(rates)) for precision, rates in products.items()}
    rows = [_row(name, each, taken, peak, len(part.labels)) for name, each in timed.items()]
    return {"matmul_gflops": {str(p).removeprefix("torch."): rate for p, rate in peak.items()}, "rows": rows}


def _row(name: str, contender: Contender, taken: dict, peak: dict, images: int) -> dict:
    """What the turns of one contender say: rates, and the minutes to the goal where it can reach it."""
    network, cfg, device, _ = contender
    seconds, rate = np.array(taken[name]), cfg.batch_size / np.array(taken[name])
    gflops = 6 * models.macs(models.build(network)) * float(np.median(rate)) / 1e9  # 2 forward, 4 backward
    epoch = images / float(np.median(rate))
    same_work = network == "ImprovedNet"
    return {
        "what": name,
        "images_per_second": float(np.median(rate)),
        "low": float(rate.min()),
        "high": float(rate.max()),
        "epoch_seconds": epoch,
        "gflops": gflops,
        "share_of_matmul": gflops / peak[device.precision],
        "times_usual": float(np.median(np.array(taken[USUAL]) / seconds)) if same_work else None,
        "minutes_to_goal": epoch * EPOCHS_TO_GOAL[network] / 60 if cfg.flip else None,  # not without augmentation
    }


def peak_memory() -> float | None:
    """GiB that a process holds at most when it loads the data and trains ImprovedNet for 20 steps; None on Windows."""
    code = "from helpers.commands import bench; bench.train_a_little()"
    if subprocess.run([sys.executable, "-c", code], cwd=config.ROOT).returncode:
        raise Problem("training in a process of its own, to measure its memory, failed: its words are above.")
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1024**3


def train_a_little() -> None:
    """Twenty steps of ImprovedNet on the CPU."""
    training, _ = data.train_validation("full")
    for _ in islice(our_steps("ImprovedNet", training, IMPROVED, train.pick_device("cpu")), 20):
        pass


def table(result: dict) -> pd.DataFrame:
    """The rows for reading."""
    rows = pd.DataFrame(result["rows"])
    return pd.DataFrame(
        {
            "images/s": [
                f"{m:,.0f} [{low:,.0f}, {high:,.0f}]"
                for m, low, high in zip(rows["images_per_second"], rows["low"], rows["high"], strict=True)
            ],
            "s an epoch": rows["epoch_seconds"].round().astype(int),
            "GFLOP/s": rows["gflops"].round().astype(int),
            "of matmul": [f"{share:.0%}" for share in rows["share_of_matmul"]],
            "times the usual": _or_dash(rows["times_usual"], "{:.2f}"),
            "min to 91.4%": _or_dash(rows["minutes_to_goal"], "{:,.0f}"),
        }
    ).set_index(pd.Index(rows["what"], name="training"))


def _or_dash(values: pd.Series, form: str) -> list[str]:
    return ["–" if pd.isna(value) else form.format(value) for value in values]


def stored() -> dict:
    """The measurement in reports/bench.json."""
    return json.loads(RESULT.read_text())


def described(result: dict) -> str:
    """Where and how it was measured, in some sentences."""
    rates = " and ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in result["matmul_gflops"].items())
    lengths = " and ".join(f"{epochs} for {network}" for network, epochs in EPOCHS_TO_GOAL.items())
    sentences = [
        f"{result['device']}, PyTorch {result['torch']}: medians and ranges of {result['rounds']} rounds in turns, of "
        f"{result['steps']} steps each (FastNet: as many images).",
        f"Matrix products run at {rates}; each row is compared with its own precision.",
        f"The minutes to 91.4% are extrapolated: seconds an epoch times epochs, {lengths}.",
        "How long the reference trained is not known, so the usual way is given the epochs of ImprovedNet.",
    ]
    gpu = result["gpu"]
    sentences.append(
        f"On one {gpu['device']} (PyTorch {gpu['torch']}), {gpu['epochs']} epochs of FastNet take "
        f"{gpu['seconds']:.1f} s."
    )
    if memory := result["peak_memory_gib"]:
        sentences.append(f"Training ImprovedNet needs {memory:.2f} GiB of memory at most.")
    return " ".join(sentences)


def readme(text: str, result: dict) -> str:
    """README's text with its block `bench` made anew."""
    rows = table(result).reset_index().astype(str)
    content = notebook.pipe_table(list(rows.columns), rows.to_numpy().tolist())
    return publish.fill_block(text, "bench", f"{content}\n\n{described(result)}")


def on_gpu(parts: tuple[Part, Part], device: train.Device, cfg: TrainConfig) -> dict:
    """What one training of FastNet takes that has a GPU for itself, validation after each epoch included."""
    history = train.fit("FastNet", cfg, *parts, 0, device, log=lambda line: None).history
    return {
        "device": train.device_name(device),
        "torch": torch.__version__,
        "epochs": cfg.epochs,
        "seconds": sum(row["seconds"] for row in history),
        "validation_accuracy": history[-1]["validation_accuracy"],
    }


def main() -> None:
    """Measure, print, and store in reports/bench.json and README.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=40, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.rounds < 1 or not 1 <= options.steps <= 500:  # a turn and its warm-up must fit into an epoch
        parser.error("--rounds must be at least 1 and --steps between 1 and 500.")
    device = train.pick_device("cpu")
    parts = data.train_validation("full")
    memory = peak_memory()  # first: the children of the bench count too
    result = measure(parts[0], IMPROVED, device, options.steps, options.rounds)
    result |= {
        "peak_memory_gib": memory,
        "device": train.device_name(device),
        "torch": torch.__version__,
        "steps": options.steps,
        "rounds": options.rounds,
        "config": asdict(IMPROVED),
        "gpu": stored()["gpu"],  # where there is none here, the last measurement stays
    }
    if torch.cuda.is_available():
        result["gpu"] = on_gpu(parts, train.pick_device("cuda"), replace(FAST, epochs=GPU_EPOCHS))
    page = config.ROOT / "README.md"
    new_page = readme(page.read_text(encoding="utf-8"), result)
    files.write(RESULT, json.dumps(result, indent=1) + "\n")
    files.write(page, new_page)
    print(table(result).to_string())
    print(described(result))


if __name__ == "__main__":
    with exit_cleanly("Stopped; nothing was stored."):
        main()
