"""What the reference coursework claims, each claim beside what settles it and a verdict that follows by rule.

Nothing here loads or trains: a notebook hands over what it has measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers import metrics, models, notebook
from helpers.analysis import effects
from helpers.runs import Results, Run

# The reference's two published weight files, re-evaluated once on the 10,000 test images with the
# preprocessing inferred to match them. They are not part of this repository, so these are
# citations, not results of a run here.
REFERENCE = {
    "reference baseline": {
        "parameters": 48_252,
        "accuracy": 0.6853,
        "accuracy_low": 0.6761,
        "accuracy_high": 0.6943,
        "macro_f1": 0.6841,
        "nll": 0.9120,
        "brier": 0.4305,
        "ece": 0.0402,
        "mean_confidence": 0.7253,
        "wrong_above_90": 177,
        "wrong_above_99": 13,
    },
    "reference improved": {
        "parameters": 815_018,
        "accuracy": 0.9142,
        "accuracy_low": 0.9086,
        "accuracy_high": 0.9195,
        "macro_f1": 0.9142,
        "nll": 0.2876,
        "brier": 0.1287,
        "ece": 0.0392,
        "mean_confidence": 0.9534,
        "wrong_above_90": 267,
        "wrong_above_99": 77,
    },
}
THEIR_BASELINE = REFERENCE["reference baseline"]
THEIR_IMPROVED = REFERENCE["reference improved"]

CLAIMED_ACCURACY = 0.914  # of its improved network, rounded as the reference rounds it
CLAIMED_LOSS = 0.29  # likewise
LEARNT = 0.9  # a network that gets fewer of its own training images right lacks capacity

HOLDS, IN_PART, NOT = STANDINGS = ("holds", "holds in part", "does not hold")


class Claim(NamedTuple):
    """A claim under a short key, the numbers that settle it, and the verdict.

    standing is the verdict in short, one of STANDINGS.
    """

    key: str
    claim: str
    measured: str
    verdict: str
    standing: str


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged by.

    networks: the runs of BaselineNet and ImprovedNet; logits: theirs of the test images, (n, 10), whose
    classes are `labels` (n,). before, after: metrics.summary of these, as trained and at the fitted
    temperature. cues: accuracies, a row a cue of robustness.without_cues, a column a network.
    training_accuracy: BaselineNet's on images that it was trained on. probes: by network, the
    accuracy of a linear classifier on its last feature maps. ablation: the rows of that experiment;
    constant: its results at a constant learning rate.
    """

    networks: dict[str, Run]
    logits: dict[str, np.ndarray]
    labels: np.ndarray
    before: dict[str, dict]
    after: dict[str, dict]
    cues: pd.DataFrame
    training_accuracy: float
    probes: dict[str, float]
    ablation: pd.DataFrame
    constant: list[Results]

    def pair(self, name: str) -> tuple:
        """One of the fields that hold a value for each network: BaselineNet's and ImprovedNet's."""
        values = getattr(self, name)
        return values["BaselineNet"], values["ImprovedNet"]


def judge_claims(evidence: Evidence) -> list[Claim]:
    """All claims of the reference."""
    runs, logits = evidence.pair("networks"), evidence.pair("logits")
    before, after = evidence.pair("before"), evidence.pair("after")
    return [
        headline(*before),
        capacity(evidence.training_accuracy, logits[0], evidence.labels),
        texture(evidence.cues),
        misleading(before[0]),
        balance(*logits, evidence.labels),
        pairs(*logits, evidence.labels),
        confidence(before, after),
        depth(runs, evidence.pair("probes")),
        stability(evidence.ablation),
        overfitting(evidence.ablation),
        invariance(evidence.ablation),
        choices(evidence.ablation),
        checkpoint(runs, evidence.constant),
    ]


def as_markdown(rows: list[Claim]) -> str:
    """The claims as a pipe table."""
    cells = [(row.claim, row.measured, row.verdict) for row in rows]
    return notebook.pipe_table(["The reference says", "Measured", "Verdict"], cells, numbers=False)


def headline(base: dict, new: dict) -> Claim:
    """The headline numbers, of its weights and of ours."""
    old, ours = (
        " → ".join(f"{s['accuracy']:.2%}, {s['nll']:.3f}, {s['macro_f1']:.3f}" for s in scores)
        for scores in ((THEIR_BASELINE, THEIR_IMPROVED), (base, new))
    )
    reached = new["accuracy_high"] >= CLAIMED_ACCURACY and round(new["nll"], 2) <= CLAIMED_LOSS
    return Claim(
        "headline",
        "Accuracy 68.5 → 91.4%, loss 0.91 → 0.29, macro-F1 69 → 91%",
        f"Its weights: {old}. Ours: {ours}",
        "holds; our improved network reaches it" if reached else "holds of its weights, not ours",
        HOLDS if reached else IN_PART,
    )


