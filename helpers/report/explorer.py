"""What a reader can move in the HTML: all mistakes on the test images, and the temperature.

A notebook shows them by `mistakes` and `temperature`, so they hold what its own predictions say. render.py takes their
data from its outputs: `static` is what the page shows without script, `embedded` what mistakes.js and temperature.js
work with.
"""

import base64
import html
import io
import json
import zlib
from collections.abc import Mapping

import numpy as np
from IPython.display import display
from PIL import Image
from scipy.special import logsumexp

from helpers import metrics, plots
from helpers.config import CLASSES
from helpers.data import Part
from helpers.inference import Prediction

MIME = "application/vnd.report.explorer+json"
COLUMNS = 60  # images in a row of the sprite
SPRITE_BYTES = 2_200_000  # at most; less than 3 MB in the page, where it is base64
BEST = 3  # classes that are shown of a prediction
SUREST = 12  # mistakes of each network that are shown without script
THRESHOLD = 0.9  # at first, and without script

# How `_packed` rounds. Measured on the published networks at temperatures of 0.5 to 2: a confidence is within 0.013 of
# that of metrics.py, the ECE within 0.001, and a number of wrong answers above 0.9 within 2.
LOGIT_STEPS = 1024  # to a nat
LAG_STEPS, LAG_SCALE = 32, 5  # steps between a lag of 0 and one without end, and nats


def mistakes(part: Part, predictions: Mapping[str, Prediction]) -> None:
    """Show every image of `part` that a network gets wrong; predictions of all its images, by network.

    Holds their pixels, true classes and, for each network, the three best classes with probabilities in thousandths.
    """
    wrong = np.flatnonzero(np.any([p.labels != part.labels for p in predictions.values()], axis=0))
    best, shares = {}, {}
    for name, prediction in predictions.items():
        p = prediction.probabilities[wrong]
        order = np.argsort(-p, axis=1, kind="stable")[:, :BEST]
        best[name] = order.tolist()
        shares[name] = np.round(1000 * np.take_along_axis(p, order, 1)).astype(int).tolist()
    _show(
        kind="mistakes",
        names=list(predictions),
        classes=CLASSES,
        indices=wrong.tolist(),
        labels=part.labels[wrong].tolist(),
        best=best,
        shares=shares,
        columns=COLUMNS,
        sprite=base64.b64encode(_sprite(part.images[wrong])).decode(),
    )


def temperature(labels: np.ndarray, predictions: Mapping[str, Prediction], temperatures: Mapping[str, float]) -> None:
    """Show what temperature and threshold do; predictions of all images with these labels (n,), by network.

    Holds, for each network, the confidences of all images at any temperature, and scores at 1 and at its own.
    """
    networks = {}
    for name, prediction in predictions.items():
        fitted = float(temperatures[name])
        networks[name] = {
            "colour": plots.NETWORK_COLOURS.get(name, plots.OTHER_COLOURS[0]),
            "temperature": fitted,
            "rows": [_scores(prediction.logits, labels, t) for t in (1.0, fitted)],
            "packed": _packed(prediction.logits, labels),
        }
    steps = [LOGIT_STEPS, LAG_STEPS, LAG_SCALE]
    _show(
        kind="temperature",
        names=list(networks),
        networks=networks,
        images=len(labels),
        threshold=THRESHOLD,
        steps=steps,
    )


def _show(**data):  # a stored notebook sorts the keys of its outputs: `names` has the networks in their order
    display({MIME: data, "text/plain": "report.html shows this part"}, raw=True)


