"""What the notebooks show as tables and rows of images: measurements in, numbers and words for readers out."""

import numpy as np
import pandas as pd
import torch

from helpers import augment, inference, metrics, models
from helpers.analysis import effects
from helpers.config import CLASSES, TrainConfig
from helpers.inference import Prediction
from helpers.runs import Results

CHANNELS = pd.Index(["red", "green", "blue"], name="channel")
SETTINGS = {  # of TrainConfig, as readers know them
    "epochs": "epochs",
    "batch_size": "batch size",
    "optimizer": "optimiser",
    "peak_lr": "peak learning rate",
    "weight_decay": "weight decay",
    "schedule": "learning-rate schedule",
    "warmup_epochs": "warm-up (epochs)",
    "crop_padding": "crop: shift up to (pixels)",
    "flip": "flip: probability",
    "rotation": "rotation up to (degrees)",
    "jitter": "colour jitter: factor 1 ±",
    "erasing": "erasing: probability",
    "label_smoothing": "label smoothing",
    "microbatch": "pieces of a batch (images)",
    "padding": "crop: brings in",
    "flipping": "flip: drawn",
}
WORDS = {
    "sgd": "SGD with momentum 0.9",
    "adamw": "AdamW",
    "muon": "Muon and SGD",
    "zeros": "black",
    "reflection": "the reflected edge",
    "random": "in every epoch",
    "alternate": "once, then every other epoch",
    0: "–",
}
STEPS = {  # network: what it adds to the one before it
    "BaselineNet": "BaselineNet",
    "WideBaseline": "four times as wide",
    "ConvolutionsAlone": "the layers of ImprovedNet",
    "NoDropout": "batch normalisation",
    "ImprovedNet": "dropout: ImprovedNet",
}
RISKS = {0.01: "coverage_at_1", 0.02: "coverage_at_2", 0.05: "coverage_at_5"}
ABSTAINING = {
    "aurc": "AURC",
    "e_aurc": "E-AURC",
    "augrc": "AUGRC",
    "auroc": "AUROC",
    "coverage_at_1": "coverage at 1% risk",
    "coverage_at_2": "coverage at 2% risk",
    "coverage_at_5": "coverage at 5% risk",
}


def from_to(before: float, after: float, form: str = "{:.1%}") -> str:
    """Two numbers with an arrow between them: "85.2% → 91.1%"."""
    return f"{form} → {form}".format(before, after)


# ---------------------------------------------------------------- data


def channel_statistics(images: np.ndarray) -> pd.DataFrame:
    """By channel of (n, h, w, 3) uint8 images, divided by 255: mean, deviation, and `within`.

    within is the mean over images of the deviation within an image.
    """
    channels = (torch.tensor(images[..., c]).float() for c in range(3))
    deviation = np.array([channel.std(correction=0) for channel in channels])
    within = np.mean([image.std(axis=(0, 1)) for image in images], axis=0)
    columns = {"mean": images.mean(axis=(0, 1, 2)), "deviation": deviation, "within": within}
    return pd.DataFrame(columns, CHANNELS) / 255


def each_augmentation(images: np.ndarray, cfg: TrainConfig, seed: int) -> dict[str, np.ndarray]:
    """The images (n, 32, 32, 3) under every augmentation of a recipe, floats in 0..1, by its name and strength.

    Each single augmentation is as strong as it can be, one way and the other in turn; only erasing is drawn, in every
    image whatever the probability in the recipe, and the last one draws them all.
    """
    n, x = len(images), inference.to_unit(torch.tensor(images))
    still, upright = torch.zeros(n, 2), torch.zeros(n, dtype=torch.bool)
    torch.manual_seed(seed)
    way = 1 - 2.0 * (torch.arange(n) % 2)
    degrees, shift, change = cfg.rotation * way, cfg.crop_padding * way[:, None].repeat(1, 2), 1 + cfg.jitter * way
    jittered = augment.saturation(augment.contrast(augment.brightness(x, change), change), change)
    erased = augment.erase(inference.normalise(x), *augment.draw_boxes(n, 1.0, 32, "cpu"))
    coloured = augment.colour(augment.geometry(x, cfg), cfg)
    together = augment.erasing(inference.normalise(coloured), cfg)
    shown = {
        "original": x,
        f"mirrored,\n{cfg.flip:.0%} of them": augment.warp(x, 0 * degrees, still, ~upright, cfg.interpolation),
        f"shifted by\n≤ {cfg.crop_padding} pixels": augment.warp(x, 0 * degrees, shift, upright, cfg.interpolation),
        f"rotated by\n≤ {cfg.rotation:g}°": augment.warp(x, degrees, still, upright, cfg.interpolation),
        f"colours by\n≤ {cfg.jitter:.0%}": jittered,
        f"erased,\n{cfg.erasing:.0%} of them": inference.denormalise(erased),
        "all, as drawn": inference.denormalise(together),
    }
    return {name: batch.permute(0, 2, 3, 1).numpy() for name, batch in shown.items()}


