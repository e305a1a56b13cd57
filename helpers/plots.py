"""Figures: arrays in, one figure out. Nothing here trains or loads.

Widths are true size: at most 6.6 in, the text width of the report, with no text below 8 pt. Text stays text in the SVG,
so that it can be searched in the report.
"""

import base64
import io
import itertools
import logging
from typing import Any

import matplotlib
import numpy as np
import seaborn
from IPython.display import display
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from helpers.config import CLASSES, ROOT

WIDTH = 6.6  # inches
FEW = 20  # images: a share of fewer says little
INK, MUTED, WRONG, TRUE = "#222222", "#666666", "#B2182B", "#009E73"
# Okabe and Ito: safe for colour-blind readers.
NETWORK_COLOURS = {"BaselineNet": "#D55E00", "ImprovedNet": "#0072B2", "FastNet": "#009E73"}
OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", INK)

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # that the Chinese font has no bold is no news
matplotlib.rcdefaults()  # a matplotlibrc of the user's must not change the report, or stop it for want of LaTeX
font_manager.fontManager.addfont(ROOT / "helpers/report/fonts/NotoSansCJK-subset.otf")
matplotlib.rcParams.update(
    {
        # The first comes with matplotlib, so figures look the same everywhere; the second is for Chinese and the like.
        "font.family": ["DejaVu Sans", "Noto Sans CJK SC", "sans-serif"],
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.4,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "svg.fonttype": "none",
        "svg.hashsalt": "cifar10-report",  # the same figure gives the same bytes
    }
)


class Chart(Figure):
    """A figure that shows itself in a notebook as one output: PNG at 200 dpi and SVG.

    The report takes the SVG. JupyterLab shows none in a notebook that it has not run itself, and takes the PNG. What
    the figure shows is also in words, `says`, which the report adds to the text for those who do not see it.
    """

    says = ""

    def __init__(self, width, height):
        super().__init__(figsize=(width, height), dpi=200, layout="constrained")
        FigureCanvasAgg(self)  # a canvas of its own: pyplot, and with it the notebook's backend, is never asked

    def render(self, kind="svg"):
        """The bytes of the "svg" or "png" file, the same each time, without blank strips above and below."""
        self.draw_without_rendering()
        self.set_layout_engine("none")  # arranged once: a second arrangement would start from the first and differ
        file, drawn, (width, height) = io.BytesIO(), self.get_tightbbox(), self.get_size_inches()
        kept = Bbox([[0, max(0, drawn.y0 - 0.02)], [width, min(height, drawn.y1 + 0.02)]])
        metadata = {"Software": None} if kind == "png" else {"Date": None}
        self.savefig(file, format=kind, metadata=metadata, bbox_inches=kept)
        return file.getvalue()

    def _ipython_display_(self):
        width, height = self.get_size_inches()
        shown = {"image/png": base64.b64encode(self.render("png")).decode(), "image/svg+xml": self.render().decode()}
        true_size = {mime: {"width": round(96 * width)} for mime in shown}  # in CSS pixels, or it looks twice as large
        plain = f"Chart of {width:.1f} by {height:.1f} inches"
        display({**shown, "text/plain": plain}, raw=True, metadata={**true_size, "alt": self.says})


# ---------------------------------------------------------------- shared by the figures below


def _colours(names):
    """A colour for every name: the networks have theirs, other names take the next free one."""
    others = itertools.cycle(OTHER_COLOURS)
    return {name: NETWORK_COLOURS.get(name) or next(others) for name in names}