def capacity(training: float, logits: np.ndarray, labels: np.ndarray) -> Claim:
    """Under-fitting, and more so on the fine-grained classes."""
    kinds = metrics.by_kind(logits, labels)
    return Claim(
        "capacity",
        "The baseline lacks capacity, most of all for fine-grained classes",
        f"It gets {training:.1%} of its own training images right; on test animals "
        f"{kinds['animals']:.1%}, on vehicles {kinds['vehicles']:.1%}",
        *_holds(training < LEARNT and kinds["animals"] < kinds["vehicles"]),
    )


def texture(cues: pd.DataFrame) -> Claim:
    """What survives of the accuracy when shape is destroyed and texture stays, and without colour."""
    kept = cues / cues.loc["nothing"]
    grey, shuffled = kept.loc["colour"], kept.loc["shape_4"]
    less = shuffled["BaselineNet"] < shuffled["ImprovedNet"]
    return Claim(
        "texture",
        "The baseline looks at texture rather than shape",
        f"Of its accuracy it keeps {grey['BaselineNet']:.0%} in grey and "
        f"{shuffled['BaselineNet']:.0%} with sixteen tiles shuffled; ImprovedNet "
        f"{grey['ImprovedNet']:.0%} and {shuffled['ImprovedNet']:.0%}",
        *_holds(
            shuffled["BaselineNet"] > shuffled["ImprovedNet"],
            "does not hold: less so than its successor" if less else NOT,
        ),
    )


def misleading(scores: dict) -> Claim:
    """Over-confidence of the baseline."""
    lead = scores["mean_confidence"] - scores["accuracy"]
    return Claim(
        "misleading",
        "The baseline shows how confidence misleads",
        f"{scores['wrong_above_90']} mistakes above 0.9; mean confidence "
        f"{100 * lead:+.1f} points from accuracy",
        *_holds(lead > 0 and scores["wrong_above_90"] > 0),
    )


def balance(base: np.ndarray, new: np.ndarray, labels: np.ndarray) -> Claim:
    """F1 over classes: in points, and the hardest class against the mean."""
    f1 = [metrics.per_class(z, labels)["f1"] for z in (base, new)]
    ranges, deviations = [x.max() - x.min() for x in f1], [x.std(ddof=0) for x in f1]
    worst = [(1 - x.min()) / (1 - x.mean()) for x in f1]
    in_points, in_proportion = bool(ranges[1] < ranges[0]), bool(worst[1] < worst[0])
    if in_points != in_proportion:
        words = ("points", "proportion") if in_points else ("proportion", "points")
        verdict = ("holds in {}, not in {}".format(*words), IN_PART)
    else:
        verdict = _holds(in_points)
    return Claim(
        "balance",
        "More balanced classes, most of all the hard animals",
        f"Range of F1 {ranges[0]:.2f} → {ranges[1]:.2f}, deviation {deviations[0]:.3f} → "
        f"{deviations[1]:.3f}; the hardest class is {worst[0]:.1f} → {worst[1]:.1f} times as far "
        "from a perfect F1 as the mean",
        *verdict,
    )


def pairs(base: np.ndarray, new: np.ndarray, labels: np.ndarray) -> Claim:
    """The share of all errors in the five most confused pairs."""
    share = [metrics.top_share(metrics.confusion(z, labels)) for z in (base, new)]
    return Claim(
        "pairs",
        "Errors concentrate on ambiguous pairs",
        f"The five worst of 45 pairs hold {share[0]:.0%} → {share[1]:.0%} of the errors",
        *_holds(share[1] > share[0]),
    )


def confidence(before: Sequence[dict], after: Sequence[dict]) -> Claim:
    """Confident mistakes and calibration error, as trained and after the temperature."""
    theirs = (THEIR_BASELINE, THEIR_IMPROVED)
    versions = (("its weights", theirs), ("ours", before), ("at their temperatures", after))
    texts = [
        f"{what} {a['wrong_above_90']} → {b['wrong_above_90']} and {a['ece']:.3f} → {b['ece']:.3f}"
        for what, (a, b) in versions
    ]
    better = [
        (f"{improvement} {when}", b[score] < a[score])
        for when, (a, b) in (("as trained", before), ("at equal calibration", after))
        for improvement, score in (("fewer mistakes", "wrong_above_90"), ("lower ECE", "ece"))
    ]
    true = [improvement for improvement, holds in better if holds]
    mixed = 0 < len(true) < len(better)
    return Claim(
        "confidence",
        "Fewer over-confident mistakes, better calibration",
        f"Wrong above 0.9, and ECE: {'; '.join(texts)}",
        *((f"only {' and '.join(true)}", IN_PART) if mixed else _holds(bool(true))),
    )


def depth(networks: Sequence[Run], probes: Sequence[float]) -> Claim:
    """How far the last feature maps see, and what a linear classifier makes of them."""
    fields = []
    for run in networks:
        table = models.layer_table(run.model)
        fields.append(table.loc[table["layer"].str.contains("Pool"), "receptive field"].iloc[-1])
    in_part = ("holds in part: width and recipe changed too", IN_PART)
    return Claim(
        "depth",
        "Depth and a larger receptive field give better features",
        f"The last maps see {fields[0]} → {fields[1]} pixels a side; a linear classifier on them "
        f"scores {probes[0]:.1%} → {probes[1]:.1%} on validation images",
        *(in_part if probes[1] > probes[0] else _holds(False)),
    )


