"""What the reference coursework claims, each claim beside what settles it and a verdict that follows by rule.

Nothing here loads or trains: a notebook hands over what it has measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from torch import nn

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
        "aurc": 0.1324,
        "coverage_at_1": 0.066,
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
        "aurc": 0.01122,
        "coverage_at_1": 0.723,
        "wrong_above_90": 267,
        "wrong_above_99": 77,
    },
}
THEIR_BASELINE = REFERENCE["reference baseline"]
THEIR_IMPROVED = REFERENCE["reference improved"]

CLAIMED_ACCURACY = 0.914  # of its improved network, rounded as the reference rounds it
CLAIMED = {"accuracy": CLAIMED_ACCURACY, "macro_f1": 0.91, "nll": 0.29}  # likewise
CHANCE = 0.1  # accuracy of guessing among ten balanced classes

HOLDS, IN_PART, UNDECIDED, NOT = STANDINGS = ("holds", "holds in part", "not decided", "does not hold")


class Claim(NamedTuple):
    """A claim under a short key, the numbers that settle it, and the verdict.

    standing is the verdict in short, one of STANDINGS. UNDECIDED: the evidence fits the claim and its contrary.
    """

    key: str
    claim: str
    measured: str
    verdict: str
    standing: str


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged by.

    networks: the runs of BaselineNet and ImprovedNet; logits, scaled: theirs of the test images, (n, 10), as trained
    and at the fitted temperature; labels: the classes of these images (n,). scores: metrics.summary, as trained.
    wider: logits (10000, 10) of all test images by the published BaselineNet and by one four times as wide, and their
    labels. right: as of robustness.shape_against_place. rotations: as of robustness.under_rotation.
    training_accuracy: BaselineNet's on images that it was trained on. probes: by network, the accuracy of a linear
    classifier on its last feature maps. ablation, tuned: the rows of the experiments `ablation` and `choices`; losses:
    by the keys of the former, the validation losses of each of its trainings, an epoch each; repeated: the trainings
    from several seeds.
    """

    networks: dict[str, Run]
    logits: dict[str, np.ndarray]
    scaled: dict[str, np.ndarray]
    labels: np.ndarray
    scores: dict[str, dict]
    wider: tuple[np.ndarray, np.ndarray, np.ndarray]
    right: dict[str, dict[str, np.ndarray]]
    rotations: pd.DataFrame
    training_accuracy: float
    probes: dict[str, float]
    ablation: pd.DataFrame
    tuned: pd.DataFrame
    losses: dict[str, list[np.ndarray]]
    repeated: list[Results]

    def pair(self, name: str) -> tuple:
        """One of the fields that hold a value for each network: BaselineNet's and ImprovedNet's."""
        values = getattr(self, name)
        return values["BaselineNet"], values["ImprovedNet"]


def judge_claims(evidence: Evidence) -> list[Claim]:
    """All claims of the reference."""
    runs, logits, labels = evidence.pair("networks"), evidence.pair("logits"), evidence.labels
    scores = evidence.pair("scores")
    right = [z.argmax(1) == labels for z in logits]
    return [
        headline(scores[0], scores[1], metrics.paired_difference(*right)),
        capacity(evidence.training_accuracy, *evidence.wider),
        texture(evidence.right),
        misleading(scores[0]),
        balance(logits[0], logits[1], labels),
        pairs(logits[0], logits[1], labels),
        confidence(logits, evidence.pair("scaled"), labels),
        depth(runs, evidence.pair("probes")),
        stability(evidence.ablation, evidence.losses),
        overfitting(evidence.ablation),
        invariance(evidence.ablation, evidence.rotations["ImprovedNet"]),
        choices(evidence.ablation, evidence.tuned),
        checkpoint([*runs, *evidence.repeated], evidence.losses["constant_lr"], _spread_of_loss(evidence.repeated)),
    ]


def as_markdown(rows: list[Claim]) -> str:
    """The claims as a pipe table."""
    cells = [(row.claim, row.measured, row.verdict) for row in rows]
    return notebook.pipe_table(["The reference says", "Measured", "Verdict"], cells, numbers=False)