def _images(images):
    """RGB images (n, h, w, 3) as floats in 0..1, from uint8 or floats in 0..1; ValueError otherwise."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or not len(images):
        raise ValueError(f"Images must have the shape (n, height, width, 3) with n >= 1, not {images.shape}.")
    if images.dtype == np.uint8:
        return images / 255
    if images.dtype.kind != "f" or images.min() < 0 or images.max() > 1:
        raise ValueError("Images must be uint8, or floats in 0..1: undo the normalisation before plotting.")
    return images


def _mosaic(rows, tile, labels=(), titles=()):
    """A chart of rows of images, each (n, h, w, 3) floats in 0..1 with n as it may be, in tiles of `tile` inches.

    labels: of the rows, on their left; titles: of the columns, above them.
    """
    height, width = rows[0].shape[1:3]
    gap = max(1, height // 16)
    columns = max(len(row) for row in rows)
    canvas = np.ones((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = image
    label_width = 0.07 * max(map(len, labels), default=0)
    title_height = 0.15 * max((title.count("\n") + 1 for title in titles), default=0)
    chart = Chart(label_width + tile * columns + 0.15, tile * len(rows) + 0.1 + title_height)
    ax = chart.subplots()
    ax.imshow(canvas, interpolation="nearest")
    ax.set_anchor("SE")  # spare room goes to labels and titles
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    ax.set_xticks([j * (width + gap) + width / 2 for j in range(len(titles))], titles)
    ax.set_yticks([i * (height + gap) + height / 2 for i in range(len(labels))], labels)
    ax.tick_params(length=0)
    return chart


def _whole(axis):
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _percent(axis, decimals=0):
    axis.set_major_formatter(PercentFormatter(1, decimals=decimals))


def _signed(value, decimals=4):
    return f"{value:+.{decimals}f}".replace("-", "−")


def _listed(parts):
    """Parts of a sentence, as the sentence."""
    return f"{'; '.join(parts)}."


# ---------------------------------------------------------------- data


def class_examples(images, labels, per_class=8):
    """One row a class: its first `per_class` images. images (n, h, w, 3), uint8 or floats in 0..1; labels (n,) int."""
    firsts = [np.flatnonzero(np.asarray(labels) == k)[:per_class] for k in range(len(CLASSES))]
    shown = _images(np.asarray(images)[np.concatenate(firsts)])  # only these: all as floats would take a gigabyte
    return _mosaic(np.split(shown, np.cumsum([len(first) for first in firsts])[:-1]), 0.27, CLASSES)


def augmentations(columns):
    """One column an operation: columns maps its name to (n, h, w, 3) images, uint8 or floats in 0..1, n in each."""
    rows = [np.stack(row) for row in zip(*map(_images, columns.values()), strict=True)]
    return _mosaic(rows, min(0.9, (WIDTH - 0.15) / len(columns)), titles=list(columns))


def channel_histograms(images):
    """Share of pixels at each of the 256 levels, a panel a channel, with mean and deviation (line and band).

    images (n, h, w, 3) uint8.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"Channel histograms need raw uint8 images, not {images.dtype}.")
    _images(images[:1])
    chart, levels = Chart(WIDTH, 1.9), np.arange(256) / 255
    for c, ax in enumerate(chart.subplots(1, 3, sharex=True, sharey=True)):
        share = np.bincount(images[..., c].ravel(), minlength=256) / images[..., c].size
        mean = (share * levels).sum()
        deviation = np.sqrt((share * (levels - mean) ** 2).sum())
        name, colour = (("red", "#C0392B"), ("green", "#1E8449"), ("blue", "#2471A3"))[c]
        ax.fill_between(levels, share, color=colour, alpha=0.6, linewidth=0, step="mid")
        ax.axvline(mean, color=INK, linewidth=1)
        ax.axvspan(mean - deviation, mean + deviation, color=INK, alpha=0.07, linewidth=0)
        ax.set_title(f"{name}: {mean:.4f} ± {deviation:.4f}", fontsize=8.5)
        ax.set(xlim=(0, 1), xticks=(0, 0.5, 1), ylim=(0, None))
        _percent(ax.yaxis, 1)
    chart.supxlabel("pixel value (255 = 1)", fontsize=9)
    chart.axes[0].set_ylabel("share of pixels")
    chart.says = _listed(ax.get_title() for ax in chart.axes)
    return chart


# ---------------------------------------------------------------- training


def schedule(lrs, unit="epoch"):
    """Learning rate of every epoch (or step, or whatever `unit` says): lrs (n,) floats."""
    chart = Chart(4.2, 2)
    ax = chart.subplots()
    lrs = np.asarray(lrs)  # of a table, the last is not [-1]
    ax.plot(np.arange(1, len(lrs) + 1), lrs, color=INK)
    ax.set(xlabel=unit, ylabel="learning rate", ylim=(0, None))
    _whole(ax.xaxis)
    chart.says = f"It is {lrs[0]:.2g} at first, {max(lrs):.2g} at most and {lrs[-1]:.2g} at the end."
    return chart