def stability(ablation: pd.DataFrame) -> Claim:
    """Accuracy without batch normalisation."""
    change = effects.against(ablation, "recipe", "accuracy").loc[["no_batch_norm"]]
    return Claim(
        "stability",
        "Batch normalisation stabilises training",
        f"Accuracy {_listed(_titled(change, ablation))}; steadiness itself was not measured",
        *_judge(change, -1),
    )


def choices(ablation: pd.DataFrame) -> Claim:
    """Accuracy with another initialisation, schedule and optimiser."""
    parts = {"default_init": "Kaiming", "constant_lr": "cosine", "sgd": "Adam"}
    change = effects.against(ablation, "recipe", "accuracy").loc[list(parts)]
    return Claim(
        "choices",
        "Kaiming initialisation, cosine schedule and Adam help",
        f"Accuracy {_listed(_titled(change, ablation))}",
        *_judge(change.rename(parts), -1),
    )


def overfitting(ablation: pd.DataFrame) -> Claim:
    """The lead of training over validation accuracy without dropout and without weight decay."""
    parts = {"no_dropout": "dropout", "no_weight_decay": "weight decay"}
    change = effects.against(ablation, "recipe", "gap").loc[list(parts)]
    return Claim(
        "overfitting",
        "Dropout and weight decay reduce over-fitting",
        f"Lead of training accuracy {_listed(_titled(change, ablation))}",
        *_judge(change.rename(parts), 1),
    )


def invariance(ablation: pd.DataFrame) -> Claim:
    """How much more accuracy a changed cue costs when training did not augment."""
    cues = {"rotation": "pose_10", "shift": "place_4", "occlusion": "square_12"}
    costs = ablation.assign(**{name: ablation["nothing"] - ablation[cue] for name, cue in cues.items()})
    found = {name: effects.against(costs, "recipe", name).loc["no_augmentation"] for name in cues}
    change = pd.DataFrame(found).T
    return Claim(
        "invariance",
        "Stronger augmentation teaches invariance to pose, background, occlusion",
        f"Without augmentation accuracy falls further: {_listed(change)}; background not measured",
        *_judge(change, 1),
    )


def checkpoint(networks: Sequence[Run], constant: list[Results]) -> Claim:
    """The kept against the last epoch, in our trainings and at a constant learning rate."""
    epochs = [f"{run.record['best_epoch']} of {run.record['epochs']}" for run in networks]
    losses = [results.history["validation_loss"] for results in constant]
    last, kept = np.mean([x.iloc[-1] for x in losses]), np.mean([x.min() for x in losses])
    idle = all(run.record["best_epoch"] == run.record["epochs"] for run in networks)
    return Claim(
        "checkpoint",
        "The checkpoint of the best validation loss is worth keeping",
        f"Kept are epochs {' and '.join(epochs)}; at a constant learning rate the loss is "
        f"{last:.3f} at the last epoch and {kept:.3f} at the kept one (ablation)",
        *(("makes no difference: the last epochs are the best", NOT) if idle else _holds(kept < last)),
    )


def _holds(condition: bool, otherwise: str = NOT) -> tuple[str, str]:
    """Verdict and standing of a claim that holds or does not."""
    return (HOLDS, HOLDS) if condition else (otherwise, NOT)


def _titled(change: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Differences by the titles of their trials instead of the keys."""
    return change.rename(effects.spread(rows)["title"])


def _listed(change: pd.DataFrame) -> str:
    """Differences with their intervals, in points."""
    return "; ".join(f"{title} {said}" for title, said in effects.in_points(change).items())


def _judge(change: pd.DataFrame, sign: int) -> tuple[str, str]:
    """What intervals say of a claim that all differences have this sign.

    An interval that covers zero shows nothing. The index names the parts in the verdict.
    """
    low, high = np.sort(sign * change[["low", "high"]].to_numpy(dtype=float)).T
    said = np.select([low > 0, high < 0], [HOLDS, "the contrary holds"], "not shown")
    parts = pd.Series(change.index).groupby(said, sort=False).agg(" and ".join)
    several = "; ".join(f"{word} for {names}" for word, names in parts.items())
    verdict = said[0] if len(parts) == 1 else several
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
    """Scores as text, a column for each network and each reference.

    [low, high] follows where a score has an interval.
    """
    columns = {
        name: [_cell(scores, *row) for row in ROWS]
        for name, scores in {**summaries, **REFERENCE}.items()
    }
    return pd.DataFrame(columns, index=pd.Index([row[1] for row in ROWS], name="on the test images"))


def _cell(scores: dict, key: str, name: str, factor: float, digits: int) -> str:
    text = f"{factor * scores[key]:,.{digits}f}"
    if f"{key}_low" in scores:
        low, high = (factor * scores[f"{key}_{end}"] for end in ("low", "high"))
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text
