import base64
import io
import os
import re
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.text import Text
from PIL import Image

from helpers import metrics, plots
from helpers.config import CLASSES, ROOT
from helpers.data import Part
from helpers.inference import Prediction

NAMES = ("BaselineNet", "ImprovedNet")


def draw(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def model(skill):
    """Logits (600, 10) and labels (600,) of an invented model."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 60)
    return rng.normal(size=(600, 10)) + skill * np.eye(10)[labels], labels


def history(epochs):
    falling = 2 - np.linspace(0, 1, epochs)
    return pd.DataFrame(
        {"epoch": np.arange(1, epochs + 1), "train_loss": falling, "train_accuracy": 1 - falling / 2}
        | {"validation_loss": np.abs(falling - 1.5) + 1, "validation_accuracy": 0.9 - falling / 3}
    )


MODELS = {name: model(skill) for name, skill in zip(NAMES, (1, 3), strict=True)}
CHANGES = pd.DataFrame(
    {"difference": [-0.01, 0.02, -0.05], "low": [-0.03, 0.01, -0.07], "high": [0.01, 0.03, -0.03]},
    index=["without that", "other", "without this"],
)
SEVERITIES = pd.DataFrame(
    [
        {"network": name, "corruption": kind, "severity": s, "accuracy": 0.9 - 0.1 * s}
        for name in NAMES
        for kind in ("noise", "blur", "contrast", "brightness", "jpeg", "pixelate")
        for s in range(6)
    ]
)
COSTS = pd.DataFrame(
    {
        "network": ["BaselineNet", "FastNet", "FastNet"],
        "epochs": [40, 3, 9],
        "accuracy": [0.74, 0.89, 0.93],
        "pflop": [0.003, 0.1, 0.3],
        "minutes": [4.0, 10.0, 15.0],
        "threads": [2, 1, 2],
    }
)
CITED = pd.DataFrame({"network": ["ResNet-18"], "accuracy": [0.96], "pflop": [32.3]})
LOSSES = {name: np.linspace(2.3, 2, 20) for name in NAMES}
PART = Part(draw((4, 32, 32, 3)), np.arange(4))
PREDICTION = Prediction(np.eye(10)[:4], np.eye(10)[:4], np.array([0, 1, 3, 3]), np.linspace(0.2, 1, 4))
KERNEL = np.arange(12).reshape(3, 2, 2) / 10 - 0.4

CURVES = {name: metrics.risk_coverage(*m) for name, m in MODELS.items()}
CHARTS = {
    "class_examples": lambda: plots.class_examples(draw((40, 32, 32, 3)), np.arange(40) % 10, per_class=3),
    "augmentations": lambda: plots.augmentations({"original": draw((2, 32, 32, 3)), "erased": np.ones((2, 32, 32, 3))}),
    "channel_histograms": lambda: plots.channel_histograms(draw((4, 32, 32, 3))),
    "schedule": lambda: plots.schedule(pd.Series(np.linspace(0.1, 0, 30)), unit="step"),
    "learning_curves": lambda: plots.learning_curves({name: history(20) for name in NAMES}),
    "overfit": lambda: plots.overfit(np.geomspace(2.3, 1e-3, 50)),
    "replay": lambda: plots.replay(LOSSES, {name: losses[:5] for name, losses in LOSSES.items()}),
    "kernels": lambda: plots.kernels(np.random.default_rng(0).normal(size=(12, 3, 3, 3))),
    "convolution": lambda: plots.convolution(PART.images[0], (3, 4), KERNEL, -KERNEL, 0.5, PART.images[0, :31, :31, 0]),
    "flowchart": lambda: plots.flowchart(
        [[("image", "32 x 32"), ("stage", "conv", "new")], [("loss", "of logits", "training")]], ("loss", "next batch")
    ),
    "confusion": lambda: plots.confusion({name: metrics.confusion(*m) for name, m in MODELS.items()}),
    "per_class_f1": lambda: plots.per_class_f1({name: metrics.per_class(*m) for name, m in MODELS.items()}),
    "gallery": lambda: plots.gallery(draw((8, 32, 32, 3)), [1] * 8, [1, 0] * 4, np.linspace(0.2, 1, 8)),
    "gallery_of": lambda: plots.gallery_of(PART, PREDICTION, np.array([1, 3])),
    "galleries": lambda: plots.galleries(
        PART, {"a": PREDICTION, "b": PREDICTION}, {"a": np.array([1, 3]), "b": np.array([0, 2])}, columns=2
    ),
    "probabilities": lambda: plots.probabilities(
        draw((3, 32, 32, 3)), metrics.softmax(MODELS["BaselineNet"][0][:3]), [0, 1, 2]
    ),
    "reliability": lambda: plots.reliability({name: metrics.reliability(*m) for name, m in MODELS.items()}, CURVES),
    "confusion_change": lambda: plots.confusion_change(*(metrics.confusion(*m) for m in MODELS.values())),
    "corruption_curves": lambda: plots.corruption_curves(SEVERITIES, "accuracy"),
    "saliency": lambda: plots.saliency(draw((5, 32, 32, 3)), {"BaselineNet": draw((5, 32, 32)) / 255}, "abcde"),
    "effects": lambda: plots.effects({"accuracy (points)": CHANGES, "lead (points)": -CHANGES[::-1]}),
    "summary": lambda: plots.summary(
        {name: metrics.per_class(*m)["f1"] for name, m in MODELS.items()},
        {name: (0.7, 0.69, 0.71) for name in NAMES},
        PART.images[0],
        np.arange(1024).reshape(32, 32) < 900,
        (PART.images, [1, 2, 3, 4], [2, 3, 4, 9], [0.99, 0.98, 0.97, 0.96]),
        {"BaselineNet": (0.039, 0.029), "ImprovedNet": (0.013, 0.024)},
    ),
    "frontier": lambda: plots.frontier(COSTS, CITED, 0.914),
}


def test_a_figure_says_what_it_shows():
    says = {name: chart().says for name, chart in CHARTS.items()}
    assert {name for name, text in says.items() if not text} == {
        "class_examples",
        "augmentations",
        "kernels",
        "saliency",
    }
    assert all(re.search(r"\d|→", text) and "nan" not in text for text in says.values() if text), says
    matrix = np.eye(10, dtype=int) * 90
    matrix[3, 5] = 10
    assert plots.confusion({"net": matrix}).says.startswith("net takes 10 of 100 images of cat for dog;")
    gallery = plots.gallery(draw((2, 32, 32, 3)), [1, 2], [1, 0], [0.5, 0.6])
    assert gallery.says == "automobile, 50.0%; bird taken for airplane, 60.0%."


def test_every_figure_is_tested():
    public = {
        name
        for name, value in vars(plots).items()
        if callable(value) and getattr(value, "__module__", "") == plots.__name__ and name[0].islower()
    }
    assert public == set(CHARTS)


@pytest.mark.parametrize("name", CHARTS)
def test_renders_the_same_bytes_twice_and_reads_well(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = CHARTS[name]()
        data = chart.render()
    assert isinstance(chart, plots.Chart)
    assert data == chart.render() == CHARTS[name]().render()
    assert chart.get_figwidth() <= plots.WIDTH
    texts = [t for t in chart.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert all(t.get_fontsize() >= 8 for t in texts)
    # Nothing is cut off at the edge of the figure.
    inside = chart.get_tightbbox()
    width, height = chart.get_size_inches()
    assert inside.x0 > 0 and inside.y0 > 0 and inside.x1 < width and inside.y1 < height
    assert not Gcf.figs, "pyplot was asked for a figure, which the notebook would show as a second one"


@pytest.mark.parametrize("name", ["overfit", "gallery"])
def test_shows_itself_as_one_output(monkeypatch, name):
    shown = []
    monkeypatch.setattr(plots, "display", lambda data, **options: shown.append((data, options)))
    chart = CHARTS[name]()
    chart._ipython_display_()
    [(data, options)] = shown
    assert set(data) == {"image/png", "text/plain", "image/svg+xml"} and options["raw"]
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    width, height = chart.get_size_inches() * 200
    assert abs(image.width - width) <= 1 and image.height <= height + 1
    inked = np.flatnonzero((np.array(image.convert("L")) < 250).any(axis=1))
    assert inked[0] <= 8 and image.height - inked[-1] <= 8, "blank strips above or below are cut off"
    svg = data["image/svg+xml"]
    assert "<svg" in svg and not re.search(r"<dc:date>", svg)
    assert re.search("<text[^>]*font[^>]*DejaVu Sans", svg), "text must stay text, so that it can be searched"


def test_class_examples_are_the_first_of_each_class_in_its_row():
    images = draw((40, 32, 32, 3))
    [ax] = plots.class_examples(images, np.arange(40) % 10, per_class=3).axes
    canvas = ax.images[0].get_array()
    np.testing.assert_allclose(canvas[34:66, 68:100], images[21] / 255)  # second row, third column: class 1
    assert canvas.shape == (10 * 34 - 2, 3 * 34 - 2, 3)
    assert tuple(t.get_text() for t in ax.get_yticklabels()) == CLASSES


def test_a_missing_example_leaves_a_white_tile():
    [ax] = plots.class_examples(draw((11, 32, 32, 3)), np.arange(11) % 10, per_class=2).axes
    assert (ax.images[0].get_array()[34:66, 34:66] == 1).all()


def test_augmentations_keep_the_order_of_the_operations():
    [ax] = CHARTS["augmentations"]().axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["original", "erased"]
    assert (ax.images[0].get_array()[:32, 34:66] == 1).all()


def test_kernels_show_zero_as_grey_and_the_largest_weight_as_an_extreme():
    weights = np.zeros((2, 3, 2, 2))
    weights[0, 0, 0, 0] = -0.1
    canvas = plots.kernels(weights).axes[0].images[0].get_array()
    assert canvas[0, 0].tolist() == [0, 0.5, 0.5]
    assert canvas[-1, -1].tolist() == [0.5, 0.5, 0.5]


def test_channel_histograms_print_mean_and_deviation():
    images = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    images[0, ..., 0] = 255
    titles = [ax.get_title() for ax in plots.channel_histograms(images).axes]
    assert titles == ["red: 0.5000 ± 0.5000", "green: 0.0000 ± 0.0000", "blue: 0.0000 ± 0.0000"]


def test_learning_curves_mark_the_lowest_validation_loss():
    table = history(21)
    chart = plots.learning_curves({"BaselineNet": table})
    dots = [line for ax in chart.axes for line in ax.lines if len(line.get_xdata()) == 1]
    best = table.loc[table["validation_loss"].idxmin()]
    assert [dot.get_xdata()[0] for dot in dots] == [best["epoch"]] * 2
    assert [dot.get_ydata()[0] for dot in dots] == [best["validation_loss"], best["validation_accuracy"]]


def test_learning_curves_leave_the_first_epochs_out_of_their_axes():
    history = pd.DataFrame({"epoch": range(1, 41), "lr": 0.1, "train_loss": 0.5, "validation_loss": 0.6})
    history = history.assign(train_accuracy=0.8, validation_accuracy=0.75)
    history.loc[0, ["train_loss", "validation_accuracy"]] = 9.0, 0.1
    loss, accuracy = plots.learning_curves({"BaselineNet": history}).axes[:2]
    assert loss.get_ylim() == pytest.approx((0, 0.63)) and accuracy.get_ylim() == pytest.approx((0.7125, 1))


def test_convolution_adds_the_products_of_each_channel_and_the_bias():
    _, numbers, feature_map = CHARTS["convolution"]().axes
    texts = {text.get_text() for text in numbers.texts}
    assert {"sum −0.3000", "sum −0.1400", "sum −1.2600"} <= texts
    assert {"bias +0.5000", "output −1.2000"} <= texts
    (frame,) = feature_map.patches  # one output, at the place of the patch
    assert (frame.get_xy(), frame.get_width()) == ((3.5, 2.5), 1)
    assert feature_map.images[0].get_array().shape == (31, 31)


def test_flowchart_dashes_what_takes_part_in_training_only():
    chart = CHARTS["flowchart"]()
    boxes = [patch for patch in chart.axes[0].patches if patch.get_linestyle() in ("-", "--")]
    assert [box.get_linestyle() for box in boxes] == ["-", "-", "--"]
    assert len({matplotlib.colors.to_hex(box.get_facecolor()) for box in boxes}) == 2  # the new one
    assert {"loss", "next batch"} <= {text.get_text() for text in chart.axes[0].texts}


def test_a_network_has_one_colour_everywhere():
    for name in ("learning_curves", "replay", "per_class_f1", "reliability"):
        used = {matplotlib.colors.to_hex(line.get_color()).upper() for ax in CHARTS[name]().axes for line in ax.lines}
        assert {plots.NETWORK_COLOURS[network] for network in NAMES} <= used, name


def test_frontier_marks_what_is_cited_and_writes_epochs_beside_dots():
    [ax] = CHARTS["frontier"]().axes
    (hollow,) = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert (hollow.get_xdata()[0], hollow.get_ydata()[0]) == (32.3, pytest.approx(0.04))
    assert [text.get_text() for text in ax.texts] == ["40", "3", "9", "ResNet-18"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["75%", "85%", "90%", "92%", "94%", "96%"]


def test_confusion_prints_row_percent_and_shades_mistakes_alone():
    matrix = np.diag([50] * 10)
    matrix[3, 5] = 150
    [ax] = plots.confusion({"BaselineNet": matrix}).axes
    cells, scores = np.array(ax.texts[:100]).reshape(10, 10), np.array(ax.texts[100:]).reshape(2, 10)
    assert [text.get_text() for text in scores[:, 3]] == ["100", "40"]  # precision and F1 of class 3
    assert [text.get_text() for text in scores[:, 5]] == ["25", "40"]
    assert cells[3, 5].get_text() == "75" and cells[3, 3].get_text() == "25" and cells[0, 1].get_text() == ""
    shades = ax.collections[0].get_facecolors().reshape(10, 10, 4)
    assert (shades[3, 3] == shades[0, 1]).all() and (shades[3, 5] != shades[0, 1]).any()
    assert cells[3, 3].get_color() == plots.INK and cells[3, 5].get_color() == "white"


def test_gallery_tells_wrong_from_right():
    chart = plots.gallery(draw((3, 32, 32, 3)), [3, 3, 8], [3, 5, 8], [0.5, 0.876, 1.0], columns=2)
    assert [len(ax.images) for ax in chart.axes] == [1, 1, 1]
    first, second, _ = chart.axes
    assert [ax.get_title() for ax in chart.axes] == ["cat\n50.0%", "cat →\ndog 87.6%", "ship\n>99.9%"]
    assert second.title.get_color() == plots.WRONG != first.title.get_color()
    assert second.spines["left"].get_visible() and not first.spines["left"].get_visible()


def test_per_class_f1_sorts_by_the_first_model():
    table = metrics.per_class(*MODELS["BaselineNet"])
    [ax] = plots.per_class_f1({"BaselineNet": table}).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["f1"].sort_values(kind="stable").index)


def test_probabilities_show_the_three_best_beside_each_image():
    chart = plots.probabilities(draw((1, 32, 32, 3)), [[0, 0.1, 0, 0, 0.2, 0, 0, 0.6, 0.1, 0]], [4])
    [picture, bars] = chart.axes
    assert [t.get_text() for t in bars.get_yticklabels()] == ["horse", "deer", "automobile"]
    assert [bar.get_width() for bar in bars.patches] == [0.6, 0.2, 0.1]
    assert picture.get_title() == "deer"
    assert [matplotlib.colors.to_hex(bar.get_facecolor()).upper() == plots.TRUE for bar in bars.patches] == [0, 1, 0]
    assert len(CHARTS["probabilities"]().axes) == 6


def test_panels_are_one_a_network():
    assert [ax.get_title() for ax in CHARTS["replay"]().axes] == list(NAMES)
    assert len(CHARTS["reliability"]().axes) == 5  # and risk against coverage
    assert len(CHARTS["confusion"]().axes) == 2


def test_reliability_shows_the_gap_of_well_filled_bins_and_the_share_of_all():
    table = metrics.reliability(*MODELS["BaselineNet"])
    enough = table[table["count"] >= plots.FEW]
    top, bottom, _ = plots.reliability({"BaselineNet, as trained": table, "BaselineNet, T = 2": table}, CURVES).axes
    np.testing.assert_allclose(top.lines[0].get_ydata(), enough["accuracy"] - enough["confidence"])
    assert 0 < len(enough) < len(table) and [line.get_label() for line in top.lines[:2]] == ["as trained", "T = 2"]
    assert sum(bottom.patches[0].get_data().values) == pytest.approx(1)


def test_reliability_cuts_off_no_bar_of_a_second_network():
    table = metrics.reliability(*MODELS["BaselineNet"])
    surer = table.assign(count=np.where(table["count"] == table["count"].max(), 10 * table["count"], table["count"]))
    *_, bottom, _ = plots.reliability({"BaselineNet, as trained": table, "ImprovedNet, as trained": surer}, CURVES).axes
    assert bottom.get_ylim()[1] >= (surer["count"] / surer["count"].sum()).max()


def test_risk_against_coverage_ends_at_the_error_rate_of_all():
    *_, ax = CHARTS["reliability"]().axes
    errors = {name: 1 - metrics.accuracy(*m) for name, m in MODELS.items()}
    assert {line.get_label(): line.get_ydata()[-1] for line in ax.lines} == pytest.approx(errors)


def test_effects_are_sorted_and_say_their_numbers():
    first, second = CHARTS["effects"]().axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["without this", "without that", "other"]
    assert [text.get_text() for text in first.texts] == ["−5.0 [−7.0, −3.0]", "−1.0 [−3.0, +1.0]", "+2.0 [+1.0, +3.0]"]
    assert second.texts[0].get_text() == "+5.0 [+7.0, +3.0]"  # in the order of the first


def test_effects_that_a_panel_lacks_leave_its_row_empty():
    later = CHANGES.drop("other").rename(index={"without that": "only here"})
    first, second = plots.effects({"short": CHANGES, "long": later}).axes
    names = [text.get_text() for text in first.get_yticklabels()]
    assert names == ["without this", "without that", "other", "only here"]
    assert [text.xy[1] for text in first.texts] == [0, 1, 2] and [text.xy[1] for text in second.texts] == [0, 3]
    assert second.texts[1].get_text() == "−1.0 [−3.0, +1.0]"


def test_galleries_have_a_title_above_each_row():
    chart = CHARTS["galleries"]()
    assert [text.get_text() for ax in chart.axes for text in ax.texts] == ["a", "b"]


def test_another_network_answers_below_the_last_row():
    row = {"a": np.array([1, 3]), "b": np.array([0, 2])}
    chart = plots.galleries(PART, {"a": PREDICTION, "b": PREDICTION}, row, 2, PREDICTION)
    below = [ax.get_xlabel() for ax in chart.axes]
    names = [CLASSES[k] for k in PREDICTION.labels[[0, 2]]]
    assert below[:2] == ["", ""] and [text.split("\n")[0] for text in below[2:]] == names
    right = PREDICTION.labels[[0, 2]] == PART.labels[[0, 2]]
    colours = [ax.xaxis.label.get_color() for ax in chart.axes[2:]]
    assert colours == [plots.INK if each else plots.WRONG for each in right]


def test_corruption_curves_show_the_chosen_and_the_mean_of_all():
    axes = plots.corruption_curves(SEVERITIES, "accuracy", ["noise"]).axes
    assert [ax.get_title() for ax in axes] == ["mean of all", "noise"]


def test_the_summary_marks_what_the_first_network_cannot_see():
    shown = [ax for figure in CHARTS["summary"]().subfigs[1].subfigs for ax in figure.axes if ax.images]
    blind = shown[0].images[0].get_array()
    assert (blind[-1] == (0.84, 0.37, 0)).all() and (blind[0] == PART.images[0][0] / 255).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: plots.class_examples(draw((4, 3, 32, 32)), np.arange(4)), "shape"),
        (lambda: plots.augmentations({"normalised": np.full((1, 8, 8, 3), -1.5)}), "undo the normalisation"),
        (lambda: plots.channel_histograms(np.zeros((1, 8, 8, 3))), "raw uint8"),
        (lambda: plots.kernels(np.zeros((6, 1, 3, 3))), "Kernels over RGB"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_matplotlibrc_of_the_user_changes_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 30\nlines.linewidth: 9\n")
    code = (
        "from helpers import plots; import matplotlib as m; print(m.rcParams['text.usetex'], m.rcParams['savefig.dpi'])"
    )
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "figure"], said.stderr
