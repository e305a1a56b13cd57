"""Training: one plain loop, the checkpoint of the lowest validation loss, exact resume."""

import hashlib
import io
import math
import os
import platform
import re
import sys
import time
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from helpers import augment, files, graphs, models
from helpers.config import DEVICES, ROOT, TrainConfig
from helpers.data import Part
from helpers.errors import BadInput, Problem
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
    if name == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # validation is float32 everywhere
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


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) that sets every matrix back to norm sqrt(rows) after its step.

    Batch normalisation cancels the norm of a filter, so only the direction is worth a step; a fixed
    norm keeps steps of one length turning the filters by one angle.
    """

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for matrix in group["params"]:
                matrix.mul_(len(matrix) ** 0.5 / matrix.norm())
        return loss


def muon_and_sgd(model: models.FastNet, cfg: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the filters of FastNet, SGD with Nesterov momentum for its biases and last layer.

    The constants are those of airbench (Jordan 2024), where losses are added up over a batch: hence
    the batch size in the rates. They keep their ratio to `peak_lr`. The bias of the whitening is
    trained for the first 3/8 only.
    """
    filters = [layer.weight for layer in model if isinstance(layer, models.MatrixConv)]
    norms = [layer.bias for layer in model if isinstance(layer, nn.BatchNorm2d)]
    parts = [([model.whitening.bias], 0.053, 3 / 8), (norms, 0.053, 1.0), ([model.head.weight], 0.67, 1.0)]
    groups = [
        {
            "params": params,
            "weight_decay": cfg.weight_decay / rate,
            "times": rate * cfg.batch_size / 0.24,
            "share": share,
        }
        for params, rate, share in parts
    ]
    muon = Muon(filters, lr=cfg.peak_lr, momentum=0.6, weight_decay=0.0, ns_steps=3)
    return [muon, torch.optim.SGD(groups, lr=cfg.peak_lr, momentum=0.85, nesterov=True)]