def layers(networks: dict[str, torch.nn.Sequential]) -> pd.DataFrame:
    """The layers of several networks beside each other, as text: their outputs, parameters and receptive fields."""
    parts = {}
    for name, network in networks.items():
        table = models.with_total(models.layer_table(network)).drop(columns="multiply-adds")
        table["layer"] = table["layer"].str.removesuffix(", padding 1").replace(r"(\d)x(\d)", r"\1×\2", regex=True)
        table["layer"] = table["layer"].str.replace("-", "→")
        table["output"] = table["output"].str.replace(" x ", "×")
        table["parameters"] = table["parameters"].map(lambda n: f"{n:,}" if n else "")
        table["receptive field"] = table["receptive field"].map(lambda side: "" if np.isnan(side) else f"{side:.0f}")
        parts[name] = table.rename(columns={"receptive field": "field"})
    return pd.concat(parts, axis=1).fillna("")


# ---------------------------------------------------------------- by hand


def loss_by_hand(logits: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Cross-entropy of each image by hand and by PyTorch, and the largest difference of the gradients."""
    z, y = torch.from_numpy(logits).requires_grad_(), torch.tensor(labels).long()
    loss = torch.nn.functional.cross_entropy(z, y, reduction="none")
    (autograd,) = torch.autograd.grad(loss.sum(), z)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    of_true = p[np.arange(len(y)), y]
    gradient = p - np.eye(10)[y]
    return pd.DataFrame(
        {
            "true": [CLASSES[k] for k in y],
            "predicted": [CLASSES[k] for k in logits.argmax(1)],
            "probability of the true class": of_true,
            "loss by hand": -np.log(of_true),
            "PyTorch": loss.detach().numpy(),
            "gradient differs by": np.abs(gradient - autograd.numpy()).max(axis=1),
        }
    )


# ---------------------------------------------------------------- the networks beside each other


def settings(recipes: dict[str, TrainConfig]) -> pd.DataFrame:
    """All settings as text, a column a network."""
    columns = {
        network: [str(WORDS.get(value, value)) for value in (getattr(cfg, name) for name in SETTINGS)]
        for network, cfg in recipes.items()
    }
    return pd.DataFrame(columns, pd.Index(SETTINGS.values(), name="setting"))


def recipes(trained: dict[str, Results]) -> pd.DataFrame:
    """How each network was trained, as text in a few rows, a column a network."""
    return pd.DataFrame({name: _recipe(run) for name, run in trained.items()}).rename_axis("setting")


def _recipe(run: Results) -> dict[str, str]:
    cfg, record = run.cfg, run.record
    changes = {
        f"flip {cfg.flip:.0%}": cfg.flip,
        f"shift ≤ {cfg.crop_padding} pixels": cfg.crop_padding,
        f"rotation ≤ {cfg.rotation:g}°": cfg.rotation,
        f"colours ≤ {cfg.jitter:.0%}": cfg.jitter,
        f"erasing {cfg.erasing:.0%}": cfg.erasing,
    }
    warmup = f"warm-up {cfg.warmup_epochs:g}, " if cfg.warmup_epochs else ""
    return {
        "augmentation": ", ".join(text for text, strength in changes.items() if strength) or "none",
        "batch size, epochs": f"{cfg.batch_size}, {cfg.epochs}",
        "optimiser": str(WORDS.get(cfg.optimizer, cfg.optimizer)),
        "learning rate": f"peak {cfg.peak_lr:g}, {warmup}{cfg.schedule}",
        "weight decay": f"{cfg.weight_decay:g}",
        "label smoothing α": f"{cfg.label_smoothing:g}",
        "kept checkpoint": f"epoch {record['best_epoch']} of {record['epochs']}",
        "training": f"{record['seconds'] / 60:.0f} min",
    }


def on_validation(summaries: dict[str, dict]) -> pd.DataFrame:
    """Scores as text, a column a network; the summaries have `training`, `animals` and `vehicles` too."""
    rows = {"accuracy": "accuracy", "animals": "accuracy on animals"}
    rows |= {"vehicles": "accuracy on vehicles", "training": "training accuracy"}
    columns = {
        network: {title: f"{scores[key]:.2%}" for key, title in rows.items()}
        | {"gap (points)": f"{100 * (scores['training'] - scores['accuracy']):+.1f}"}
        for network, scores in summaries.items()
    }
    return pd.DataFrame(columns).rename_axis("on validation")


def by_class(base: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Two tables of metrics.per_class side by side, and what F1 gained."""
    titles = {"precision": "precision", "recall": "recall", "f1": "F1"}
    sides = [table[list(titles)].rename(columns=titles) for table in (base, new)]
    joined = pd.concat([sides[0].add_prefix("B "), sides[1].add_prefix("I ")], axis=1)
    return joined.assign(**{"F1 gained": new["f1"] - base["f1"]})


def worst_pairs(matrices: dict[str, np.ndarray]) -> pd.DataFrame:
    """The five most confused pairs of each network, as text, with their share of its errors."""
    columns = {}
    for network, matrix in matrices.items():
        pairs, errors = metrics.top_confusions(matrix), max(1, metrics.errors(matrix))
        columns[network] = [f"{CLASSES[i]} – {CLASSES[j]}" for i, j, _ in pairs]
        columns[f"errors of {network}"] = [f"{n} ({n / errors:.0%})" for _, _, n in pairs]
    return pd.DataFrame(columns)


def within_pair(prediction: Prediction, labels: np.ndarray, pair: tuple, each: int = 3) -> np.ndarray:
    """Indices of the most confident confusions of two classes, `each` of them in either direction."""
    found = []
    for true, answer in (pair, pair[::-1]):
        these = np.flatnonzero((labels == true) & (prediction.labels == answer))
        found += list(these[np.argsort(-prediction.confidence[these], kind="stable")][:each])
    return np.array(found, dtype=int)


def calibration(versions: dict[str, dict]) -> pd.DataFrame:
    """Scores of calibration, a row a version of a network; versions: {title: metrics.summary}."""
    shown = {"ece": "ECE", "ece_limit": "limit", "brier": "Brier"}
    shown |= {"wrong_above_90": "wrong above 0.9", "expected_above_90": "expected"}
    return pd.DataFrame(versions).T[list(shown)].rename(columns=shown)


def abstaining(predictions: dict[str, Prediction], labels: np.ndarray) -> pd.DataFrame:
    """Areas under the risk-coverage curve and coverages at RISKS, a row a network."""
    areas = {"aurc": metrics.aurc, "e_aurc": metrics.e_aurc, "augrc": metrics.augrc}
    areas["auroc"] = metrics.failure_auroc
    rows = {}
    for network, p in predictions.items():
        rows[network] = {key: area(p.logits, labels) for key, area in areas.items()}
        for risk, key in RISKS.items():
            rows[network][key] = metrics.coverage_at_risk(p.logits, labels, risk)
    return pd.DataFrame(rows).T


def under_harm(corrupted: pd.DataFrame) -> pd.DataFrame:
    """Rows of robustness.under_corruption as means over severities 1 to 5: index network and corruption."""
    harmed = corrupted[corrupted["severity"] > 0]
    return harmed.groupby(["network", "corruption"])[["accuracy", "ece", "ece_corrected"]].mean()


def costs(trials: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows of decisions.compare as text, a group of columns a trial: mean costs and accuracy in percent, on test."""
    groups = {}
    for title, rows in trials.items():
        cost, accuracy = rows["test"].map("{:.3f}".format), (100 * rows["accuracy"]).map("{:.1f}".format)
        groups[title] = pd.DataFrame({"cost": cost, "accuracy": accuracy})
    return pd.concat(groups, axis=1)


def detail(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of robustness.without_detail as text, a row a group, and for each kind of images two columns.

    accuracy: of both networks in percent, from the first to the second; lead: of the second in points.
    """
    first, second, *_ = rows.columns
    parts = {}
    for title in rows.index.unique("images"):
        here = (100 * rows.loc[title]).map("{:.1f}".format)
        parts[title] = pd.DataFrame({"accuracy": here[first] + " → " + here[second], "lead": here["lead"]})
    return pd.concat(parts, axis=1).rename_axis(index=None)


def side_by_side(versions: dict[str, pd.DataFrame], scores: dict[str, str]) -> pd.DataFrame:
    """Means over seeds of two versions of a training, and their difference with its interval (effects.beside).

    versions: {title: table of effects.by_seed}; scores: {score: title}. As text, a row a score.
    """
    (first, second), keys = versions.values(), list(scores)
    change = effects.beside(first[keys], second[keys])
    shown = {}
    for key, title in scores.items():
        digits = 1 if key == "wrong_above_90" else 4
        lead, low, high = (f"{value:+.{digits}f}" for value in change.loc[key])
        cells = [f"{each[key].mean():.{digits}f}" for each in versions.values()]
        shown[title] = [*cells, f"{lead} [{low}, {high}]"]
    titles = [f"{title} ({len(each)})" for title, each in versions.items()]
    return pd.DataFrame(shown, [*titles, "difference"]).T.rename_axis("on the test images (seeds)")


def shifts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of robustness.under_shifts as text, in percent: mean (lowest to highest direction), a column a network."""
    groups = (100 * rows.set_index(["pixels", "margins", "network"])["accuracy"]).groupby(level=[0, 1, 2], sort=False)
    cells = groups.agg(lambda found: f"{found.mean():.1f} ({found.min():.1f} to {found.max():.1f})").unstack("network")
    titles = [f"{pixels} pixels, {margins} margins" for pixels, margins in cells.index]
    return cells.set_axis(titles).rename_axis("shifted by").rename_axis(None, axis=1)


def stages(probes: dict[str, dict]) -> pd.DataFrame:
    """Accuracies of explain.linear_probe, a row a network, a column a stage."""
    shown = pd.DataFrame(probes).T.rename_axis("linear classifier on")
    return shown.rename(columns=lambda stage: stage.replace("_", " "))


def by_recipe(rows: pd.DataFrame) -> pd.DataFrame:
    """Architectures with both recipes as text, a row each: parameters, and for each recipe means in percent.

    rows: of experiments.crossed. `step` is what a network of STEPS adds to the accuracy of the one before it, in
    points. The last row is ImprovedNet at a quarter of its width.
    """
    titles = STEPS | {"QuarterWidth": "ImprovedNet, a quarter as wide"}
    sizes = [f"{models.parameters(models.build(network)):,}" for network in titles]
    parts = {"": pd.DataFrame({"parameters": sizes}, index=titles.values())}
    means = effects.spread(rows, ["accuracy", "noise"])
    for recipe in ("BaselineNet", "ImprovedNet"):
        keys = [f"{network}, {recipe}" for network in titles]
        added = 100 * effects.steps(rows, keys[: len(STEPS)], "accuracy")["difference"].reindex(keys)
        here = means.loc[keys]
        cells = {
            "accuracy": effects.as_text(here, "accuracy", 100, 1),
            "step": added.map("{:+.1f}".format, na_action="ignore").fillna("").tolist(),
            "noise": (100 * here["noise"]).map("{:.1f}".format).tolist(),
        }
        parts[f"recipe of {recipe}"] = pd.DataFrame(cells, index=titles.values())
    return pd.concat(parts, axis=1)
