"""What the HTML's explorer and sliders hold, against the predictions that they come from."""

import base64
import io
import json
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers import data, metrics
from helpers.inference import Prediction
from helpers.report import explorer


def predicted(labels, seed, scale=1.0):
    """A prediction of ten classes that is right on most of the labels, and the less sure the smaller its scale."""
    rng = np.random.default_rng(seed)
    logits = scale * (rng.normal(0, 2, (len(labels), 10)) + 4 * np.eye(10)[labels])
    probabilities = metrics.softmax(logits)
    return Prediction(logits, probabilities, probabilities.argmax(1), probabilities.max(1))


@pytest.fixture
def emitted(monkeypatch):
    """What a call shows in its notebook."""

    def of(function, *arguments):
        bundles = []
        monkeypatch.setattr(explorer, "display", lambda bundle, raw: bundles.append(bundle))
        function(*arguments)
        return bundles[0][explorer.MIME]

    return of


def test_every_mistake_is_there_with_its_pixels(emitted):
    part = data.test("smoke")
    predictions = {f"net {seed}": predicted(part.labels, seed) for seed in range(3)}
    shown = emitted(explorer.mistakes, part, predictions)
    wrong = [i for i, y in enumerate(part.labels) if any(p.labels[i] != y for p in predictions.values())]
    assert shown["indices"] == wrong and shown["labels"] == part.labels[wrong].tolist() and len(wrong) > 60
    for name, p in predictions.items():
        assert [best[0] for best in shown["best"][name]] == p.labels[wrong].tolist()
        assert np.allclose([share[0] for share in shown["shares"][name]], 1000 * p.confidence[wrong], atol=0.5)
        assert all(first >= second >= third for first, second, third in shown["shares"][name])
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["sprite"])))).astype(int)
    for i, index in enumerate(wrong):
        row, column = divmod(i, shown["columns"])
        tile = sheet[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        assert np.abs(tile - part.images[index]).mean() < 8, index


def test_the_sprite_of_a_bad_network_is_not_too_large(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    large = len(explorer._sprite(noise))
    monkeypatch.setattr(explorer, "SPRITE_BYTES", large // 2)
    assert len(explorer._sprite(noise)) <= large // 2


def confidences(text, n, temperature):
    """What temperature.js makes of the packed confidences of n images: confidences, and whether they are right."""
    content = zlib.decompress(base64.b64decode(text))
    sure = np.cumsum(np.frombuffer(content, "<i2", n)) / explorer.LOGIT_STEPS
    right = np.frombuffer(content, np.uint8, n, 2 * n)
    steps = np.cumsum(np.frombuffer(content, np.uint8, offset=3 * n).reshape(8, n), axis=0, dtype=int)
    lags = -explorer.LAG_SCALE * np.log1p(-steps / explorer.LAG_STEPS)
    lead = sure + np.log(1 + np.exp(-lags).sum(0))
    return 1 / (1 + np.exp(-lead / temperature) * (1 + np.exp(-lags / temperature).sum(0))), right


@pytest.mark.parametrize(("temperature", "within"), [(1, 0.0003), (0.7, 0.01), (1.4, 0.01), (0.5, 0.02), (2, 0.02)])
def test_stored_confidences_are_those_of_the_logits(emitted, temperature, within):
    labels = np.arange(2000) % 10
    p = predicted(labels, 0)
    shown = emitted(explorer.temperature, labels, {"net": p}, {"net": 1.2})
    ours, right = confidences(shown["networks"]["net"]["packed"], 2000, temperature)
    theirs = metrics.softmax(p.logits / temperature).max(1)
    for each in (True, False):  # their order is not kept
        pairs = np.sort(ours[right == each]), np.sort(theirs[(p.labels == labels) == each])
        assert np.abs(np.subtract(*pairs)).max() < within


def test_the_table_without_script_is_that_of_metrics(emitted):
    labels = np.arange(2000) % 10
    p = predicted(labels, 0)
    shown = emitted(explorer.temperature, labels, {"net": p}, {"net": 1.2})
    scaled = metrics.summary(p.logits / 1.2, labels)
    cells = re.findall(r"<td>(.*?)</td>", explorer.static(shown))
    answered = (metrics.softmax(p.logits / 1.2).max(1) > 0.9).mean()
    assert cells[4:] == ["1.20", f"{scaled['ece']:.3f}", f"{answered:.1%}", str(scaled["wrong_above_90"])]


def test_the_networks_keep_their_order_in_a_stored_notebook(emitted):
    labels = np.arange(50) % 10
    predictions = {name: predicted(labels, 0) for name in ("second", "first")}
    for shown in (
        emitted(explorer.mistakes, data.Part(np.zeros((50, 32, 32, 3), np.uint8), labels), predictions),
        emitted(explorer.temperature, labels, predictions, dict.fromkeys(predictions, 1.0)),
    ):
        stored = json.loads(json.dumps(shown, sort_keys=True))
        page = explorer.static(stored)
        assert page.index("second") < page.index("first")


def test_no_text_of_the_data_ends_its_element(emitted):
    name = "</script><script>alert(1)</script><!--"
    labels = np.arange(50) % 10
    shown = emitted(explorer.temperature, labels, {name: predicted(labels, 0)}, {name: 1.0})
    text = explorer.embedded({"temperature": shown})
    inside = re.fullmatch(r'<script type="application/json" id="temperature-data">(.*)</script>', text)[1]
    assert "<" not in inside and name in json.loads(inside)["networks"]
    assert "<script>" not in explorer.static(shown)
