"""The scores of the report written a second time, with scikit-learn, SciPy and pandas.

tests/test_independent.py compares them with helpers.metrics, with cleanlab and with the published
numbers. p: probabilities (n, 10); labels: (n,) integers.
"""

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from helpers.config import ANIMALS, CLASSES, PAIR


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (n, 10) in double precision."""
    return scipy.special.softmax(logits.astype(np.float64), axis=1)


# ---- How often a network is right


def f1_by_class(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Return the F1 score of every class by its name."""
    scores = sklearn.metrics.f1_score(labels, logits.argmax(1), labels=range(10), average=None)
    return dict(zip(CLASSES, scores, strict=True))


def by_kind(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Return the accuracies on animals and on vehicles."""
    right, animal = logits.argmax(1) == labels, np.isin(labels, ANIMALS)
    return {"animals": right[animal].mean(), "vehicles": right[~animal].mean()}


def top_pairs_share(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of all errors in the five pairs of classes that are confused most."""
    pairs = pd.DataFrame(np.sort(np.column_stack([labels, logits.argmax(1)]))).value_counts()
    errors = pairs[[a != b for a, b in pairs.index]]
    return errors.nlargest(5).sum() / errors.sum()


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> dict:
    """Return how many images only one network gets right, and the exact two-sided p-value."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    both = only_a + only_b
    tail = scipy.stats.binom.cdf(min(only_a, only_b), both, 0.5)
    return {"only_a": only_a, "only_b": only_b, "p_value": min(1.0, 2 * tail)}


def paired_difference(right_a: np.ndarray, right_b: np.ndarray) -> dict:
    """Return the lead of b, with the 95 % interval that a t-test of the differences gives."""
    interval = scipy.stats.ttest_1samp(right_b.astype(float) - right_a, 0).confidence_interval()
    difference = right_b.mean() - right_a.mean()
    return {"difference": difference, "difference_low": interval.low, "difference_high": interval.high}


# ---- How good its probabilities are


def ece(probability: np.ndarray, outcome: np.ndarray) -> float:
    """Return the expected calibration error over 15 bins."""
    bins = pd.cut(probability, np.linspace(0, 1, 16), include_lowest=True)
    frame = pd.DataFrame({"p": probability, "y": outcome.astype(float)})
    table = frame.groupby(bins, observed=True)
    gaps = (table["p"].mean() - table["y"].mean()).abs()
    return float((gaps * table.size()).sum() / len(outcome))


def ece_if_calibrated(confidence: np.ndarray) -> np.ndarray:
    """Return the ECEs of 1,000 sets of outcomes drawn from the confidences.

    The generator is that of metrics.ece_if_calibrated, so that both see the same outcomes.
    """
    bins = pd.get_dummies(pd.cut(confidence, np.linspace(0, 1, 16), include_lowest=True)).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    gaps = [np.abs(((rng.random(len(confidence)) < confidence) - confidence) @ bins).sum() for _ in range(1000)]
    return np.array(gaps) / len(confidence)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Return the numbers of metrics.summary."""
    p, classes = softmax(logits), range(10)
    predicted, confidence = p.argmax(1), p.max(1)
    right = predicted == labels
    interval = scipy.stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    f1 = sklearn.metrics.f1_score(labels, predicted, average="macro", labels=classes, zero_division=0)
    brier = sklearn.metrics.brier_score_loss(labels, p, labels=classes, scale_by_half=False)
    order = np.argsort(-confidence, kind="stable")
    drawn = ece_if_calibrated(confidence)
    doubt = (1 - confidence)[confidence > 0.9]
    return {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": f1,
        "nll": sklearn.metrics.log_loss(labels, p, labels=classes),
        "brier": brier,
        "ece": ece(confidence, right),
        "ece_floor": drawn.mean(),
        "ece_limit": np.quantile(drawn, 0.95),
        "classwise_ece": np.mean([ece(p[:, k], labels == k) for k in classes]),
        "mean_confidence": confidence.mean(),
        "wrong_above_90": int((~right & (confidence > 0.9)).sum()),
        "expected_above_90": doubt.sum(),
        "expected_above_90_std": (doubt - doubt**2).sum() ** 0.5,
        "wrong_above_99": int((~right & (confidence > 0.99)).sum()),
        "aurc": np.mean(np.cumsum(~right[order]) / np.arange(1, len(right) + 1)),
        "coverage_at_1": coverage_at_risk(logits, labels, 0.01),
    }


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the divisor of least cross-entropy: its derivative by the inverse divisor is zero."""
    z = logits.astype(np.float64)

    def slope(inverse):
        p = scipy.special.softmax(inverse * z, axis=1)
        return ((p * z).sum(1) - z[np.arange(len(z)), labels]).mean()

    return 1 / scipy.optimize.brentq(slope, 0.05, 20)


def coverage_at_risk(logits: np.ndarray, labels: np.ndarray, risk: float) -> float:
    """Return the largest share of images, surest first, of which at most `risk` are wrong."""
    p = softmax(logits)
    order = np.argsort(-p.max(1), kind="stable")
    errors = np.cumsum(p.argmax(1)[order] != labels[order])
    answered = np.arange(1, len(labels) + 1)
    return answered[errors <= risk * answered].max(initial=0) / len(labels)


def bootstrap(logits: dict, labels: np.ndarray, draws: int = 200) -> dict:
    """Return 95 % intervals of macro-F1, loss, Brier score and AURC by network.

    Each image weighs as often as it is drawn.
    """
    n, result = len(labels), {}
    weights = np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=draws)
    truth = np.eye(10)[labels]
    for name, z in logits.items():
        p = softmax(z)
        answer = np.eye(10)[p.argmax(1)]
        f1 = 2 * weights @ (truth * answer) / (weights @ (truth + answer))
        surest = np.argsort(-p.max(1), kind="stable")
        answered = weights[:, surest].cumsum(1)
        wrong = (weights[:, surest] * (p.argmax(1) != labels)[surest]).cumsum(1)
        drawn = {
            "aurc": (weights[:, surest] * wrong / np.maximum(1, answered)).sum(1) / n,
            "macro_f1": f1.mean(1),
            "nll": weights @ -np.log(p[np.arange(n), labels]) / n,
            "brier": weights @ ((p - truth) ** 2).sum(1) / n,
        }
        result[name] = {
            f"{key}_{end}": np.quantile(values, q)
            for key, values in drawn.items()
            for end, q in (("low", 0.025), ("high", 0.975))
        }
    return result


# ---- Confident mistakes, and labels that may be wrong


def rescued(p: np.ndarray, other: np.ndarray, labels: np.ndarray) -> int:
    """Return how many of a network's eight surest mistakes another one (its answers) gets right."""
    order = np.argsort(-p.max(1), kind="stable")
    worst = order[p.argmax(1)[order] != labels[order]][:8]
    return int((other[worst] == labels[worst]).sum())


def label_audit(p: dict, labels: np.ndarray) -> dict:
    """Count the labels that confident learning suspects, and the confident mistakes among them.

    p: probabilities by network.
    """
    suspected = {}
    for name, each in p.items():
        usual = np.array([each[labels == k, k].mean() for k in range(10)])  # of images labelled k
        others = np.arange(10) != labels[:, None]
        suspected[name] = ((each >= usual) & others).any(1) & (each.argmax(1) != labels)
    improved = p["ImprovedNet"]
    sure = (improved.argmax(1) != labels) & (improved.max(1) > 0.9)
    return {
        "suspects": int(suspected["ImprovedNet"].sum()),
        "by_both": int(np.logical_and(*suspected.values()).sum()),
        "wrong_above_90": int(sure.sum()),
        "on_suspects": int((sure & suspected["ImprovedNet"]).sum()),
    }


# ---- The sections of results.json that logits alone decide


def sections(logits: dict, labels: dict) -> dict:
    """Return these sections, by notebook. logits: by part and network; labels: by part."""
    z, y = logits["test"], labels["test"]
    tested = {name: scores(each, y) for name, each in z.items()}
    intervals = bootstrap(z, y)
    tested_with = {name: tested[name] | intervals[name] for name in z}
    f1 = {name: f1_by_class(z[name], y) for name in PAIR}
    p = {name: softmax(z[name]) for name in PAIR}
    answers = {name: z[name].argmax(1) for name in PAIR}
    validation = {
        name: scores(logits["validation"][name], labels["validation"])
        | by_kind(logits["validation"][name], labels["validation"])
        for name in PAIR
    }
    divisors = {name: temperature(logits["validation"][name], labels["validation"]) for name in z}
    scaled = scores(z["FastNet"] / divisors["FastNet"], y)
    rescaled = {"temperature": divisors["FastNet"], "nll": scaled["nll"], "ece": scaled["ece"]}
    return {
        "02_baseline": {"validation": {"BaselineNet": validation["BaselineNet"]}},
        "03_improved": {
            "validation": validation,
            "test": {"FastNet": tested_with["FastNet"]},
            "rescaled": {"FastNet": rescaled},
        },
        "04_evaluation": {
            "test": {name: tested_with[name] for name in PAIR},
            "f1": f1,
            "comparison": {
                **mcnemar(*(answers[name] == y for name in PAIR)),
                **paired_difference(*(answers[name] == y for name in PAIR)),
                "top5_share": {name: top_pairs_share(z[name], y) for name in PAIR},
                "f1_range": {name: np.ptp(list(f1[name].values())) for name in PAIR},
                "f1_deviation": {name: np.std(list(f1[name].values())) for name in PAIR},
            },
        },
        "05_confidence_analysis": {
            "confidence": {name: confidence(z[name], divisors[name], y, tested[name]) for name in PAIR},
            "deployed": {name: deployed(logits["validation"][name], labels["validation"], z[name], y) for name in PAIR},
            "rescued": {a: rescued(p[a], answers[b], y) for a, b in (PAIR, PAIR[::-1])},
            "audit": label_audit(p, y),
        },
    }


def deployed(held_out: np.ndarray, known: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> dict:
    """Return what a threshold gives that answers the most images of `held_out` with at most 1 % of errors."""
    sure = softmax(held_out).max(1)
    at_least = [(threshold, sure >= threshold) for threshold in sure]
    wrong = held_out.argmax(1) != known
    threshold = min((t for t, answered in at_least if wrong[answered].mean() <= 0.01), default=1.0)
    mistaken = (logits.argmax(1) != labels)[softmax(logits).max(1) >= threshold]
    interval = scipy.stats.binomtest(int(mistaken.sum()), len(mistaken)).proportion_ci(method="wilson")
    return {
        "threshold": threshold,
        "coverage": len(mistaken) / len(labels),
        "risk": mistaken.mean(),
        "risk_low": interval.low,
        "risk_high": interval.high,
    }


def confidence(logits: np.ndarray, divisor: float, labels: np.ndarray, before: dict) -> dict:
    """Return what notebook 05 records of one network. before: the scores of these logits."""
    keys = ("ece", "ece_floor", "ece_limit", "classwise_ece", "nll", "brier")
    keys += ("wrong_above_90", "expected_above_90", "wrong_above_99")
    after = scores(logits / divisor, labels)
    return {
        "temperature": divisor,
        "aurc": before["aurc"],
        "before": {key: before[key] for key in keys},
        "after": {key: after[key] for key in keys},
        "coverage_at_1": coverage_at_risk(logits, labels, 0.01),
    }
