"""Training: one plain loop, the checkpoint of the lowest validation loss, exact resume."""

import hashlib
import io
import math
import platform
import re
import time
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import augment, files, models
from helpers.errors import BadInput, Problem
from helpers.config import DEVICES, ROOT, TrainConfig
from helpers.data import Part
from helpers.inference import infer, keep_freed_memory, normalise, to_unit

RECIPE = 1  # raise it whenever the same configuration would no longer give the same losses
NOT_CODE = (tokenize.COMMENT, tokenize.NL)
STARTS = (tokenize.ENCODING, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)  # a docstring follows one of these
REPLAY_STEPS = 20  # the first losses of a run, kept so that anyone can replay them


class Device(NamedTuple):
    """Where to train, and the precision of the forward pass (weights and updates are always float32)."""

    kind: str  # "cpu", "cuda" or "mps"
    precision: torch.dtype

    @property
    def label(self) -> str:
        """For instance "cpu/bfloat16": runs with the same label should agree in their first losses."""
        return f"{self.kind}/{str(self.precision).removeprefix('torch.')}"


class Trained(NamedTuple):
    """The best weights, one row of history an epoch, the first step losses, and the devices that were used."""

    weights: dict[str, Tensor]
    history: list[dict]
    first_losses: list[float]
    devices: list[str]


class Diverged(Problem):
    """Raised when the loss is no longer finite."""


def pick_device(name: str = "auto") -> Device:
    """Choose where to train: the GPU where there is one ("auto"), or "cpu", "cuda" (NVIDIA) or "mps" (Apple).

    The precision is bfloat16 where the hardware computes in it. Raises BadInput for another name,
    or for a GPU that PyTorch does not see.
    """
    if name not in DEVICES:
        raise BadInput(f"device must be one of {', '.join(DEVICES)}, not {name!r}.")
    seen = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if seen["cuda"] else "mps" if seen["mps"] else "cpu"
    if not seen[name]:
        raise BadInput(f"device is {name}, but PyTorch sees no such GPU here: use device = 'auto' or 'cpu'.")
    native = {
        "cpu": torch.cpu._is_avx512_bf16_supported,
        "cuda": lambda: torch.cuda.get_device_capability() >= (8, 0),
        "mps": lambda: False,
    }
    return Device(name, torch.bfloat16 if native[name]() else torch.float32)


def device_name(device: Device) -> str:
    """The processor in words, for the record of a run."""
    if device.kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    threads = torch.get_num_threads()
    return f"{match[1].strip() if match else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def code_digest() -> str:
    """SHA-256 of the code that decides what a training computes, without its comments, docstrings and layout."""
    digest = hashlib.sha256()
    for name in ("augment", "inference", "models", "train"):
        with (ROOT / "helpers" / f"{name}.py").open("rb") as file:
            tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in NOT_CODE]
        for before, token in pairwise(tokens):
            docstring = token.type == tokenize.STRING and before.type in STARTS
            if not docstring and token.type not in STARTS:
                digest.update("".join(token.string.split()).encode())
    return digest.hexdigest()


def make_optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW (Loshchilov and Hutter 2019); biases and norm parameters do not decay."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": cfg.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=cfg.peak_lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=cfg.peak_lr, fused=True)


