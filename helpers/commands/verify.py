"""`make verify`: every value of results.json, computed again and compared.

The weights classify the images again. Scores come from scikit-learn, SciPy and pandas by other code than the notebooks
use, analyses from the same helpers, experiments from their stored logits and histories. So agreement means that the
published numbers are those of the stored runs and, for scores, that two implementations concur. A value that this file
does not compute counts as a disagreement. `make report` verifies what it publishes, too, but for the REPEATED: these
the notebooks have computed with the same helpers in the same minutes.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from helpers import config, data, inference, runs
from helpers.analysis import explain, mistakes, robustness
from helpers.commands import experiments
from helpers.errors import Problem, exit_cleanly
from helpers.config import CLASSES, NETWORKS

TOLERANCE = 2e-4  # relative, or absolute below 1: float32 on another processor, and six recorded digits
COUNT_TOLERANCE = 3  # images whose confidence lies on a threshold, or whose two best classes tie
SMALL_TOLERANCE = 1.5e-3  # shares of 2,000 images, and of 5,000 disturbed ones: three and seven of them
REPEATED = ("probe", "traps", "cues", "robustness", "gradcam")  # four fifths of the time
BOOTSTRAP_TOLERANCE = 0.2  # of the width of an interval: other draws of the same bootstrap


class Disagreement(Problem):
    """A published number is not what the stored runs give."""


def scores(logits: np.ndarray, labels: np.ndarray) -> dict:
    """The numbers of metrics.summary, without the bootstrap intervals."""
    p = softmax(logits)
    predicted, confidence = p.argmax(1), p.max(1)
    right = predicted == labels
    interval = scipy.stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    order = np.argsort(-confidence, kind="stable")
    classes = range(p.shape[1])
    return {
        **headline(p, labels),
        "accuracy_low": interval.low, "accuracy_high": interval.high,
        "brier": sklearn.metrics.brier_score_loss(labels, p, labels=classes, scale_by_half=False),
        "ece_floor": _floor(confidence),
        "classwise_ece": np.mean([_ece(p[:, k], labels == k) for k in classes]),
        "mean_confidence": confidence.mean(),
        "wrong_above_90": int((~right & (confidence > 0.9)).sum()),
        "wrong_above_99": int((~right & (confidence > 0.99)).sum()),
        "aurc": np.mean(np.cumsum(~right[order]) / np.arange(1, len(right) + 1)),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, 10) in double precision."""
    return scipy.special.softmax(logits.astype(np.float64), axis=1)


def headline(p: np.ndarray, labels: np.ndarray) -> dict:
    """The scores that are told of every seed."""
    predicted, classes = p.argmax(1), range(p.shape[1])
    return {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro", labels=classes, zero_division=0),
        "nll": sklearn.metrics.log_loss(labels, p, labels=classes),
        "ece": _ece(p.max(1), predicted == labels),
    }


def _ece(probability, outcome) -> float:
    bins = pd.cut(probability, np.linspace(0, 1, 16), include_lowest=True)
    table = pd.DataFrame({"p": probability, "y": outcome.astype(float)}).groupby(bins, observed=True)
    return float(((table["p"].mean() - table["y"].mean()).abs() * table.size()).sum() / len(outcome))