def sgd_or_adamw(model: nn.Module, cfg: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW (Loshchilov and Hutter 2019); biases and norm parameters do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": cfg.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=cfg.peak_lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=cfg.peak_lr, fused=True)


def make_optimizers(model: nn.Module, cfg: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a recipe. "muon" is two, for FastNet alone: BadInput for another network."""
    if cfg.optimizer != "muon":
        return [sgd_or_adamw(model, cfg)]
    if not isinstance(model, models.FastNet):
        raise BadInput("optimizer muon trains FastNet only: it needs filters held as matrices.")
    return muon_and_sgd(model, cfg)


def lr_at(cfg: TrainConfig, step: int, steps_per_epoch: int, share=1.0) -> float:
    """Linear warm-up, then constant or cosine to zero at the end (Loshchilov and Hutter 2017). Steps count from 0.

    A linear schedule reaches zero after `share` of the training and stays there.
    """
    warmup, total = cfg.warmup_epochs * steps_per_epoch, cfg.epochs * steps_per_epoch
    if step < warmup:
        return cfg.peak_lr * (step + 1) / warmup
    if cfg.schedule == "constant":
        return cfg.peak_lr
    if cfg.schedule == "linear":
        left = share * total - step
        return cfg.peak_lr * max(0.0, left / max(1, share * total - warmup))
    return cfg.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def training_batch(images: Tensor, cfg: TrainConfig, flip: Tensor | None = None) -> Tensor:
    """Bytes -> augmented, normalised floats: (n, 32, 32, 3) -> (n, 3, 32, 32).

    flip: (n,) booleans where it is already decided which images are mirrored.
    """
    x = augment.colour(augment.geometry(to_unit(images), cfg, flip), cfg)
    return augment.erasing(normalise(x), cfg).contiguous(memory_format=torch.channels_last)


def batch_loss(logits: Tensor, y: Tensor, cfg: TrainConfig, taught: Tensor | None = None) -> Tensor:
    """Cross-entropy with label smoothing, in nats; in part that to a teacher's logits, where there are some.

    If `cfg.bounded` is q > 0, it is (1 - p^q) / q instead, where p is the probability of the label
    (Zhang and Sabuncu 2018): a wrong label costs 1 / q at most, and q = 1 is the mean absolute error.
    Both logits (n, 10) are divided by the temperature, and the teacher's loss is multiplied by its
    square, which keeps its gradients as large as the others (Hinton et al. 2015).
    """
    loss = F.cross_entropy(logits, y, label_smoothing=cfg.label_smoothing)
    if cfg.bounded:
        power = (-cfg.bounded * F.cross_entropy(logits, y, reduction="none")).exp()  # p^q, also where p is near 0
        loss = ((1 - power) / cfg.bounded).mean()
    if taught is None:
        return loss
    targets = (taught / cfg.temperature).softmax(dim=1)
    lesson = cfg.temperature**2 * F.cross_entropy(logits / cfg.temperature, targets)
    return torch.lerp(loss, lesson, cfg.teacher_share)


def make_step(
    model: nn.Module, cfg: TrainConfig, images: Tensor, labels: Tensor, device: Device, teacher: nn.Module | None = None
) -> graphs.Step:
    """The function that computes a step: from the rows of a batch, and which are mirrored, gradients in the parameters.

    It returns the loss of the batch, without label smoothing and teacher, to compare with the
    validation loss, and the number of images classified correctly. Gradients of pieces add up to
    that of the batch; batch normalisation sees a piece at a time.
    """

    def step(rows: Tensor, flips: Tensor | None) -> tuple[Tensor, ...]:
        x, y = training_batch(images[rows], cfg, flips), labels[rows]
        size, pieces = cfg.microbatch or len(rows), []
        model.zero_grad()
        for x_piece, y_piece in zip(x.split(size), y.split(size), strict=True):
            with torch.autocast(device.kind, device.precision, enabled=device.precision != torch.float32):
                logits = model(x_piece)
                with torch.no_grad():
                    taught = teacher(x_piece).float() if teacher else None
            logits = logits.float()
            loss = batch_loss(logits, y_piece, cfg, taught)
            (loss * (len(y_piece) / len(y))).backward()
            pieces.append(logits.detach())
        logits = torch.cat(pieces)
        return F.cross_entropy(logits, y), (logits.argmax(dim=1) == y).sum()

    return graphs.recorded(step, model) if device.kind == "cuda" else step


def epoch_steps(step, model, optimizers, cfg, labels, seed, epoch) -> Iterator[tuple[Tensor, Tensor, int]]:
    """One pass over the training images; after each step yields loss, number correct and number of images."""
    keep_freed_memory()
    torch.manual_seed(1_000_003 * seed + epoch)  # order, augmentation and dropout depend on seed and epoch alone
    batches = torch.randperm(len(labels)).to(labels.device).split(cfg.batch_size)
    flips = None
    if cfg.flipping == "alternate":
        flips = augment.alternating(len(labels), cfg.flip, seed, epoch).to(labels.device)
    model.train()
    for i, rows in enumerate(batches):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            share, done = group.get("share", 1.0), (epoch - 1) * len(batches) + i
            group["lr"] = lr_at(cfg, done, len(batches), share) * group.get("times", 1.0)
        loss, correct = step(rows, None if flips is None else flips[rows])
        for optimizer in optimizers:
            optimizer.step()
        yield loss, correct, len(rows)


def start(network: str, train: Part, seed: int, device: Device) -> nn.Module:
    """The network before its first step; FastNet's first layer is fitted to 5,000 images."""
    model = models.build(network, seed)
    if isinstance(model, models.FastNet):
        models.whiten(model, normalise(to_unit(torch.tensor(train.images[:5000]))))
    return model.to(device.kind)


def fit(
    network: str,
    cfg: TrainConfig,
    train: Part,
    validation: Part,
    seed: int,
    device: Device,
    state_file: Path | None = None,
    log=print,
    last: int | None = None,
    progress: bool = False,
    told: Callable[[str, list[dict], int], str] | None = None,
    teacher: nn.Module | None = None,
) -> Trained:
    """Train from scratch, or go on from `state_file` if it exists; the file is brought up to date after every epoch.

    last: the epoch after which to stop, with the schedule of the whole length (default: the whole).
    progress: whether a bar shows the steps of each epoch. told: makes the line that `log` gets after
    an epoch, from network, history and number of epochs (default: epoch_line). teacher: a network on
    the device, in eval mode, whose logits are part of the target if `cfg` names a teacher.
    On the CPU the same arguments give the same weights bit for bit, also when stopped after any epoch and resumed.
    Raises Diverged when the loss is no longer finite.
    """
    model = start(network, train, seed, device)
    optimizers = make_optimizers(model, cfg)
    images, labels = to_tensors(train, device)
    step = make_step(model, cfg, images, labels, device, teacher)
    best: dict[str, Tensor] = {}
    history: list[dict] = []
    first_losses: list[float] = []
    devices: list[str] = []
    if state_file is not None and state_file.exists():
        best, history, first_losses, devices = _restore(state_file, model, optimizers, device)
        log(f"{network}: going on after epoch {len(history)} of {cfg.epochs}")
    devices = list(dict.fromkeys([*devices, f"{device_name(device)}, {device.label}"]))
    for epoch in range(len(history) + 1, (last or cfg.epochs) + 1):
        began = time.perf_counter()
        running = epoch_steps(step, model, optimizers, cfg, labels, seed, epoch)
        total, what = math.ceil(len(labels) / cfg.batch_size), f"{network} {epoch}/{cfg.epochs}"
        steps = list(tqdm(running, what, total, leave=False, disable=not progress))
        losses, correct, sizes = (torch.as_tensor(column, dtype=torch.float32) for column in zip(*steps, strict=True))
        validation_loss, validation_accuracy = evaluate(model, validation)
        if not (losses.isfinite().all() and math.isfinite(validation_loss)):
            raise Diverged(f"{network}: the loss is not finite in epoch {epoch}: lower peak_lr ({cfg.peak_lr}).")
        if epoch == 1:
            first_losses = losses[:REPLAY_STEPS].tolist()
        if validation_loss < min((row["validation_loss"] for row in history), default=math.inf):
            best = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
        history.append(
            {
                "epoch": epoch,
                "lr": optimizers[0].param_groups[0]["lr"],
                "train_loss": float(losses @ sizes / sizes.sum()),
                "train_accuracy": float(correct.sum() / sizes.sum()),
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "seconds": time.perf_counter() - began,
            }
        )
        if state_file is not None:
            _save(state_file, model, optimizers, best, history, first_losses, devices)
        log((told or epoch_line)(network, history, cfg.epochs))
    return Trained(best, history, first_losses, devices)


def watched() -> bool:
    """Whether someone watches: on a terminal or in JupyterLab, not where TQDM_DISABLE says otherwise."""
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    return live and not os.environ.get("TQDM_DISABLE")


def epoch_line(network: str, history: list[dict], epochs: int) -> str:
    """One line on the last epoch, with the time left."""
    row = history[-1]
    return (
        f"{network} {row['epoch']:3d}/{epochs}  train {row['train_loss']:.3f} {row['train_accuracy']:6.2%}  "
        f"validation {row['validation_loss']:.3f} {row['validation_accuracy']:6.2%}  lr {row['lr']:.1e}  "
        f"{row['seconds']:.0f} s  {minutes_left(history, epochs):.0f} min left"
    )


def minutes_left(history: list[dict], epochs: int) -> float:
    """The time that the epochs to come take if they are like the last five."""
    return (epochs - len(history)) * float(np.median([row["seconds"] for row in history[-5:]])) / 60


def to_tensors(part: Part, device: Device) -> tuple[Tensor, Tensor]:
    """Images and labels as tensors on the device, where they stay for the whole training."""
    return torch.tensor(part.images, device=device.kind), torch.tensor(part.labels, device=device.kind).long()


def evaluate(model: nn.Module, part: Part) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy, each divided by the number of images that were really seen."""
    prediction = infer(model, part.images)
    loss = F.cross_entropy(torch.from_numpy(prediction.logits), torch.tensor(part.labels).long())
    return loss.item(), float((prediction.labels == part.labels).mean())


def _save(path: Path, model, optimizers, best, history, first_losses, devices) -> None:
    file = io.BytesIO()  # torch.save has errors of its own for a full disk
    torch.save(
        {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "best": best,
            "history": history,
            "first_losses": first_losses,
            "devices": devices,
        },
        file,
    )
    content = file.getvalue()
    files.write(path, hashlib.sha256(content).digest() + content)  # torch.load would not notice most flipped bits


def _restore(path: Path, model, optimizers, device: Device) -> tuple[dict, list, list, list]:
    stored = path.read_bytes()
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        raise Problem(f"the resume state {path} is damaged: delete it to start from scratch.")
    state = torch.load(io.BytesIO(content), map_location=device.kind, weights_only=True)
    try:
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
    except (RuntimeError, ValueError, KeyError):  # KeyError: from before there were several optimizers
        raise Problem(f"the resume state {path} is of another network: delete it to start from scratch.") from None
    return state["best"], state["history"], state["first_losses"], state["devices"]


def replay(network: str, cfg: TrainConfig, train: Part, seed: int, device: Device) -> list[float]:
    """The losses of the first steps of a run, computed again from scratch."""
    model = start(network, train, seed, device)
    images, labels = to_tensors(train, device)
    step = make_step(model, cfg, images, labels, device)
    steps = epoch_steps(step, model, make_optimizers(model, cfg), cfg, labels, seed, 1)
    return [loss.item() for loss, _, _ in islice(steps, REPLAY_STEPS)]


def replay_epochs(
    network: str, cfg: TrainConfig, train: Part, validation: Part, seed: int, device: Device, epochs: int
) -> list[dict]:
    """The history of the first epochs of a run, computed again from scratch."""
    return fit(network, cfg, train, validation, seed, device, log=lambda line: None, last=epochs).history


def plain(cfg: TrainConfig) -> TrainConfig:
    """The same configuration at a constant rate without augmentation, decay and smoothing, for the one-batch check."""
    return replace(
        cfg,
        schedule="constant",
        warmup_epochs=0,
        weight_decay=0.0,
        crop_padding=0,
        flip=0.0,
        rotation=0.0,
        jitter=0.0,
        erasing=0.0,
        label_smoothing=0.0,
        flipping="random",
    )


def overfit(network: str, cfg: TrainConfig, batch: Part, steps: int, device: Device) -> list[float]:
    """The losses of training on one batch alone: a network and a loop that work drive them to zero."""
    model = start(network, batch, 0, device)
    images, labels = to_tensors(batch, device)
    optimizers = make_optimizers(model, cfg)
    step = make_step(model, cfg, images, labels, device)
    losses = []
    for epoch in range(1, steps + 1):
        for loss, _, _ in epoch_steps(step, model, optimizers, cfg, labels, 0, epoch):
            losses.append(loss.item())
    return losses


def estimate_seconds(network: str, cfg: TrainConfig, train: Part, validation: Part, device: Device) -> float:
    """Seconds that the whole training would take, from timing a few steps and one validation batch here."""
    model = start(network, train, 0, device)
    images, labels = to_tensors(train, device)
    step = make_step(model, cfg, images, labels, device)
    steps = epoch_steps(step, model, make_optimizers(model, cfg), cfg, labels, 0, 1)
    marks = [time.perf_counter()]
    for loss, _, _ in islice(steps, 6):
        loss.item()  # waits for a GPU
        marks.append(time.perf_counter())
    seconds = float(np.median(np.diff(marks)))
    began, some = time.perf_counter(), validation.images[:500]
    infer(model, some)
    check = (time.perf_counter() - began) * len(validation.images) / len(some)
    return (seconds * math.ceil(len(labels) / cfg.batch_size) + check) * cfg.epochs