def lr_at(cfg: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then constant or cosine to zero at the end (Loshchilov and Hutter 2017). Steps count from 0."""
    warmup, total = cfg.warmup_epochs * steps_per_epoch, cfg.epochs * steps_per_epoch
    if step < warmup:
        return cfg.peak_lr * (step + 1) / warmup
    if cfg.schedule == "constant":
        return cfg.peak_lr
    return cfg.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def training_batch(images: Tensor, cfg: TrainConfig) -> Tensor:
    """Bytes -> augmented, normalised floats: (n, 32, 32, 3) -> (n, 3, 32, 32)."""
    x = augment.colour(augment.geometry(to_unit(images), cfg), cfg)
    return augment.erasing(normalise(x), cfg).contiguous(memory_format=torch.channels_last)


def epoch_steps(model, optimizer, cfg, images, labels, seed, epoch, device) -> Iterator[tuple[Tensor, Tensor, int]]:
    """One pass over the training images; after each step yields loss, number correct and number of images.

    The loss is that of the batch before the step, without label smoothing, to compare with the validation loss.
    """
    keep_freed_memory()
    torch.manual_seed(1_000_003 * seed + epoch)  # order, augmentation and dropout depend on seed and epoch alone
    batches = torch.randperm(len(labels)).to(labels.device).split(cfg.batch_size)
    model.train()
    for i, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(cfg, (epoch - 1) * len(batches) + i, len(batches))
        x, y = training_batch(images[rows], cfg), labels[rows]
        with torch.autocast(device.kind, device.precision, enabled=device.precision != torch.float32):
            logits = model(x)
        logits = logits.float()
        optimizer.zero_grad()
        F.cross_entropy(logits, y, label_smoothing=cfg.label_smoothing).backward()
        optimizer.step()
        yield F.cross_entropy(logits.detach(), y), (logits.argmax(dim=1) == y).sum(), len(rows)


def fit(network: str, cfg: TrainConfig, train: Part, validation: Part, seed: int, device: Device,
        state_file: Path | None = None, log=print, last: int | None = None) -> Trained:
    """Train from scratch, or go on from `state_file` if it exists; the file is brought up to date after every epoch.

    last: the epoch after which to stop, with the schedule of the whole length (default: the whole).
    On the CPU the same arguments give the same weights bit for bit, also when stopped after any epoch and resumed.
    Raises Diverged when the loss is no longer finite.
    """
    model = models.build(network, seed).to(device.kind)
    optimizer = make_optimizer(model, cfg)
    images, labels = to_tensors(train, device)
    best, history, first_losses, devices = {}, [], [], []
    if state_file is not None and state_file.exists():
        best, history, first_losses, devices = _restore(state_file, model, optimizer, device)
        log(f"{network}: going on after epoch {len(history)} of {cfg.epochs}")
    devices = list(dict.fromkeys([*devices, f"{device_name(device)}, {device.label}"]))
    for epoch in range(len(history) + 1, (last or cfg.epochs) + 1):
        began = time.perf_counter()
        steps = list(epoch_steps(model, optimizer, cfg, images, labels, seed, epoch, device))
        losses, correct, sizes = (torch.as_tensor(column, dtype=torch.float32) for column in zip(*steps, strict=True))
        validation_loss, validation_accuracy = evaluate(model, validation)
        if not (losses.isfinite().all() and math.isfinite(validation_loss)):
            raise Diverged(f"{network}: the loss is not finite in epoch {epoch}: lower peak_lr ({cfg.peak_lr}).")
        if epoch == 1:
            first_losses = losses[:REPLAY_STEPS].tolist()
        if validation_loss < min((row["validation_loss"] for row in history), default=math.inf):
            best = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
        history.append({
            "epoch": epoch, "lr": optimizer.param_groups[0]["lr"],
            "train_loss": float(losses @ sizes / sizes.sum()), "train_accuracy": float(correct.sum() / sizes.sum()),
            "validation_loss": validation_loss, "validation_accuracy": validation_accuracy,
            "seconds": time.perf_counter() - began,
        })
        if state_file is not None:
            _save(state_file, model, optimizer, best, history, first_losses, devices)
        log(epoch_line(network, history, cfg.epochs))
    return Trained(best, history, first_losses, devices)


def epoch_line(network: str, history: list[dict], epochs: int) -> str:
    """One line on the last epoch, with the time left."""
    row = history[-1]
    left = (epochs - len(history)) * float(np.median([r["seconds"] for r in history[-5:]]))
    return (
        f"{network} {row['epoch']:3d}/{epochs}  train {row['train_loss']:.3f} {row['train_accuracy']:6.2%}  "
        f"validation {row['validation_loss']:.3f} {row['validation_accuracy']:6.2%}  lr {row['lr']:.1e}  "
        f"{row['seconds']:.0f} s  {left / 60:.0f} min left"
    )


def to_tensors(part: Part, device: Device) -> tuple[Tensor, Tensor]:
    """Images and labels as tensors on the device, where they stay for the whole training."""
    return torch.tensor(part.images, device=device.kind), torch.tensor(part.labels, device=device.kind).long()


def evaluate(model: nn.Module, part: Part) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy, each divided by the number of images that were really seen."""
    prediction = infer(model, part.images)
    loss = F.cross_entropy(torch.from_numpy(prediction.logits), torch.tensor(part.labels).long())
    return loss.item(), float((prediction.labels == part.labels).mean())


def _save(path: Path, model, optimizer, best, history, first_losses, devices) -> None:
    file = io.BytesIO()  # torch.save has errors of its own for a full disk
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": best, "history": history,
                "first_losses": first_losses, "devices": devices}, file)
    content = file.getvalue()
    files.write(path, hashlib.sha256(content).digest() + content)  # torch.load would not notice most flipped bits