def headline(base: dict, new: dict, gain: dict) -> Claim:
    """The headline numbers, of its weights and of ours. gain: metrics.paired_difference of our networks."""
    old, ours = (
        " → ".join(f"{s['accuracy']:.2%}, {s['nll']:.3f}, {s['macro_f1']:.3f}" for s in scores)
        for scores in ((THEIR_BASELINE, THEIR_IMPROVED), (base, new))
    )
    digits = {"accuracy": 3, "macro_f1": 2, "nll": 2}
    rounded = {key: round(new[key], places) for key, places in digits.items()}
    reached = all(rounded[key] >= CLAIMED[key] for key in ("accuracy", "macro_f1")) and rounded["nll"] <= CLAIMED["nll"]
    claimed_gain = THEIR_IMPROVED["accuracy"] - THEIR_BASELINE["accuracy"]
    if not reached:
        verdict = ("holds of its weights, not of ours", IN_PART)
    elif gain["difference_high"] < claimed_gain:
        verdict = ("holds of the improved network; the gain is smaller, since our baseline is better", IN_PART)
    else:
        verdict = (HOLDS, HOLDS)
    return Claim(
        "headline",
        "Accuracy 68.5 → 91.4%, loss 0.91 → 0.29, macro-F1 69 → 91%",
        f"Its weights: {old}. Ours: {ours}. Gain in accuracy {100 * claimed_gain:.1f} and {_points(gain)} points",
        *verdict,
    )


def capacity(training: float, base: np.ndarray, wide: np.ndarray, labels: np.ndarray) -> Claim:
    """What a baseline four times as wide gains, and whether animals gain most."""
    gain = metrics.paired_difference(*(z.argmax(1) == labels for z in (base, wide)))
    kinds = [metrics.by_kind(z, labels) for z in (base, wide)]
    points = {kind: 100 * (kinds[1][kind] - kinds[0][kind]) for kind in kinds[0]}
    gone = {kind: 1 - (1 - kinds[1][kind]) / (1 - kinds[0][kind]) for kind in kinds[0]}
    lacking = gain["difference_low"] > 0
    most = lacking and points["animals"] > points["vehicles"] and gone["animals"] > gone["vehicles"]
    if most or not lacking:
        verdict = (HOLDS, HOLDS) if most else (UNDECIDED, UNDECIDED)
    else:
        verdict = ("it lacks capacity; fine-grained classes do not gain a larger share", IN_PART)
    return Claim(
        "capacity",
        "The baseline lacks capacity, most of all for fine-grained classes",
        f"It gets {training:.1%} of its own training images right. Four times as wide it gains {_points(gain)} points: "
        f"{points['animals']:+.1f} on animals and {points['vehicles']:+.1f} on vehicles, or {gone['animals']:.0%} and "
        f"{gone['vehicles']:.0%} of the errors",
        *verdict,
    )


def texture(right: dict[str, dict[str, np.ndarray]]) -> Claim:
    """What survives of the accuracy above chance when tiles are shuffled, and when all move alike and shape stays."""
    networks = ("BaselineNet", "ImprovedNet")
    found: dict[str, dict] = {}
    drawn: dict[str, dict] = {}
    for name in networks:
        columns = np.column_stack([right[change][name] for change in ("nothing", "moved", "shuffled")])
        for values, means in ((found, columns.mean(0)), (drawn, metrics.resampled_means(columns).T)):
            whole, moved, shuffled = np.maximum(means - CHANCE, 1e-3)
            values[name] = {"shuffled": shuffled / whole, "moved": moved / whole, "of moved": shuffled / moved}
    leads = {}
    for share in ("shuffled", "of moved"):
        difference = drawn["BaselineNet"][share] - drawn["ImprovedNet"][share]
        leads[share] = np.quantile(difference, [0.025, 0.975])
    low, high = np.array(list(leads.values())).T
    if (low > 0).all() or (high < 0).all():
        verdict = _holds(bool(low[0] > 0))
    else:
        verdict = ("not decided: shuffling also moves tiles, and moving alone harms the baseline more", UNDECIDED)
    texts = {name: [f"{found[name][share]:.0%}" for share in ("shuffled", "moved", "of moved")] for name in networks}
    said = [" and ".join(each) for each in zip(*texts.values(), strict=True)]
    return Claim(
        "texture",
        "The baseline looks at texture rather than shape",
        f"Of their accuracy above chance, BaselineNet and ImprovedNet keep {said[0]} with sixteen tiles shuffled, and "
        f"{said[1]} with all tiles moved as far alike. Of the latter, shuffling leaves {said[2]}",
        *verdict,
    )