def _sprite(images):
    """Images (n, 32, 32, 3) uint8 in rows as one JPEG, its quality as good as SPRITE_BYTES allows."""
    rows = -(-max(1, len(images)) // COLUMNS)
    grid = np.zeros((rows * COLUMNS, 32, 32, 3), np.uint8)
    grid[: len(images)] = images
    sheet = Image.fromarray(grid.reshape(rows, COLUMNS, 32, 32, 3).swapaxes(1, 2).reshape(rows * 32, COLUMNS * 32, 3))
    for quality in range(90, 0, -5):
        file = io.BytesIO()
        # colour in full resolution: JPEG's blocks of 8 then end where an image ends
        sheet.save(file, "JPEG", quality=quality, subsampling="4:4:4")
        if file.tell() <= SPRITE_BYTES:
            break
    return file.getvalue()


def _scores(logits, labels, temperature):
    """One row of the table beside the sliders: what holds at this temperature and THRESHOLD."""
    confidence, right = metrics.softmax(logits / temperature).max(1), logits.argmax(1) == labels
    answered = confidence > THRESHOLD
    return {
        "temperature": temperature,
        "ece": metrics.ece(logits / temperature, labels),
        "answered": int(answered.sum()),
        "wrong": int((answered & ~right).sum()),
    }


def _packed(logits, labels):
    """The confidences of logits (n, 10) at any temperature as text: base64 of deflated bytes.

    The confidence is 1 / (1 + exp(-m / T) R(T)), where m is the lead of the best class over the second and
    R(T) = 1 + sum_k exp(-l_k / T) over the lags l_k of the eight others behind that second. Stored are the logit of the
    confidence at T = 1, from which m follows, and the lags, in steps that are fine where they are small. The images are
    in the order of their confidence, since their differences take less room than they do:

        n x int16    differences of the logit, in 1/1024
        n x uint8    1 where the network is right
        8 x n uint8  differences between a lag and the one before it, in steps
    """
    z = -np.sort(-np.asarray(logits, float), axis=1)
    lags = z[:, 1:2] - z[:, 2:]
    sure = z[:, 0] - logsumexp(z[:, 1:], axis=1)
    sure = np.round(LOGIT_STEPS * np.minimum(sure, 25)).astype(int)  # differences of up to 25 + log 9 fit int16
    steps = np.minimum(np.round(LAG_STEPS * -np.expm1(-lags / LAG_SCALE)), LAG_STEPS - 1).astype(int)
    order = np.argsort(sure, kind="stable")
    right = (np.argmax(logits, axis=1) == labels)[order]
    content = (
        np.diff(sure[order], prepend=0).astype("<i2").tobytes()
        + right.astype(np.uint8).tobytes()
        + np.diff(steps[order], axis=1, prepend=0).T.astype(np.uint8).tobytes()
    )
    return base64.b64encode(zlib.compress(content, 9)).decode()


# ---------------------------------------------------------------- in the page


def found(notebook):
    """The data that `mistakes` and `temperature` left in the outputs of a notebook, by kind."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    shown = [output.data[MIME] for output in outputs if MIME in output.get("data", {})]
    return {data["kind"]: data for data in shown}


def embedded(kinds):
    """HTML for the head of the page: the sprite, and the data of each kind for the scripts."""
    parts = []
    for kind, data in kinds.items():
        if "sprite" in data:
            rows = -(-max(1, len(data["indices"])) // data["columns"])
            parts.append(
                f"<style>.picture {{ --columns: {data['columns']}; --rows: {rows}; "
                f"background-image: url(data:image/jpeg;base64,{data['sprite']}); }}</style>"
            )
        kept = {key: value for key, value in data.items() if key != "sprite"}
        # "<" as an escape, so that no text in the data can end the element
        text = json.dumps(kept, separators=(",", ":")).replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="{kind}-data">{text}</script>')
    return "\n".join(parts)


def static(data):
    """HTML for the place where the data was shown: what is to be seen without script."""
    content = {"mistakes": _surest, "temperature": _table}[data["kind"]](data)
    return f'<div class="explorer" id="{data["kind"]}">\n{content}\n</div>'


def _surest(data):
    """For each network its surest mistakes as pictures."""
    parts = []
    for name in data["names"]:
        best, shares, labels = data["best"][name], data["shares"][name], data["labels"]
        wrong = [i for i, classes in enumerate(best) if classes[0] != labels[i]]
        wrong = sorted(wrong, key=lambda i: -shares[i][0])[:SUREST]
        pictures = [_picture(data, i, best[i][0], shares[i][0]) for i in wrong]
        parts += [f"<p>The surest mistakes of {html.escape(name)}:</p>", '<ol class="pictures">', *pictures, "</ol>"]
    return "\n".join(parts)


def _picture(data, i, predicted, share):
    row, column = divmod(i, data["columns"])
    true, taken = (html.escape(data["classes"][k]) for k in (data["labels"][i], predicted))
    return (
        f'<li><span class="picture" role="img" aria-label="Test image {data["indices"][i]}" '
        f'style="--column: {column}; --row: {row}"></span> {true} → {taken} {share / 10:.1f}%</li>'
    )


def _table(data):
    """The scores of each network at temperature 1 and at its own."""
    head = ("network", "temperature", "ECE", f"answered above {THRESHOLD}", "wrong of these")
    rows = ["".join(f'<th scope="col">{title}</th>' for title in head)]
    for name in data["names"]:
        for row in data["networks"][name]["rows"]:
            numbers = (
                f"{row['temperature']:.2f}",
                f"{row['ece']:.3f}",
                f"{row['answered'] / data['images']:.1%}",
                f"{row['wrong']:,}",
            )
            cells = "".join(f"<td>{number}</td>" for number in numbers)
            rows.append(f'<th scope="row">{html.escape(name)}</th>{cells}')
    lines = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n{lines}\n</table></div>'