def _restore(path: Path, model, optimizer, device: Device) -> tuple[dict, list, list, list]:
    stored = path.read_bytes()
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        raise Problem(f"the resume state {path} is damaged: delete it to start from scratch.")
    state = torch.load(io.BytesIO(content), map_location=device.kind, weights_only=True)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError):
        raise Problem(f"the resume state {path} is of another network: delete it to start from scratch.") from None
    return state["best"], state["history"], state["first_losses"], state["devices"]


def replay(network: str, cfg: TrainConfig, train: Part, seed: int, device: Device) -> list[float]:
    """The losses of the first steps of a run, computed again from scratch."""
    model = models.build(network, seed).to(device.kind)
    images, labels = to_tensors(train, device)
    steps = epoch_steps(model, make_optimizer(model, cfg), cfg, images, labels, seed, 1, device)
    return [loss.item() for loss, _, _ in islice(steps, REPLAY_STEPS)]


def replay_epochs(
    network: str, cfg: TrainConfig, train: Part, validation: Part, seed: int, device: Device, epochs: int
) -> list[dict]:
    """The history of the first epochs of a run, computed again from scratch."""
    return fit(network, cfg, train, validation, seed, device, log=lambda line: None, last=epochs).history


def plain(cfg: TrainConfig) -> TrainConfig:
    """The same configuration at a constant rate without augmentation, decay and smoothing, for the one-batch check."""
    return replace(cfg, schedule="constant", warmup_epochs=0, weight_decay=0.0, crop_padding=0, flip=0.0,
                   rotation=0.0, jitter=0.0, erasing=0.0, label_smoothing=0.0)


def overfit(network: str, cfg: TrainConfig, batch: Part, steps: int, device: Device) -> list[float]:
    """The losses of training on one batch alone: a network and a loop that work drive them to zero."""
    model = models.build(network).to(device.kind)
    images, labels = to_tensors(batch, device)
    optimizer = make_optimizer(model, cfg)
    losses = []
    for epoch in range(1, steps + 1):
        for loss, _, _ in epoch_steps(model, optimizer, cfg, images, labels, 0, epoch, device):
            losses.append(loss.item())
    return losses


def estimate_seconds(network: str, cfg: TrainConfig, train: Part, validation: Part, device: Device) -> float:
    """Seconds that the whole training would take, from timing a few steps and one validation batch here."""
    model = models.build(network).to(device.kind)
    images, labels = to_tensors(train, device)
    steps = epoch_steps(model, make_optimizer(model, cfg), cfg, images, labels, 0, 1, device)
    marks = [time.perf_counter()]
    for loss, _, _ in islice(steps, 6):
        loss.item()  # waits for a GPU
        marks.append(time.perf_counter())
    step = float(np.median(np.diff(marks)))
    began, some = time.perf_counter(), validation.images[:500]
    infer(model, some)
    check = (time.perf_counter() - began) * len(validation.images) / len(some)
    return (step * math.ceil(len(labels) / cfg.batch_size) + check) * cfg.epochs