def misleading(scores: dict) -> Claim:
    """Confident mistakes of the baseline, beside as many as its confidences would make if they were right."""
    expected, deviation = scores["expected_above_90"], scores["expected_above_90_std"]
    more = scores["wrong_above_90"] > expected + 1.96 * deviation
    return Claim(
        "misleading",
        "The baseline shows how confidence misleads",
        f"{scores['wrong_above_90']} mistakes above 0.9; its confidences promise {expected:.0f} ± {deviation:.0f}",
        *((HOLDS, HOLDS) if more else (UNDECIDED, UNDECIDED)),
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
    """The shares of the worst pair of classes and of the next four, beside those that chance gives few errors.

    A share of the worst pairs grows by chance where errors are few. So as many errors as ImprovedNet makes are drawn by
    the pattern of BaselineNet, itself drawn anew, 1,000 times.
    """
    counts = [metrics.pair_errors(metrics.confusion(z, labels)) for z in (base, new)]
    rng, totals = np.random.default_rng(0), [max(1, each.sum()) for each in counts]
    patterns = rng.multinomial(totals[0], _shares(counts[0]), 1000)
    drawn = rng.multinomial(totals[1], _shares(patterns))
    worst, others = [_first_shares(each) for each in (np.stack(counts), drawn)]
    high = [np.quantile(share, 0.975) for share in others]
    more = [worst[i][1] > high[i] for i in (0, 1)]
    parts = ["the worst pair", "the next four"]
    if any(more) and not all(more):
        verdict = (f"holds for {parts[more.index(True)]}; not decided for {parts[more.index(False)]}", IN_PART)
    else:
        verdict = (HOLDS, HOLDS) if all(more) else (UNDECIDED, UNDECIDED)
    return Claim(
        "pairs",
        "Errors concentrate on ambiguous pairs",
        f"The worst of 45 pairs holds {worst[0][0]:.0%} → {worst[0][1]:.0%} of the errors, the next four "
        f"{worst[1][0]:.0%} → {worst[1][1]:.0%} of the rest; as few errors in the old pattern reach {high[0]:.0%} and "
        f"{high[1]:.0%} by chance",
        *verdict,
    )


def confidence(before: Sequence[np.ndarray], after: Sequence[np.ndarray], labels: np.ndarray) -> Claim:
    """Confident mistakes and calibration error, as trained and with each network at its own temperature."""
    theirs = (THEIR_BASELINE, THEIR_IMPROVED)
    said = [
        "its weights {} → {} and {:.3f} → {:.3f}".format(*(x[key] for key in ("wrong_above_90", "ece") for x in theirs))
    ]
    change = {}
    for when, logits in (("as trained", before), ("at their temperatures", after)):
        mistakes = [metrics.confident_mistakes(z, labels, 0.9) for z in logits]
        eces = [metrics.ece(z, labels) for z in logits]
        drawn = metrics.paired_bootstrap(metrics.ece, labels, *logits, draws=300)
        low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
        fewer = metrics.paired_difference(*mistakes)
        change[f"fewer mistakes {when}"] = (fewer["difference_low"], fewer["difference_high"])
        change[f"a lower ECE {when}"] = (low, high)
        said.append(
            f"{when} {mistakes[0].sum()} → {mistakes[1].sum()} and {eces[0]:.3f} → {eces[1]:.3f} "
            f"(difference [{low:+.3f}, {high:+.3f}])"
        )
    return Claim(
        "confidence",
        "Fewer over-confident mistakes, better calibration",
        f"Wrong above 0.9, and ECE: {'; '.join(said)}",
        *_judge(pd.DataFrame.from_dict(change, orient="index", columns=["low", "high"]), -1),
    )


def depth(networks: Sequence[Run], probes: Sequence[float]) -> Claim:
    """How far the last feature maps see, and what a linear classifier makes of them."""
    fields, sizes = [], []
    for run in networks:
        table = models.layer_table(run.model)
        fields.append(table.loc[table["layer"].str.contains("Pool"), "receptive field"].iloc[-1])
        sizes.append(next(layer.in_features for layer in run.model if isinstance(layer, nn.Linear)))
    in_part = ("holds in part: width, number of features and recipe changed too", IN_PART)
    return Claim(
        "depth",
        "Depth and a larger receptive field give better features",
        f"The last maps see {fields[0]} → {fields[1]} pixels a side; a linear classifier on their {sizes[0]:,} → "
        f"{sizes[1]:,} features scores {probes[0]:.1%} → {probes[1]:.1%} on validation images",
        *(in_part if probes[1] > probes[0] else _holds(False)),
    )


def stability(ablation: pd.DataFrame, losses: dict[str, list[np.ndarray]]) -> Claim:
    """Accuracy without batch normalisation, and how often the validation loss rises from an epoch to the next."""
    change = effects.against(ablation, "recipe", "accuracy").loc[["no_batch_norm"]]
    rises = {key: [np.diff(each) > 0 for each in losses[key]] for key in ("recipe", "no_batch_norm")}
    rose = {key: (int(np.sum(each)), np.size(each)) for key, each in rises.items()}
    steadier = scipy.stats.fisher_exact([[n, size - n] for n, size in rose.values()], alternative="less").pvalue < 0.025
    faster = change["high"].iloc[0] < 0
    words = "steadier" if steadier else "steadiness not shown"
    return Claim(
        "stability",
        "Batch normalisation stabilises training",
        f"Accuracy {_listed(_titled(change, ablation))}; the validation loss rises after "
        f"{rose['recipe'][0]} of {rose['recipe'][1]} epochs with it and {rose['no_batch_norm'][0]} of "
        f"{rose['no_batch_norm'][1]} without",
        f"learns faster; {words}" if faster else f"not faster; {words}",
        HOLDS if steadier else UNDECIDED,
    )


def choices(ablation: pd.DataFrame, tuned: pd.DataFrame) -> Claim:
    """Accuracy with another initialisation, schedule and optimiser; SGD at the best of its learning rates.

    tuned: the rows of the experiment `choices`, where SGD has other rates.
    """
    rows = pd.concat([ablation, tuned])
    change = effects.against(rows, "recipe", "accuracy")
    parts = {"default_init": "Kaiming", "constant_lr": "cosine", effects.best(change, "sgd"): "Adam"}
    change = change.loc[list(parts)]
    return Claim(
        "choices",
        "Kaiming initialisation, cosine schedule and Adam help",
        f"Accuracy {_listed(_titled(change, rows))} (the best of three rates)",
        *_judge(change.rename(parts), -1),
    )


def overfitting(ablation: pd.DataFrame) -> Claim:
    """The lead of training over validation accuracy without dropout and without weight decay.

    The lead grows with training accuracy in other recipes too. So each is held against what their line gives.
    """
    parts = {"no_dropout": "dropout", "no_weight_decay": "weight decay"}
    change = effects.against(ablation, "recipe", "gap").loc[list(parts)]
    others = ablation[~ablation["key"].isin([*parts, "no_augmentation"])]
    excess = pd.DataFrame(
        [effects.off_the_line(others, ablation[ablation["key"] == key], "training", "gap") for key in parts],
        index=list(parts),
    )
    return Claim(
        "overfitting",
        "Dropout and weight decay reduce over-fitting",
        f"Lead of training accuracy {_listed(_titled(change, ablation))}; beyond what recipes that learn as much have: "
        f"{_listed(_titled(excess, ablation))}",
        *_judge(excess.rename(parts), 1),
    )


def invariance(ablation: pd.DataFrame, rotations: pd.Series) -> Claim:
    """How much more accuracy a changed cue costs when training did not augment.

    Rotated images were interpolated, which costs by itself. rotations: ImprovedNet's accuracies, as of
    robustness.under_rotation.
    """
    cues = {"rotation": "pose_10", "shift": "place_4", "occlusion": "square_12"}
    costs = ablation.assign(**{name: ablation["nothing"] - ablation[cue] for name, cue in cues.items()})
    found = {name: effects.against(costs, "recipe", name).loc["no_augmentation"] for name in cues}
    change = pd.DataFrame(found).T
    half, turned = (
        100 * (rotations["as they are"] - rotations[title])
        for title in ("moved by half a pixel, bilinear", "rotated by 10 degrees, bilinear")
    )
    decided = change.copy()
    decided.loc["rotation", ["low", "high"]] = -np.inf, np.inf  # its probe interpolates
    return Claim(
        "invariance",
        "Stronger augmentation teaches invariance to pose, background, occlusion",
        f"Without augmentation accuracy falls further: {_listed(change)}. Interpolation costs too: "
        f"ImprovedNet loses {half:.1f} points by half a pixel and {turned:.1f} by 10 degrees; background not measured",
        *_judge(decided, 1),
    )


def checkpoint(trainings: Sequence[Results], constant: Sequence[np.ndarray], spread: float) -> Claim:
    """How much lower the validation loss is at the kept epoch than at the last one; by construction never higher.

    trainings: with our schedules; constant: validation losses at a constant learning rate; spread: the deviation over
    seeds of the loss at the kept epoch.
    """
    falling = [each.history["validation_loss"].to_numpy() for each in trainings]
    won, won_there = ([float(losses[-1] - losses.min()) for losses in each] for each in (falling, constant))
    earlier = sum(gain > 0 for gain in won)
    less = max(won) < spread
    return Claim(
        "checkpoint",
        "The checkpoint of the best validation loss is worth keeping",
        f"Of {len(won)} trainings {earlier} kept an earlier epoch than the last. That lowers the loss by at most "
        f"{max(won):.3f}, where seeds have a deviation of {spread:.3f}; at a constant learning rate by "
        f"{np.mean(won_there):.3f} on average, on the images that choose the epoch",
        "makes no difference where the learning rate falls; not decided where it is constant" if less else UNDECIDED,
        NOT if less else UNDECIDED,
    )


def _holds(condition: bool) -> tuple[str, str]:
    """Verdict and standing of a claim that holds or does not."""
    return (HOLDS, HOLDS) if condition else (NOT, NOT)


def _spread_of_loss(trainings: Sequence[Results]) -> float:
    """The smallest deviation, over networks, of the lowest validation losses of their seeds."""
    lowest = pd.DataFrame(
        {"network": each.record["network"], "loss": each.history["validation_loss"].min()} for each in trainings
    )
    return float(lowest.groupby("network")["loss"].std().min())


def _points(gain: dict) -> str:
    """A metrics.paired_difference in points, with its interval."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * gain[f"difference{end}"] for end in ("", "_low", "_high")))


def _shares(counts: np.ndarray) -> np.ndarray:
    """Counts (..., k) as shares of their sums; equal shares where there is nothing."""
    counts = counts + 1e-9
    return counts / counts.sum(-1, keepdims=True)


def _first_shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the largest of counts (n, k) in each row, and that of the next four in the rest."""
    ordered = -np.sort(-counts, axis=1)
    rest = ordered[:, 1:].sum(1)
    return ordered[:, 0] / np.maximum(1, ordered.sum(1)), ordered[:, 1:5].sum(1) / np.maximum(1, rest)


def _titled(change: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Differences by the titles of their trials instead of the keys."""
    return change.rename(effects.spread(rows)["title"])


def _listed(change: pd.DataFrame) -> str:
    """Differences with their intervals, in points."""
    return "; ".join(f"{title} {said}" for title, said in effects.in_points(change).items())


def _judge(change: pd.DataFrame, sign: int) -> tuple[str, str]:
    """What intervals say of a claim that all differences have this sign.

    An interval that covers zero decides nothing. The index names the parts in the verdict.
    """
    low, high = np.sort(sign * change[["low", "high"]].to_numpy(dtype=float)).T
    said = np.select([low > 0, high < 0], [HOLDS, "the contrary holds"], UNDECIDED)
    parts = pd.Series(change.index).groupby(said, sort=False).agg(" and ".join)
    several = "; ".join(f"{word} for {names}" for word, names in parts.items())
    verdict = said[0] if len(parts) == 1 else several
    if (low > 0).any():
        return verdict, HOLDS if (low > 0).all() else IN_PART
    return verdict, NOT if (high < 0).all() else UNDECIDED


# ---------------------------------------------------------------- beside the reference

ROWS = (  # key, name, factor, digits
    ("parameters", "parameters", 1, 0),
    ("mflop", "inference (MFLOP)", 1, 1),
    ("accuracy", "accuracy (%)", 100, 2),
    ("macro_f1", "macro-F1", 1, 3),
    ("nll", "loss (nats)", 1, 3),
    ("brier", "Brier score", 1, 3),
    ("ece", "ECE", 1, 3),
    ("aurc", "AURC (%)", 100, 2),
    ("coverage_at_1", "coverage at 1% (%)", 100, 1),
    ("wrong_above_90", "wrong above 0.9", 1, 0),
)


def costs(record: dict) -> dict[str, float]:
    """What a network costs, from the record of its run: parameters, and mflop, the 10^6 operations for an image.

    A multiplication and its addition are two operations.
    """
    of_image = 2 * models.macs(models.build(record["network"]))
    return {"parameters": record["parameters"], "mflop": of_image / 1e6}


def comparison_table(summaries: dict[str, dict]) -> pd.DataFrame:
    """Scores as text, a column for each network and each reference.

    [low, high] follows where a score of ours has an interval; "–" stands for what is not known.
    """
    known = {key for key, *_ in ROWS}
    cited = {name: {key: scores[key] for key in known & scores.keys()} for name, scores in REFERENCE.items()}
    columns = {name: [_cell(scores, *row) for row in ROWS] for name, scores in {**summaries, **cited}.items()}
    return pd.DataFrame(columns, index=pd.Index([row[1] for row in ROWS], name="test images"))


def _cell(scores: dict, key: str, name: str, factor: float, digits: int) -> str:
    if key not in scores:
        return "–"
    text = f"{factor * scores[key]:,.{digits}f}"
    if f"{key}_low" in scores:
        low, high = (factor * scores[f"{key}_{end}"] for end in ("low", "high"))
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text