def learning_curves(histories):
    """Loss (nats) and accuracy by epoch; a dot marks the epoch of the lowest validation loss.

    histories maps a network to its DataFrame: epoch, train_loss, train_accuracy, validation_loss, validation_accuracy
    (accuracies 0..1).
    """
    chart, colours = Chart(WIDTH, 1.85), _colours(histories)
    for ax, quantity in zip(chart.subplots(1, 2), ("loss", "accuracy"), strict=True):
        later = []  # than the first twentieth of the epochs, which may leave the axis
        for name, history in histories.items():
            epoch = history["epoch"].to_numpy()
            later.append(history[[f"train_{quantity}", f"validation_{quantity}"]].iloc[len(history) // 20 :])
            best = int(history["validation_loss"].to_numpy().argmin())
            for split, style in (("train", "--"), ("validation", "-")):
                label = f"{name}, {'training' if split == 'train' else split}"
                ax.plot(epoch, history[f"{split}_{quantity}"], style, color=colours[name], label=label)
            ax.plot(epoch[best], history[f"validation_{quantity}"].iloc[best], "o", color=colours[name], markersize=5)
        ax.set(xlabel="epoch", ylabel="loss (nats)" if quantity == "loss" else quantity)
        least, most = min(each.min().min() for each in later), max(each.max().max() for each in later)
        ax.set_ylim(*((0, 1.05 * most) if quantity == "loss" else (0.95 * least, 1)))
        _whole(ax.xaxis)
    _percent(chart.axes[1].yaxis)
    chart.legend(*chart.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    chart.says = _listed(
        f"{name}: the lowest validation loss is {history['validation_loss'].min():.3f}, "
        f"the last validation accuracy {history['validation_accuracy'].iloc[-1]:.1%}"
        for name, history in histories.items()
    )
    return chart


def overfit(losses):
    """Loss (nats, > 0) of every step on one and the same batch, on a logarithmic scale: losses (n,) floats."""
    chart = Chart(4.2, 2.2)
    ax = chart.subplots()
    ax.semilogy(np.arange(1, len(losses) + 1), losses, color=INK)
    ax.axhline(np.log(len(CLASSES)), color=MUTED, linewidth=1, linestyle=":")
    guessing = f"guessing: ln {len(CLASSES)} = {np.log(len(CLASSES)):.2f}"
    ax.annotate(
        guessing,
        (1, np.log(len(CLASSES))),
        (0, -3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=MUTED,
    )
    ax.set(xlabel="step", ylabel="loss (nats)")
    _whole(ax.xaxis)
    chart.says = f"It goes from {losses[0]:.2f} to {losses[-1]:.2g} nats in {len(losses)} steps."
    return chart


def replay(recorded, replayed):
    """Recorded loss of the first steps (line) and the same steps replayed now (dots), a panel a network.

    Both map a network to its losses (steps,) in nats; the replay may be the shorter one.
    """
    chart, colours = Chart(WIDTH if len(recorded) > 1 else 4.2, 2.2), _colours(recorded)
    for ax, name in zip(chart.subplots(1, len(recorded), squeeze=False)[0], recorded, strict=True):
        ax.plot(np.arange(1, len(recorded[name]) + 1), recorded[name], color=colours[name], label="recorded")
        steps = np.arange(1, len(replayed[name]) + 1)
        ax.plot(steps, replayed[name], "o", color=INK, markersize=2.6, label="replayed")
        ax.set(title=name, xlabel="step", ylabel="loss (nats)")
        _whole(ax.xaxis)
        ax.legend(loc="upper right")
    apart = {name: np.abs(np.subtract(each, recorded[name][: len(each)])).max() for name, each in replayed.items()}
    chart.says = _listed(f"{name}: at most {most:.1g} nats apart" for name, most in apart.items())
    return chart


def kernels(weights, columns=8):
    """First-layer kernels (out, 3, h, w) as colour tiles: grey is zero, each is scaled by its own largest weight."""
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 4 or weights.shape[1] != 3:
        raise ValueError(f"Kernels over RGB must have the shape (out, 3, height, width), not {weights.shape}.")
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    tiles = (0.5 + 0.5 * weights / np.maximum(largest, 1e-12)).transpose(0, 2, 3, 1)
    tiles = tiles.repeat(16, axis=1).repeat(16, axis=2)  # so that a gap is much narrower than a weight
    return _mosaic([tiles[i : i + columns] for i in range(0, len(tiles), columns)], min(0.5, 6.2 / columns))


def convolution(image, corner, patch, kernel, bias, feature_map):
    """One output of a convolution: a patch of the image, times the kernel, channel by channel, and the sums.

    image (h, w, 3), uint8 or floats in 0..1; corner: row and column of the patch in it; patch and kernel (3, k, k), as
    the layer sees and holds them; bias: a number; feature_map: the outputs (h', w') of this kernel in all places.
    """
    patch, kernel = np.asarray(patch, dtype=float), np.asarray(kernel, dtype=float)
    k, products = kernel.shape[1], patch * kernel
    chart = Chart(WIDTH, 0.22 * (3 * k + 2))
    picture, ax, outputs = chart.subplots(1, 3, width_ratios=(1, 3.1, 1))
    picture.imshow(_images(image[None])[0], interpolation="nearest")
    outputs.imshow(np.asarray(feature_map), cmap="gray", interpolation="nearest")
    for place, side in ((picture, k), (outputs, 1)):
        at = (corner[1] - 0.5, corner[0] - 0.5)
        place.add_patch(Rectangle(at, side, side, fill=False, edgecolor="#FFD400", linewidth=1.6))
    left = {"patch": 0, "kernel": k + 0.5, "products": 2 * k + 1}  # of the three blocks, in cells
    for name, values in zip(left, (patch, kernel, products), strict=True):
        shades = matplotlib.colormaps["RdBu"](0.5 + 0.3 * values / np.abs(values).max())
        for c, u, v in np.ndindex(values.shape):
            x, y = left[name] + v, c * (k + 0.4) + u
            ax.add_patch(Rectangle((x, y), 1, 1, facecolor=shades[c, u, v], edgecolor="white"))
            ax.text(x + 0.5, y + 0.5, _signed(values[c, u, v], 2), ha="center", va="center", fontsize=8)
    end = 3 * k + 1.1
    for c, channel in enumerate(("red", "green", "blue")):
        middle = c * (k + 0.4) + k / 2
        ax.text(-0.2, middle, channel, ha="right", va="center", fontsize=8)
        for sign, x in (("×", k + 0.25), ("=", 2 * k + 0.75)):
            ax.text(x, middle, sign, ha="center", va="center")
        ax.text(end, middle, f"sum {_signed(products[c].sum())}", va="center", fontsize=8)
    below = 3 * k + 1.4
    ax.text(end, below - 0.2, f"bias {_signed(bias)}", va="center", fontsize=8)
    total = f"output {_signed(products.sum() + bias)}"
    ax.text(end, below + 0.6, total, va="center", fontsize=8, weight="bold")
    for name, x in left.items():
        ax.text(x + k / 2, -0.35, name, ha="center", va="center", fontsize=8.5, weight="bold")
    ax.set(xlim=(-1.2, end + 2.1), ylim=(below + 1, -0.8))
    for each in (picture, ax, outputs):
        each.set_axis_off()
    chart.says = f"The output is {_signed(products.sum() + bias)}."
    return chart


def flowchart(rows, loop):
    """Boxes in rows, joined by arrows from left to right and from the end of a row to the start of the next.

    rows: lists of (title, text, flags...). The flag "new" fills a box, the flag "training" dashes the border of what
    takes part in training only. A row that begins with such a box branches off from the box above it; one within a
    row is also passed by. loop: the title of the box from which an arrow leads back to the first one, and its label.
    """
    chart = Chart(WIDTH, 0.55 * len(rows) + 0.1)
    ax = chart.subplots()
    ax.set(xlim=(-0.12, max(map(len, rows))), ylim=(len(rows) + 0.1, 0))
    ax.set_axis_off()
    line: dict[str, Any] = {"color": MUTED, "linewidth": 1.1}
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
    for i, row in enumerate(rows):
        for j, (title, text, *flags) in enumerate(row):
            _box(ax, (j + 0.1, i + 0.11), title, text, flags)
            if j + 1 < len(row):
                ax.annotate("", (j + 1.1, i + 0.5), (j + 0.9, i + 0.5), arrowprops=arrow)
            if "training" in flags and 0 < j < len(row) - 1 and "training" not in row[0]:
                ax.plot([j - 0.5, j - 0.5, j + 1.5], [i + 0.11, i + 0.03, i + 0.03], **line)
                ax.annotate("", (j + 1.5, i + 0.11), (j + 1.5, i + 0.03), arrowprops=arrow)
            if title == loop[0]:
                below = len(rows) + 0.04
                ax.plot([j + 0.5, j + 0.5, -0.02, -0.02], [i + 0.89, below, below, 0.5], linestyle="--", **line)
                ax.annotate("", (0.1, 0.5), (-0.02, 0.5), arrowprops=arrow)
                ax.text(-0.08, len(rows) / 2, loop[1], rotation=90, ha="center", va="center", fontsize=8)
        if i + 1 < len(rows):  # down, back to the left, and down again
            x = 0.5 if "training" in rows[i + 1][0] else len(row) - 0.5
            ax.plot([x, x, 0.5], [i + 0.89, i + 1, i + 1], **line)
            ax.annotate("", (0.5, i + 1.11), (0.5, i + 1), arrowprops=arrow)
    chart.says = _listed(" → ".join(title for title, *_ in row) for row in rows)
    return chart


def _box(ax, corner, title, text, flags):
    """A box of a flow chart, 0.8 by 0.78 units."""
    new = "new" in flags
    box = FancyBboxPatch(
        corner,
        0.8,
        0.78,
        boxstyle="round,pad=0,rounding_size=0.05",
        linewidth=1.1,
        facecolor="#CFE3F5" if new else "white",
        linestyle="--" if "training" in flags else "-",
        edgecolor=NETWORK_COLOURS["ImprovedNet"] if new else MUTED,
    )
    ax.add_patch(box)
    x, y = corner
    ax.text(x + 0.4, y + 0.16, title, ha="center", va="center", weight="bold", fontsize=8.5)
    ax.text(x + 0.4, y + 0.51, text, ha="center", va="center", fontsize=8, linespacing=1.2)


# ---------------------------------------------------------------- evaluation


def confusion(matrices):
    """Confusion matrices side by side, in images per 100 of the true class (row percent); cells that round to 0 empty.

    matrices maps a name to counts (K, K), rows true. The diagonal, which is the recall, is left white so that the
    errors stand out; the colour scale is shared. Two columns beside each matrix give precision and F1 in percent.
    """
    shares = {name: m / np.maximum(m.sum(1, keepdims=True), 1) for name, m in matrices.items()}
    off_diagonal = ~np.eye(len(CLASSES), dtype=bool)
    most = max(share[off_diagonal].max() for share in shares.values())
    chart = Chart(WIDTH if len(shares) > 1 else 4.4, 2.75 if len(shares) > 1 else 3.9)
    for ax, (name, share) in zip(chart.subplots(1, len(shares), squeeze=False)[0], shares.items(), strict=True):
        text = np.char.mod("%.0f", 100 * share)
        text[text == "0"] = ""
        seaborn.heatmap(
            np.where(off_diagonal, share, 0),
            ax=ax,
            vmin=0,
            vmax=max(most, 1e-9),
            cmap="Reds",
            cbar=False,
            square=True,
            annot=text,
            fmt="",
            annot_kws={"fontsize": 8},
            linewidths=0.5,
            linecolor="#E4E4E4",
        )
        for cell, value, is_error in zip(ax.texts, share.flat, off_diagonal.flat, strict=True):
            cell.set_color("white" if is_error and value > 0.6 * most else INK)
        counts = matrices[name]
        answers, images, hits = counts.sum(0), counts.sum(1), counts.diagonal()
        beside = {"precision": hits / np.maximum(answers, 1), "F1": 2 * hits / np.maximum(answers + images, 1)}
        columns = len(CLASSES) + 1.1 + 1.6 * np.arange(len(beside))
        for x, scores in zip(columns, beside.values(), strict=True):
            for row, score in enumerate(scores):
                ax.text(x, row + 0.5, f"{100 * score:.0f}", ha="center", va="center", fontsize=8)
        ax.set_xlim(0, columns[-1] + 0.6)
        ax.set_xticks([*np.arange(len(CLASSES)) + 0.5, *columns], [*CLASSES, *beside], rotation=90)
        ax.set_yticks(np.arange(len(CLASSES)) + 0.5, CLASSES if ax is chart.axes[0] else [], rotation=0)
        ax.grid(False)  # through the columns beside the matrix
        ax.tick_params(length=0)
        ax.set(title=name, xlabel="predicted class")
    chart.axes[0].set_ylabel("true class")
    worst = {name: np.argsort(-np.where(off_diagonal, share, 0), axis=None)[:3] for name, share in shares.items()}
    chart.says = _listed(
        f"{name} takes {100 * shares[name].flat[k]:.0f} of 100 images of {CLASSES[k // len(CLASSES)]} for "
        f"{CLASSES[k % len(CLASSES)]}"
        for name, cells in worst.items()
        for k in cells
    )
    return chart


def per_class_f1(tables):
    """F1 of every class as dots, a colour a model, classes sorted by the first model's F1.

    tables maps a model to its DataFrame from metrics.per_class (index class, column f1 in 0..1).
    """
    first, colours = next(iter(tables.values())), _colours(tables)
    order = first["f1"].sort_values(kind="stable").index
    scores = np.array([table["f1"].loc[order] for table in tables.values()])
    chart = Chart(WIDTH, 0.7 + 0.22 * len(order))
    ax = chart.subplots()
    ax.hlines(range(len(order)), scores.min(0), scores.max(0), color="#BBBBBB", linewidth=2, zorder=1)
    for name, row in zip(tables, scores, strict=True):
        ax.plot(row, range(len(order)), "o", color=colours[name], markersize=6, label=name)
    for y in range(len(order)):
        for score, offset, side in ((scores[:, y].min(), -7, "right"), (scores[:, y].max(), 7, "left")):
            ax.annotate(
                f"{score:.2f}", (score, y), (offset, 0), textcoords="offset points", ha=side, va="center", fontsize=8
            )
            if len(tables) == 1:
                break
    ax.set_yticks(range(len(order)), order)
    ax.set(xlabel="F1", xlim=(max(0, scores.min() - 0.08), min(1.06, scores.max() + 0.08)))
    ax.grid(axis="y", visible=False)
    chart.legend(loc="outside upper center", ncols=len(tables))
    chart.says = _listed(
        f"{name}: from {table['f1'].min():.2f} ({table['f1'].idxmin()}) to {table['f1'].max():.2f} "
        f"({table['f1'].idxmax()})"
        for name, table in tables.items()
    )
    return chart


def gallery(images, true, predicted, confidence, columns=6, titles=(), second=None):
    """Images with class and confidence; where the prediction is wrong, in red and framed, true → predicted class.

    images (n, h, w, 3), uint8 or floats in 0..1; true and predicted (n,) int; confidence (n,) in 0..1; titles: one
    above each row; second: classes and confidences of another network, (m,) each, below the last m images.
    """
    images = _images(images)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    tile = min(WIDTH / columns, WIDTH / 6)
    narrow = columns > 6
    names = ["auto" if name == "automobile" and columns > 8 else name for name in CLASSES]
    lines = (3 if narrow and np.any(np.not_equal(true, predicted)) else 2) + bool(titles)
    chart = Chart(tile * columns, (0.82 * tile + 0.11 + 0.13 * lines) * rows + (0.28 if second else 0))
    axes = chart.subplots(rows, columns, squeeze=False).ravel()
    for i, (ax, image, y, k, p) in enumerate(zip(axes, images, true, predicted, confidence, strict=False)):
        ax.imshow(image, interpolation="nearest")
        share = ">99.9%" if p >= 0.9995 else f"{p:.1%}"
        answer = f"{names[y]}\n→{names[k]}\n{share}" if narrow else f"{names[y]} →\n{names[k]} {share}"
        label = f"{names[y]}\n{share}" if y == k else answer
        if titles and i % columns == 0:
            above = {"xytext": (0, 9.2 * label.count("\n") + 12.5), "textcoords": "offset points"}
            title = ax.annotate(titles[i // columns], (0, 1), xycoords="axes fraction", weight="bold", **above)
            title.set_in_layout(False)  # the empty line above the label keeps its place; it may be wider than a tile
        ax.set_title(("\n" if titles else "") + label, fontsize=8, linespacing=1.15, pad=3)
        ax.title.set_color(INK if y == k else WRONG)
        ax.spines[:].set(visible=y != k, color=WRONG, linewidth=1.5)
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
    for ax in axes[len(images) :]:
        ax.remove()
    if second:
        last = len(images) - len(second[0])
        for ax, y, k, p in zip(axes[last : len(images)], true[last:], *second, strict=True):
            ax.set_xlabel(f"{names[k]}\n{p:.1%}", fontsize=8, linespacing=1.15, color=INK if y == k else WRONG)
    chart.says = _listed(
        f"{CLASSES[y]}, {p:.1%}" if y == k else f"{CLASSES[y]} taken for {CLASSES[k]}, {p:.1%}"
        for y, k, p in zip(true, predicted, confidence, strict=True)
    )
    return chart


def gallery_of(part, prediction, chosen, columns=6):
    """A gallery of the images `chosen`, indices (n,), of a Part with an inference.Prediction of all its images."""
    return gallery(
        part.images[chosen], part.labels[chosen], prediction.labels[chosen], prediction.confidence[chosen], columns
    )


def galleries(part, predictions, chosen, columns, second=None):
    """Galleries with titles as rows of one: predictions and the indices of as many images as columns, by title.

    second: the predictions of another network, shown below the images of the last row.
    """
    parts = [
        (part.images[chosen[name]], part.labels[chosen[name]], p.labels[chosen[name]], p.confidence[chosen[name]])
        for name, p in predictions.items()
    ]
    images, true, predicted, confidence = (np.concatenate(each) for each in zip(*parts, strict=True))
    last = chosen[list(predictions)[-1]]
    others = (second.labels[last], second.confidence[last]) if second else None
    return gallery(images, true, predicted, confidence, columns, list(predictions), others)


def probabilities(images, probabilities, labels):
    """Each image beside bars of its three most probable classes, the true class in green.

    images (n, h, w, 3), uint8 or floats in 0..1; probabilities (n, K) in 0..1; labels (n,) int.
    """
    images, probabilities = _images(images), np.asarray(probabilities)
    pairs = min(2, len(images))
    rows = -(-len(images) // pairs)
    chart = Chart(WIDTH / 2 * pairs, 1.05 * rows)
    axes = chart.subplots(rows, 2 * pairs, squeeze=False, width_ratios=[1, 1.6] * pairs).reshape(-1, 2)
    for (picture, bars), image, p, y in zip(axes, images, probabilities, labels, strict=False):
        picture.imshow(image, interpolation="nearest")
        picture.set(xticks=[], yticks=[])
        picture.set_title(CLASSES[y], fontsize=8, pad=3)
        best = np.argsort(-p, kind="stable")[:3]
        bars.barh(range(3), p[best], height=0.6, color=[TRUE if k == y else "#BBBBBB" for k in best])
        bars.set_yticks(range(3), [CLASSES[k] for k in best])
        for i, share in enumerate(p[best]):
            text = f"{share:.1%}"
            bars.annotate(text, (share, i), (3, 0), textcoords="offset points", va="center", fontsize=8)
        bars.set(xlim=(0, 1.45), ylim=(2.6, -0.6), xticks=[])
        bars.tick_params(length=0)
        for ax in (picture, bars):
            ax.grid(False)
            ax.spines[:].set_visible(False)
    for ax in axes[len(images) :].ravel():
        ax.remove()
    three = [[f"{CLASSES[k]} {p[k]:.1%}" for k in np.argsort(-p, kind="stable")[:3]] for p in probabilities]
    chart.says = _listed(f"{CLASSES[y]}: {', '.join(best)}" for y, best in zip(labels, three, strict=True))
    return chart


def confusion_change(before, after):
    """Errors gained (red) and lost (blue) between two confusion matrices (K, K) of the same images, rows true."""
    change = (np.asarray(after) - np.asarray(before)).astype(float)
    np.fill_diagonal(change, np.nan)
    most = np.nanmax(np.abs(change))
    texts = [["" if not x or np.isnan(x) else _signed(x, 0) for x in row] for row in change]
    chart = Chart(4.6, 3.9)
    ax = chart.subplots()
    seaborn.heatmap(
        change,
        ax=ax,
        cmap="RdBu_r",
        vmin=-most,
        vmax=most,
        annot=texts,
        fmt="",
        square=True,
        annot_kws={"fontsize": 8},
        linewidths=0.5,
        xticklabels=CLASSES,
        yticklabels=CLASSES,
        cbar_kws={"label": "images", "shrink": 0.7},
    )
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(length=0)
    ax.grid(False)
    largest = np.argsort(-np.nan_to_num(np.abs(change)), axis=None)[:3]
    chart.says = _listed(
        f"{CLASSES[k // len(CLASSES)]} taken for {CLASSES[k % len(CLASSES)]}: {_signed(change.flat[k], 0)}"
        for k in largest
    )
    return chart


def corruption_curves(rows, score, shown=None):
    """A score against severity: a panel of the mean over corruptions, then one a corruption; a line a network.

    rows: DataFrame of network, corruption, severity (0 is the images as they are) and the score, "accuracy" or "ece".
    shown: the corruptions that have a panel, by default all; the mean is that of all.
    """
    top = 1 if score == "accuracy" else 0.5
    names, networks = shown or list(dict.fromkeys(rows["corruption"])), list(dict.fromkeys(rows["network"]))
    columns = min(5, len(names) + 1)
    lines = -(-(len(names) + 1) // columns)
    chart, colours = Chart(WIDTH, 1.2 * lines + 0.45), _colours(networks)
    axes = chart.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, name in zip(axes, ["mean of all", *names], strict=False):
        for network in networks:
            mine = rows[rows["network"] == network]
            mine = mine if name == "mean of all" else mine[mine["corruption"] == name]
            line = mine.groupby("severity")[score].mean()
            ax.plot(line.index, line, "-o", ms=2.5, color=colours[network], label=network)
        ax.set_title(name.replace("_", " "), fontsize=8.5, weight="bold" if name == "mean of all" else "normal")
        ax.set(ylim=(0, top), xticks=range(0, 6), yticks=(0, top / 2, top))
        _percent(ax.yaxis)
    for ax in axes[len(names) + 1 :]:
        ax.remove()
    chart.supylabel({"accuracy": "accuracy", "ece": "ECE"}[score], fontsize=8.5)
    chart.supxlabel("severity (0: images as they are)", fontsize=8.5)
    chart.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(networks))
    mean = rows.groupby(["network", "severity"])[score].mean().unstack("network")
    first, last = mean.index.min(), mean.index.max()
    chart.says = _listed(
        f"{name}: {mean.loc[first, name]:.1%} at severity {first}, {mean.loc[last, name]:.1%} on average at {last}"
        for name in networks
    )
    return chart


# ---------------------------------------------------------------- confidence


def saliency(images, maps, titles, across=2):
    """Each image and, beside it, its heat maps over grey; `across` images a row.

    images (n, h, w, 3); maps {name: (n, h, w) in 0..1}, the name above each map; titles: n texts, one above each image.
    """
    images, columns = _images(images), 1 + len(maps)
    grey = images @ np.array([0.299, 0.587, 0.114])
    rows = -(-len(images) // across)
    chart = Chart(WIDTH, 1.15 * rows * 8 / (across * columns))
    axes = chart.subplots(rows, across * columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, block in enumerate(axes.reshape(-1, columns)[: len(images)]):
        block[0].imshow(images[i], interpolation="nearest")
        block[0].set_title(titles[i], fontsize=8)
        for ax, (name, heat) in zip(block[1:], maps.items(), strict=True):
            colour = matplotlib.colormaps["inferno"](np.asarray(heat)[i])[..., :3]
            ax.imshow(0.45 * grey[i, ..., None] + 0.55 * colour, interpolation="nearest")
            ax.set_title(name, fontsize=8)
    return chart


def reliability(tables, curves):
    """Accuracy minus confidence by bin of confidence, a column a model, and risk against coverage on the right.

    tables maps a name such as "BaselineNet, as trained" to its DataFrame from metrics.reliability. What precedes the
    comma is the model; its variants share a column. At zero, confidence is what it promises. The vertical lines are
    95 % intervals. Bins of fewer than 20 images are left out. Below is the share of images in each bin.
    curves maps a model to (coverage, risk), two arrays (n,) in 0..1, from metrics.risk_coverage.
    """
    models = list(dict.fromkeys(name.split(",")[0] for name in tables))
    chart, colours = Chart(WIDTH, 2.25), _colours(models)
    left, right = chart.subfigures(1, 2, squeeze=False, width_ratios=(1.9, 1))[0]
    axes = left.subplots(2, len(models), squeeze=False, sharex=True, sharey="row", height_ratios=[2.2, 1])
    for name, table in tables.items():
        model, _, variant = name.partition(", ")
        _gaps(axes[:, models.index(model)], table, variant or model, colours[model])
    for ax, model in zip(axes[0], models, strict=True):
        ax.axhline(0, color=MUTED, linewidth=1, linestyle=":")
        _, *dashed = [name.partition(", ")[2] for name in tables if name.split(",")[0] == model]
        ax.set_title("\n".join([model, *(f"(dashed: {variant})" for variant in dashed)]))
    axes[1, 0].set_ylim(0, None)  # of both, when all is drawn
    axes[0, 0].set_ylabel("accuracy −\nconfidence", fontsize=8)
    axes[1, 0].set_ylabel("images", fontsize=8)
    _risk_coverage(right.subplots(), curves)
    gaps = {name: 100 * (t["accuracy"] - t["confidence"])[t["count"] >= FEW] for name, t in tables.items()}
    says = [
        f"{name}: accuracy minus confidence from {_signed(gap.min(), 1)} to {_signed(gap.max(), 1)} points"
        for name, gap in gaps.items()
        if len(gap)
    ]
    for name, (_, risk) in curves.items():
        says.append(f"{name}: {risk[len(risk) // 2]:.1%} wrong in the more confident half, {risk[-1]:.1%} in all")
    chart.says = _listed(says)
    return chart


def _gaps(axes, table, label, colour):
    """One variant of a model: its gaps in the upper panel, the share of images in each bin in the lower."""
    top, bottom = axes
    first, enough = not top.lines, table[table["count"] >= FEW]
    style = {"color": colour, "alpha": 1 if first else 0.55}
    x = enough["confidence"] + (0 if first else 0.006)  # beside each other
    top.vlines(x, enough["low"] - enough["confidence"], enough["high"] - enough["confidence"], linewidth=1, **style)
    mark, inside = ("-o", colour) if first else ("--s", "white")
    gap = enough["accuracy"] - enough["confidence"]
    top.plot(x, gap, mark, markersize=3.5, label=label, markerfacecolor=inside, **style)
    top.set(xlim=(0, 1), xticks=(0.25, 0.5, 0.75, 1))
    share = table["count"] / table["count"].sum()
    bottom.stairs(share, [*table["lower"], table["upper"].iloc[-1]], fill=first, **style)
    bottom.set(xlabel="confidence")
    for axis in (top.yaxis, bottom.yaxis, bottom.xaxis):
        _percent(axis)


def _risk_coverage(ax, curves):
    """Error rate among the answered images against the share answered, most confident first."""
    colours = _colours(curves)
    for name, (coverage, risk) in curves.items():
        # 500 points are as many as the eye can tell apart, and keep the SVG small.
        shown = np.unique(np.linspace(0, len(risk) - 1, 500).astype(int))
        ax.plot(np.asarray(coverage)[shown], np.asarray(risk)[shown], color=colours[name], label=name)
    ax.set(title="risk and coverage", xlabel="share of images answered", ylabel="error rate")
    ax.set(xlim=(0, 1), ylim=(0, None))
    ax.legend(loc="upper left")
    _percent(ax.xaxis)
    _percent(ax.yaxis)


# ---------------------------------------------------------------- experiments


def effects(changes):
    """Differences in points with their intervals, in rows sorted by the first panel, with the numbers beside them.

    changes maps the title of a panel to a DataFrame of difference, low and high, as shares of 1. A row that a panel
    lacks stays empty there.
    """
    first = next(iter(changes.values()))
    order = first["difference"].sort_values().index
    order = order.append([table.index.difference(order) for table in changes.values()])
    chart = Chart(WIDTH, 0.42 + 0.155 * len(order))
    axes = chart.subplots(1, len(changes), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (title, table) in zip(axes, changes.items(), strict=True):
        points = 100 * table.loc[order.intersection(table.index, sort=False)].astype(float)
        ax.axvline(0, color=MUTED, linewidth=1)
        for row in points.itertuples():
            y = order.get_loc(row.Index)
            shown = row.low > 0 or row.high < 0
            colour = NETWORK_COLOURS["ImprovedNet"] if shown else MUTED
            ax.plot([row.low, row.high], [y, y], color=colour)
            ax.plot(row.difference, y, "o", color=colour, markersize=4.5)
            says = f"{_signed(row.difference, 1)} [{_signed(row.low, 1)}, {_signed(row.high, 1)}]"
            ax.annotate(says, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        ax.set_title(title, loc="left")
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].invert_yaxis()
    chart.says = _listed(f"{name}: {_signed(100 * first.loc[name, 'difference'], 1)} points" for name in first.index)
    return chart


def frontier(rows, cited, reference):
    """Test accuracy against the arithmetic of the training; both it and the error are on logarithmic axes.

    rows: DataFrame with network, epochs (beside each dot), accuracy and pflop; the lengths of one network are joined.
    cited: network, accuracy and pflop, hollow. reference: an accuracy of unknown cost, the dashed line. Accuracies are
    0..1.
    """
    chart, colours = Chart(WIDTH, 1.6), _colours(rows["network"].unique())
    ax = chart.subplots()
    ax.axhline(1 - reference, color=MUTED, linewidth=1, linestyle="--", label="reference")
    for i, (name, runs) in enumerate(rows.groupby("network", sort=False)):
        runs = runs.sort_values("epochs")
        ax.plot(runs["pflop"], 1 - runs["accuracy"], "o-", color=colours[name], linewidth=1, markersize=5, label=name)
        for run in runs.itertuples():
            at = (run.pflop, 1 - run.accuracy)
            away = ((0, 4), (0, -11), (3, -11), (-7, 1))[i % 4]  # from the dots of the other networks
            _beside(ax, run.epochs, at, away, color=colours[name], ha="center")
    for row in cited.itertuples():
        at = (row.pflop, 1 - row.accuracy)
        ax.plot(*at, "D", color=INK, markerfacecolor="white", markersize=5)
        _beside(ax, row.network, at, (-6, -1), ha="right")
    ax.set(xscale="log", yscale="log", xlabel="training, PFLOP", ylabel="test accuracy")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.margins(x=0.05)
    worst = 1 - rows["accuracy"].min()
    errors = [error for error in (0.9, 0.7, 0.5, 0.25, 0.15, 0.1, 0.08, 0.06, 0.04) if error <= worst]
    ax.set_yticks(errors, [f"{1 - error:.0%}" for error in errors])
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    chart.says = _listed(
        f"{name}: {best.accuracy:.1%} after {best.epochs} epochs and {best.pflop:.2g} PFLOP"
        for name, runs in rows.groupby("network", sort=False)
        for best in runs.nlargest(1, "accuracy").itertuples()
    )
    return chart


def _beside(ax, text, at, offset, **style):
    """Write a text at an offset, in points, from a place in the data."""
    ax.annotate(text, at, offset, textcoords="offset points", fontsize=8, **style)


# ---------------------------------------------------------------- the first page


def summary(f1, accuracy, photograph, visible, mistakes, confident):
    """The report in one figure: F1 by class, accuracy, blind pixels, sure mistakes, confident mistakes.

    f1 {network: Series by class, 0..1}; accuracy {network: (value, low, high)}; photograph (h, w, 3) and the pixels of
    it that the first network can see, visible (h, w) bool; mistakes: images, true, predicted, confidence, (n,) each;
    confident {network: (share of wrong answers above 0.9 as trained, the same after its correction)}.
    """
    chart, colours = Chart(WIDTH, 2.75), _colours(f1)
    left, right = np.ravel(np.asarray(chart.subfigures(1, 2, width_ratios=(1, 1.25))))
    _f1_by_class(left.subplots(), f1, colours)
    top, middle, bottom = right.subfigures(3, 1, height_ratios=(0.55, 1, 1.1))
    ax = top.subplots()
    ax.set_axis_off()
    for i, (name, (value, low, high)) in enumerate(accuracy.items()):
        ax.text(0.27 + 0.48 * i, 0.6, f"{value:.1%}", ha="center", fontsize=15, weight="bold", color=colours[name])
        ax.text(0.27 + 0.48 * i, 0.1, f"{name}\n[{low:.1%}, {high:.1%}]", ha="center", va="center", fontsize=8)
    images, true, predicted, confidence = mistakes
    blind = np.where(visible[..., None], _images(photograph[None])[0], (0.84, 0.37, 0.0))
    shown = [blind, *_images(images)]
    labels = ["not seen by\nBaselineNet"]
    for y, k, p in zip(true, predicted, confidence, strict=True):
        labels.append(f"{CLASSES[y]}\n→{CLASSES[k]}\n{p:.1%}")
    for ax, image, label in zip(middle.subplots(1, len(shown)), shown, labels, strict=True):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(label, fontsize=8, linespacing=1.1, pad=3, color=INK if image is blind else WRONG)
        ax.set_axis_off()
    _turn(bottom.subplots(), confident, colours)
    chart.says = _listed(
        f"{name}: accuracy {accuracy[name][0]:.1%}, F1 from {scores.min():.2f} to {scores.max():.2f}, "
        f"{confident[name][0]:.1%} of the confident answers wrong as trained, {confident[name][1]:.1%} after its "
        "correction"
        for name, scores in f1.items()
    )
    return chart


def _f1_by_class(ax, f1, colours):
    scores = np.array([list(each) for each in f1.values()])
    order = np.argsort(scores[0], kind="stable")
    rows = np.arange(len(order))
    ax.hlines(rows, *np.sort(scores[:, order], axis=0)[[0, -1]], color="#BBBBBB", linewidth=2, zorder=1)
    for name, row in zip(f1, scores, strict=True):
        ax.plot(row[order], rows, "o", color=colours[name], markersize=6, label=name)
    ax.set_yticks(rows, [next(iter(f1.values())).index[k] for k in order])
    ax.set(title="F1 by class", xlim=(None, 1))
    ax.grid(axis="y", visible=False)


def _turn(ax, confident, colours):
    """The share of confident answers that are wrong, before and after, a line a network."""
    for name, (before, after) in confident.items():
        ax.plot([0, 1], [before, after], "-o", color=colours[name], markersize=5)
        for x, value, side in ((0, before, "right"), (1, after, "left")):
            text = f"{value:.1%}" if x == 0 else f"{value:.1%} {name}"
            offset = (-6 if x == 0 else 6, 0)
            ax.annotate(text, (x, value), offset, textcoords="offset points", ha=side, va="center", fontsize=8)
    most = max(max(pair) for pair in confident.values())
    ax.set(
        xlim=(-0.35, 2),
        ylim=(0, 1.15 * max(most, 1e-9)),
        xticks=(0, 1),
        title="share of the answers above 0.9 that is wrong",
    )
    ax.set_xticklabels(["as trained", "corrected"])
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