def _floor(confidence) -> float:
    """The ECE of 100 sets of outcomes drawn from the confidences, as the notebooks draw them."""
    rng = np.random.default_rng(0)
    return float(np.mean([_ece(confidence, rng.random(len(confidence)) < confidence) for _ in range(100)]))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits of least cross-entropy, where the derivative by its inverse is zero."""
    z = logits.astype(np.float64)

    def slope(inverse):
        p = scipy.special.softmax(inverse * z, axis=1)
        return ((p * z).sum(1) - z[np.arange(len(z)), labels]).mean()

    return 1 / scipy.optimize.brentq(slope, 0.05, 20)


def bootstrap(logits: dict, labels: np.ndarray, draws: int = 200) -> dict:
    """95 % intervals of macro-F1, loss and Brier score by network, each image weighted by how often it is drawn."""
    n, result = len(labels), {}
    weights = np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=draws)
    for name, z in logits.items():
        p = softmax(z)
        each = {"nll": -np.log(p[np.arange(n), labels]), "brier": ((p - np.eye(10)[labels]) ** 2).sum(1)}
        drawn = {key: weights @ values / n for key, values in each.items()}
        truth, answer = np.eye(10)[labels], np.eye(10)[p.argmax(1)]
        drawn["macro_f1"] = (2 * weights @ (truth * answer) / (weights @ (truth + answer))).mean(1)
        result[name] = {f"{key}_{end}": np.quantile(values, q) for key, values in drawn.items()
                        for end, q in (("low", 0.025), ("high", 0.975))}
    return result


def recompute(everything: bool = True) -> dict:
    """All that results.json holds, or all but the REPEATED, from reports/runs, reports/experiments and CIFAR-10."""
    networks = {name: runs.published(name) for name in NETWORKS}
    (training, validation), test = data.train_validation("full"), data.test("full")
    shown = {"training": data.first(training, 10_000), "validation": validation, "test": test}
    z = {part: {name: inference.infer(run.model, images).logits for name, run in networks.items()}
         for part, (images, _) in shown.items()}
    divisor = {name: temperature(z["validation"][name], validation.labels) for name in networks}
    intervals = bootstrap(z["test"], test.labels)
    tested = {name: scores(z["test"][name], test.labels) for name in networks}
    right = {name: z["test"][name].argmax(1) == test.labels for name in networks}
    only = [int((right[a] & ~right[b]).sum()) for a, b in (NETWORKS, NETWORKS[::-1])]
    f1 = {name: dict(zip(CLASSES, sklearn.metrics.f1_score(test.labels, z["test"][name].argmax(1), average=None),
                         strict=True)) for name in networks}
    by_class = {name: np.array(list(values.values())) for name, values in f1.items()}
    return {
        "data": {"training": len(training.labels), "validation": len(validation.labels), "test": len(test.labels)},
        "runs": {name: runs.published_facts(run) for name, run in networks.items()},
        "validation": {name: scores(z["validation"][name], validation.labels)
                       | by_kind(z["validation"][name].argmax(1) == validation.labels, validation.labels)
                       | {"training": np.mean(z["training"][name].argmax(1) == shown["training"].labels)}
                       for name in networks},
        "test": {name: tested[name] | intervals[name] for name in networks},
        "f1": f1,
        "comparison": {
            "only_a": only[0], "only_b": only[1], "p_value": scipy.stats.binomtest(only[0], sum(only)).pvalue,
            "top5_share": {name: top_pairs_share(z["test"][name], test.labels) for name in networks},
            "f1_range": {name: np.ptp(values) for name, values in by_class.items()},
            "f1_deviation": {name: values.std() for name, values in by_class.items()},
        },
        "confidence": {name: confidence(z["test"][name], divisor[name], test.labels, tested[name])
                       for name in networks},
        "search": by_label("search"), "ablation": by_label("ablation"), "invariance": without_cues("ablation"),
        "seeds": over_seeds(tested["BaselineNet"], test.labels),
        **mistakes(z["test"], test.labels),
        **(repeated(networks, z["test"], shown) if everything else {}),
    }


def by_kind(right: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy on animals and on vehicles."""
    animal = np.isin(labels, config.ANIMALS)
    return {"animals": right[animal].mean(), "vehicles": right[~animal].mean()}


