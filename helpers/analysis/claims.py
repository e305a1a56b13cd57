"""What the reference coursework claims, each claim beside what settles it and a verdict that follows by rule."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers import config, metrics, models, notebook, train
from helpers.analysis import claims, explain
from helpers.commands import experiments
from helpers.data import Part
from helpers.runs import Run

SCORES = claims.REFERENCE.values()
HOLDS, IN_PART, NOT = STANDINGS = ("holds", "holds in part", "does not hold")


class Claim(NamedTuple):
    """A claim, the numbers that settle it, the verdict, and the verdict in short, which is one of STANDINGS."""

    claim: str
    measured: str
    verdict: str
    standing: str


def judge_claims(networks: dict[str, Run], logits: dict, before: dict, after: dict, cues: pd.DataFrame,
           training: Part, validation: Part, labels: np.ndarray) -> list[Claim]:
    """All claims of the reference.

    networks: BaselineNet and ImprovedNet. logits: theirs of the test images, (n, 10), and `labels` (n,) of these.
    before, after: their metrics.summary, as trained and after the temperature. cues: accuracies, a row a cue of
    robustness.without_cues, a column a network. training, validation: what the features are scored on.
    What the parts of the recipe do is read off the stored ablation. Raises TrainingNeeded if that is not stored.
    """
    base, new = logits.values()
    short = experiments.stored("ablation")
    ablation = experiments.in_rows(short)
    probes = [explain.linear_probe(run.model, training, validation)["stage_3"] for run in networks.values()]
    return [
        headline(*before.values()),
        capacity(train.evaluate(networks["BaselineNet"].model, training)[1], base, labels),
        texture(cues),
        misleading(before["BaselineNet"]),
        balance(base, new, labels),
        pairs(base, new, labels),
        confidence(list(before.values()), list(after.values())),
        depth(networks, probes),
        stability(ablation),
        overfitting(ablation),
        invariance(ablation),
        choices(ablation),
        checkpoint(networks, [run for trial, run in short if trial.config.schedule == "constant"]),
    ]


def as_markdown(rows: list[Claim]) -> str:
    """The claims as a pipe table."""
    cells = [(row.claim, row.measured, row.verdict) for row in rows]
    return notebook.pipe_table(["The reference says", "Measured", "Verdict"], cells, numbers=False)


def headline(base: dict, new: dict) -> Claim:
    """The headline numbers, of its weights and of ours."""
    old = " → ".join(f"{s['accuracy']:.2%}, {s['nll']:.3f}, {s['macro_f1']:.3f}" for s in REFERENCE.values())
    ours = " → ".join(f"{s['accuracy']:.2%}, {s['nll']:.3f}, {s['macro_f1']:.3f}" for s in (base, new))
    reached = new["accuracy_high"] >= 0.914 and round(new["nll"], 2) <= 0.29
    return Claim("Accuracy 68.5 → 91.4%, loss 0.91 → 0.29, macro-F1 69 → 91%", f"Its weights: {old}. Ours: {ours}",
                 "holds; our improved network reaches it" if reached else "holds of its weights, not ours",
                 HOLDS if reached else IN_PART)


def capacity(training: float, logits: np.ndarray, labels: np.ndarray) -> Claim:
    """Under-fitting, and more so on the fine-grained classes."""
    right, animal = logits.argmax(1) == labels, np.isin(labels, config.ANIMALS)
    holds = training < 0.9 and right[animal].mean() < right[~animal].mean()
    return Claim(
        "The baseline lacks capacity, most of all for fine-grained classes",
        f"Only {training:.1%} of its own training images right; on test animals {right[animal].mean():.1%}, "
        f"on vehicles {right[~animal].mean():.1%}",
        *_holds(holds),
    )


def texture(cues: pd.DataFrame) -> Claim:
    """What survives of the accuracy when shape is destroyed and texture stays, and without colour."""
    kept = cues / cues.loc["nothing"]
    grey, shuffled = kept.loc["colour"], kept.loc["shape, 4 tiles a side"]
    return Claim(
        "The baseline looks at texture rather than shape",
        f"Of its accuracy it keeps {grey['BaselineNet']:.0%} in grey and {shuffled['BaselineNet']:.0%} with sixteen "
        f"tiles shuffled; ImprovedNet {grey['ImprovedNet']:.0%} and {shuffled['ImprovedNet']:.0%}",
        *_holds(shuffled["BaselineNet"] > shuffled["ImprovedNet"], "does not hold: less so than its successor"),
    )


def misleading(scores: dict) -> Claim:
    """Over-confidence of the baseline."""
    lead = scores["mean_confidence"] - scores["accuracy"]
    return Claim(
        "The baseline shows how confidence misleads",
        f"{scores['wrong_above_90']} mistakes above 0.9; mean confidence {100 * lead:+.1f} points from accuracy",
        *_holds(lead > 0 and scores["wrong_above_90"] > 0),
    )


def balance(base: np.ndarray, new: np.ndarray, labels: np.ndarray) -> Claim:
    """F1 over classes: in points, and the hardest class against the mean."""
    f1 = [metrics.per_class(z, labels)["f1"] for z in (base, new)]
    ranges, deviations = [x.max() - x.min() for x in f1], [x.std(ddof=0) for x in f1]
    worst = [(1 - x.min()) / (1 - x.mean()) for x in f1]
    verdicts = {
        (True, True): (HOLDS, HOLDS), (True, False): ("holds in points, not in proportion", IN_PART),
        (False, True): ("holds in proportion, not in points", IN_PART), (False, False): (NOT, NOT),
    }
    return Claim(
        "More balanced classes, most of all the hard animals",
        f"Range of F1 {ranges[0]:.2f} → {ranges[1]:.2f}, deviation {deviations[0]:.3f} → {deviations[1]:.3f}; the "
        f"hardest class is {worst[0]:.1f} → {worst[1]:.1f} times as far from a perfect F1 as the mean",
        *verdicts[bool(ranges[1] < ranges[0]), bool(worst[1] < worst[0])],
    )


def pairs(base: np.ndarray, new: np.ndarray, labels: np.ndarray) -> Claim:
    """The share of all errors in the five most confused pairs."""
    share = [metrics.top_share(metrics.confusion(z, labels)) for z in (base, new)]
    return Claim("Errors concentrate on ambiguous pairs",
                 f"The five worst of 45 pairs hold {share[0]:.0%} → {share[1]:.0%} of the errors",
                 *_holds(share[1] > share[0]))


def confidence(before: list[dict], after: list[dict]) -> Claim:
    """Confident mistakes and calibration error, as trained and after the temperature."""
    versions = {"its weights": REFERENCE.values(), "ours": before, "at their temperatures": after}
    texts = [f"{what} {a['wrong_above_90']} → {b['wrong_above_90']} and {a['ece']:.3f} → {b['ece']:.3f}"
             for what, (a, b) in versions.items()]
    better = {
        f"{key} {when}": b[score] < a[score]
        for when, (a, b) in (("as trained", before), ("at equal calibration", after))
        for key, score in (("fewer mistakes", "wrong_above_90"), ("lower ECE", "ece"))
    }
    true = [key for key, holds in better.items() if holds]
    mixed = 0 < len(true) < len(better)
    return Claim("Fewer over-confident mistakes, better calibration", f"Wrong above 0.9, and ECE: {'; '.join(texts)}",
                 *((f"only {' and '.join(true)}", IN_PART) if mixed else _holds(bool(true))))


def depth(networks: dict[str, Run], probes: list[float]) -> Claim:
    """How far the last feature maps see, and what a linear classifier makes of them."""
    fields = []
    for run in networks.values():
        table = models.layer_table(run.model)
        fields.append(table.loc[table["layer"].str.contains("Pool"), "receptive field"].iloc[-1])
    return Claim(
        "Depth and a larger receptive field give better features",
        f"The last maps see {fields[0]} → {fields[1]} pixels a side; a linear classifier on them scores "
        f"{probes[0]:.1%} → {probes[1]:.1%} on validation images",
        *(("holds in part: width and recipe changed too", IN_PART) if probes[1] > probes[0] else _holds(False)),
    )


def stability(ablation: pd.DataFrame) -> Claim:
    """Accuracy without batch normalisation."""
    change = effects.against_first(ablation, "accuracy").loc[["without batch normalisation"]]
    return Claim("Batch normalisation stabilises training",
                 f"Accuracy {_listed(change)}; steadiness itself was not measured",
                 *_judge(change, -1))


def choices(ablation: pd.DataFrame) -> Claim:
    """Accuracy with another initialisation, schedule and optimiser."""
    parts = {"PyTorch's initialisation for Kaiming's": "Kaiming", "constant rate for cosine": "cosine",
             "SGD for AdamW": "Adam"}
    change = effects.against_first(ablation, "accuracy").loc[list(parts)]
    return Claim("Kaiming initialisation, cosine schedule and Adam help", f"Accuracy {_listed(change)}",
                 *_judge(change.rename(parts), -1))


def overfitting(ablation: pd.DataFrame) -> Claim:
    """The lead of training over validation accuracy without dropout and without weight decay."""
    change = effects.against_first(ablation, "gap").loc[["without dropout", "without weight decay"]]
    return Claim("Dropout and weight decay reduce over-fitting", f"Lead of training accuracy {_listed(change)}",
                 *_judge(change.rename(lambda label: label.removeprefix("without ")), 1))


def invariance(ablation: pd.DataFrame) -> Claim:
    """How much more accuracy a changed cue costs when training did not augment."""
    cues = {"rotation": "pose, 10 degrees", "shift": "place, 4 pixels", "occlusion": "a square, 12 pixels a side"}
    costs = ablation.assign(**{name: ablation["nothing"] - ablation[cue] for name, cue in cues.items()})
    change = pd.DataFrame({name: effects.against_first(costs, name).loc["without augmentation"] for name in cues}).T
    return Claim("Stronger augmentation teaches invariance to pose, background, occlusion",
                 f"Without augmentation accuracy falls further: {_listed(change)}; background not measured",
                 *_judge(change, 1))


def checkpoint(networks: dict[str, Run], constant: list[Run]) -> Claim:
    """The kept against the last epoch, under a rate that falls to zero and under one that stays."""
    epochs = " and ".join(f"{run.record['best_epoch']} of {run.record['epochs']}" for run in networks.values())
    losses = [run.history["validation_loss"] for run in constant]
    last, kept = np.mean([x.iloc[-1] for x in losses]), np.mean([x.min() for x in losses])
    idle = all(run.record["best_epoch"] == run.record["epochs"] for run in networks.values())
    return Claim(
        "The checkpoint of the best validation loss is worth keeping",
        f"Kept are epochs {epochs}; at a constant rate the loss is {last:.3f} at the last epoch and {kept:.3f} at the "
        "kept one (ablation)",
        *(("makes no difference under the cosine", NOT) if idle else _holds(kept < last)),
    )


def _holds(condition: bool, otherwise: str = NOT) -> tuple[str, str]:
    """Verdict and standing of a claim that holds or does not."""
    return (HOLDS, HOLDS) if condition else (otherwise, NOT)


def _listed(change: pd.DataFrame) -> str:
    """Differences with their intervals, in points."""
    return "; ".join(f"{label} {said}" for label, said in effects.in_points(change).items())


def _judge(change: pd.DataFrame, sign: int) -> tuple[str, str]:
    """What intervals say of a claim that all differences have this sign; one that covers zero shows nothing."""
    low, high = np.sort(sign * change[["low", "high"]].to_numpy(dtype=float)).T
    said = np.select([low > 0, high < 0], [HOLDS, "the contrary holds"], "not shown")
    parts = pd.Series(change.index).groupby(said, sort=False).agg(" and ".join)
    verdict = said[0] if len(parts) == 1 else "; ".join(f"{word} for {names}" for word, names in parts.items())
    return verdict, HOLDS if (low > 0).all() else IN_PART if (low > 0).any() else NOT


# ---------------------------------------------------------------- beside the reference

ROWS = (  # key, name, factor, digits
    ("parameters", "parameters", 1, 0),
    ("accuracy", "accuracy (%)", 100, 2),
    ("macro_f1", "macro-F1", 1, 3),
    ("nll", "loss (nats)", 1, 3),
    ("brier", "Brier score", 1, 3),
    ("ece", "ECE", 1, 3),
    ("mean_confidence", "mean confidence", 1, 3),
    ("wrong_above_90", "wrong above 0.9", 1, 0),
    ("wrong_above_99", "wrong above 0.99", 1, 0),
)


def comparison_table(summaries: dict[str, dict]) -> pd.DataFrame:
    """Scores as text, a column for each network and each reference, with [low, high] where a score has an interval."""
    columns = {name: [_cell(scores, *row) for row in ROWS] for name, scores in {**summaries, **REFERENCE}.items()}
    return pd.DataFrame(columns, index=pd.Index([row[1] for row in ROWS], name="on the test images"))


def _cell(scores, key, name, factor, digits):
    text = f"{factor * scores[key]:,.{digits}f}"
    if f"{key}_low" in scores:
        text += f" [{factor * scores[key + '_low']:.{digits}f}, {factor * scores[key + '_high']:.{digits}f}]"
    return text