def top_pairs_share(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of all errors in the five pairs of classes that are confused most, in both directions."""
    pairs = pd.DataFrame(np.sort(np.column_stack([labels, logits.argmax(1)]))).value_counts()
    errors = pairs[[a != b for a, b in pairs.index]]
    return errors.nlargest(5).sum() / errors.sum()


def confidence(logits: np.ndarray, divisor: float, labels: np.ndarray, before: dict) -> dict:
    """What section 5 publishes of one network; before: the scores of its logits as they are."""
    keys = ("ece", "ece_floor", "classwise_ece", "nll", "brier", "wrong_above_90", "wrong_above_99")
    after = scores(logits / divisor, labels)
    p = softmax(logits)
    order = np.argsort(-p.max(1), kind="stable")
    errors = np.cumsum(p.argmax(1)[order] != labels[order])
    answered = np.arange(1, len(labels) + 1)
    return {
        "temperature": divisor, "aurc": before["aurc"],
        "before": {key: before[key] for key in keys}, "after": {key: after[key] for key in keys},
        "coverage_at_1": answered[errors <= 0.01 * answered].max(initial=0) / len(labels),
    }


def mistakes(z: dict, labels: np.ndarray) -> dict:
    """What section 5 publishes of confident mistakes and of labels that may be wrong; z: logits by network."""
    answers = {name: logits.argmax(1) for name, logits in z.items()}
    p = {name: softmax(logits) for name, logits in z.items()}
    return {
        "rescued": {a: rescued(p[a], answers[b], labels) for a, b in (NETWORKS, NETWORKS[::-1])},
        "audit": label_audit(p, labels),
    }


def repeated(networks: dict, z: dict, shown: dict) -> dict:
    """The REPEATED: what sections 3 to 5 measure with the helpers named here, once more."""
    models = {name: run.model for name, run in networks.items()}
    validation, test = shown["validation"], shown["test"]
    some = data.first(test, 2_000)
    corrupted = robustness.under_corruption(models, some).query("severity > 0")
    cues = robustness.without_cues(models, some)
    run = networks["ImprovedNet"]
    trapped = mistakes.measure_mistakes(run.model, run.history, validation, config.TrainConfig(**run.record["config"]))
    random, other = explain.sanity_check(run.model, test.images[:200], z["ImprovedNet"][:200].argmax(1))
    return {
        "probe": {name: explain.linear_probe(model, shown["training"], validation) for name, model in models.items()},
        "traps": {row.mistake: {"correctly": row.correctly, "mistakenly": row.mistakenly}
                  for row in trapped.itertuples()},
        "cues": {name: dict(zip(rows["changed"], rows["accuracy"], strict=True))
                 for name, rows in cues.groupby("network")},
        "robustness": {name: rows.groupby("corruption")[["accuracy", "ece"]].mean().T.to_dict()
                       for name, rows in corrupted.groupby("network")},
        "gradcam": {"random_weights": np.mean([np.nanmedian(each) for each in random]),
                    "other_image": np.nanmedian(other)},
    }


def rescued(p: np.ndarray, other: np.ndarray, labels: np.ndarray) -> int:
    """How many of the eight surest mistakes of a network another one gets right."""
    order = np.argsort(-p.max(1), kind="stable")
    worst = order[p.argmax(1)[order] != labels[order]][:8]
    return int((other[worst] == labels[worst]).sum())


def label_audit(p: dict, labels: np.ndarray) -> dict:
    """Confident learning written out: which labels are suspected, and how many confident mistakes are among them."""
    suspected = {}
    for name, each in p.items():
        usual = np.array([each[labels == k, k].mean() for k in range(10)])  # of images with that label
        others = np.arange(10) != labels[:, None]
        suspected[name] = ((each >= usual) & others).any(1) & (each.argmax(1) != labels)
    improved = p["ImprovedNet"]
    sure = (improved.argmax(1) != labels) & (improved.max(1) > 0.9)
    return {
        "suspects": int(suspected["ImprovedNet"].sum()), "by_both": int(np.logical_and(*suspected.values()).sum()),
        "wrong_above_90": int(sure.sum()), "on_suspects": int((sure & suspected["ImprovedNet"]).sum()),
    }


def by_label(name: str) -> dict:
    """Of each kind of trial, mean and deviation over seeds of the scores at the kept checkpoints."""
    rows = []
    for trial, run in experiments.stored(name):
        kept = run.history.sort_values("validation_loss", kind="stable").iloc[0]
        accuracy, training = kept["validation_accuracy"], run.record["training_accuracy"]
        rows.append((trial.label, accuracy, kept["validation_loss"], training - accuracy))
    frame = pd.DataFrame(rows, columns=["label", "accuracy", "loss", "gap"])
    groups = frame.groupby("label", sort=False)
    mean, std = groups.mean(), groups.std().add_suffix("_std")
    return {label: {"n": len(group), **mean.loc[label].to_dict(),
                    **({} if len(group) == 1 else std.loc[label].to_dict())} for label, group in groups}


def without_cues(name: str) -> dict:
    """Mean accuracies over seeds, as the runs recorded them, under the recipes of augmentation and some changes."""
    recorded = [(trial.label, run.record["cues"]) for trial, run in experiments.stored(name)]
    return {recipe: {cue: np.mean([values[cue] for label, values in recorded if label == recipe])
                     for cue in experiments.CUES} for recipe in experiments.RECIPES}


def over_seeds(first: dict, labels: np.ndarray) -> dict:
    """Mean and deviation of test scores over seeds, from the stored logits."""
    each = {"BaselineNet": [first], "ImprovedNet": []}
    epochs = {}
    for trial, run in experiments.stored("seeds"):
        each[trial.network].append(headline(softmax(run.logits["test"]), labels))
        epochs[trial.network] = trial.config.epochs
    values = {name: pd.DataFrame(rows)[["accuracy", "macro_f1", "nll", "ece"]] for name, rows in each.items()}
    return {name: {"n": len(frame), "epochs": epochs[name], **frame.mean(), **frame.std().add_suffix("_std")}
            for name, frame in values.items()}


def compare(published: dict, computed: dict) -> list[str]:
    """One line for each number that differs beyond its tolerance, is missing, or was not computed."""
    published, computed = flat(published), flat(computed)
    problems = [f"{key}: published, but not computed" for key in published.keys() - computed.keys()]
    problems += [f"{key}: computed, but not published" for key in computed.keys() - published.keys()]
    for key in published.keys() & computed.keys():
        ours, theirs = computed[key], published[key]
        if not agree(key, ours, theirs, published):
            problems.append(f"{key}: published {theirs}, computed {ours:.6g}" if isinstance(ours, float) else
                            f"{key}: published {theirs}, computed {ours}")
    return sorted(problems)


def agree(key: str, ours, theirs, published: dict) -> bool:
    """Whether a computed and a published value are the same within the tolerance of their kind."""
    numbers = all(type(value) in (int, float) for value in (ours, theirs))
    if not numbers or key.startswith(("runs.", "data.")):
        return ours == theirs or (numbers and isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=1e-5))
    if isinstance(ours, int):
        exact = key.endswith(".n")
        return abs(ours - theirs) <= (0 if exact else 1 if key.startswith("rescued.") else COUNT_TOLERANCE)
    if key.endswith("p_value"):
        smallest = math.ulp(0.0)  # where a smaller one has become 0
        return abs(math.log10(max(ours, smallest)) - math.log10(max(theirs, smallest))) < 3  # as three images move it
    stem, _, end = key.rpartition("_")
    if end in ("low", "high") and not stem.endswith("accuracy"):
        ends = [published.get(f"{stem}_{end}", math.nan) for end in ("low", "high")]
        return abs(ours - theirs) <= BOOTSTRAP_TOLERANCE * (ends[1] - ends[0])
    small = key.startswith(("cues.", "robustness.", "traps.", "probe."))
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=SMALL_TOLERANCE if small else TOLERANCE)


def flat(values: dict, prefix: str = "") -> dict:
    """Nested dicts as one, keys joined by dots, NumPy scalars as Python's."""
    result = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value.item() if isinstance(value, np.generic) else value
    return result


def check(published: dict, everything: bool = True) -> int:
    """Recompute all numbers, or all but the REPEATED; returns how many agree.

    Raises Disagreement naming the first few that do not.
    """
    if not everything:
        published = {key: values for key, values in published.items() if key not in REPEATED}
    problems = compare(published, recompute(everything))
    if problems:
        more = f"\n... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise Disagreement(f"{len(problems)} published values do not verify:\n" + "\n".join(problems[:10]) + more)
    return len(flat(published))


def read(path: Path) -> dict:
    """The values of a results.json. Raises Problem if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no object")
    except ValueError:
        raise Problem(f"{path} is damaged: restore it from git, or run `make report`.") from None
    return values


def main() -> None:
    """Verify the committed results.json."""
    path = config.ROOT / "reports" / "results.json"
    count = check(read(path))
    print(f"All {count} values of {path.name} verify.")


if __name__ == "__main__":
    with exit_cleanly():
        main()
