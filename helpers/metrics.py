"""Metrics of a classifier: pure functions of logits (n, K) and labels (n,).

Throughout, p = softmax(logits), the prediction is argmax p and the confidence is max p; n is the number of images and
K of classes. Every function takes NumPy arrays, changes nothing, and raises ValueError for logits or labels of the
wrong shape or range.
"""

import itertools

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from helpers.config import ANIMALS, CLASSES

BINS = 15  # of equal width, as in Guo et al. 2017


# ---------------------------------------------------------------- the two arrays, and what is read off them


def _check(logits, labels=None):
    """Logits as float64 (n, K) and labels as (n,) integers, or a ValueError that says what is wrong."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"Logits must have the shape (images, classes) with at least one image, not {logits.shape}.")
    if not np.isfinite(logits).all():
        raise ValueError("Logits must be finite, but some are NaN or infinite.")
    if labels is None:
        return logits
    labels = np.asarray(labels)
    if labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Labels must be {len(logits)} integers, one an image, not {labels.dtype} of shape {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"Labels must lie in 0..{logits.shape[1] - 1}, but they span {labels.min()}..{labels.max()}.")
    return logits, labels


def _outcome(logits, labels):
    """Confidence (n,) in (0, 1] and correctness (n,) bool of every prediction."""
    logits, labels = _check(logits, labels)
    return softmax(logits).max(1), logits.argmax(1) == labels


def softmax(logits):
    """Probabilities (n, K), each row summing to 1."""
    return scipy.special.softmax(_check(logits), axis=1)


# ---------------------------------------------------------------- how often it is right


def accuracy(logits, labels):
    """Share of images classified correctly, 0..1."""
    logits, labels = _check(logits, labels)
    return float((logits.argmax(1) == labels).mean())


def by_kind(logits, labels):
    """Share of images classified correctly, 0..1, on "animals" and on "vehicles"; NaN for a kind without images."""
    logits, labels = _check(logits, labels)
    right, animal = logits.argmax(1) == labels, np.isin(labels, ANIMALS)
    kinds = {"animals": animal, "vehicles": ~animal}
    return {kind: float(right[mask].mean()) if mask.any() else np.nan for kind, mask in kinds.items()}


def accuracy_among(logits, labels, classes):
    """Share of the images of these classes that is right, 0..1, if no other class may be the answer; NaN without any.

    classes: the numbers of at least one class.
    """
    right = right_among(logits, labels, classes)
    return float(right.mean()) if len(right) else np.nan


def right_among(logits, labels, classes):
    """Which images of these classes are right, booleans in their order, if no other class may be the answer."""
    logits, labels = _check(logits, labels)
    classes, shown = np.asarray(classes), np.isin(labels, classes)
    return classes[logits[shown][:, classes].argmax(1)] == labels[shown]


def pair_error_rates(logits, labels):
    """Share of wrong answers between every two classes, 0..1: a Series by pair, as accuracy_among sees them."""
    pairs = list(itertools.combinations(range(np.shape(logits)[1]), 2))
    return pd.Series([1 - accuracy_among(logits, labels, pair) for pair in pairs], pd.MultiIndex.from_tuples(pairs))


def confusion(logits, labels):
    """Counts (K, K) of int: rows are true classes, columns predicted ones.

    Counted here rather than by scikit-learn because the bootstrap calls it thousands of times.
    """
    logits, labels = _check(logits, labels)
    k = logits.shape[1]
    return np.bincount(labels.astype(np.int64) * k + logits.argmax(1), minlength=k * k).reshape(k, k)


def macro_f1(logits, labels):
    """Mean over the K classes of F1 = 2 TP / (true + predicted), 0..1; a class neither true nor predicted counts 0."""
    matrix = confusion(logits, labels)
    return float((2 * np.diag(matrix) / np.maximum(matrix.sum(0) + matrix.sum(1), 1)).mean())


def pair_errors(matrix):
    """The errors between every two of K classes, both directions added: (K (K - 1) / 2,) counts."""
    return (matrix + matrix.T)[np.triu_indices(len(matrix), k=1)]


def top_confusions(matrix, count=5):
    """The pairs of classes that are confused most, both directions added: [(class, class, errors)], most first."""
    both = np.triu(matrix + matrix.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:count]
    return [(int(i), int(j), int(both[i, j])) for i, j in zip(*np.unravel_index(order, both.shape), strict=True)]


def errors(matrix):
    """The number of errors in a confusion matrix (K, K)."""
    return int(matrix.sum() - np.trace(matrix))


def top_share(matrix, count=5):
    """The share of all errors, 0..1, in the `count` pairs of classes that are confused most; 0 without errors."""
    return sum(n for *_, n in top_confusions(matrix, count)) / max(1, errors(matrix))


def per_class(logits, labels, classes=CLASSES):
    """DataFrame indexed by class: precision, recall and f1 (0..1; 0 where undefined) and support (images)."""
    logits, labels = _check(logits, labels)
    if len(classes) != logits.shape[1]:
        raise ValueError(f"There are {len(classes)} class names for logits of {logits.shape[1]} classes.")
    scores = sklearn.metrics.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=range(len(classes)), zero_division=0
    )
    return pd.DataFrame(
        dict(zip(["precision", "recall", "f1", "support"], scores, strict=True)), pd.Index(classes, name="class")
    )


# ---------------------------------------------------------------- how good the probabilities are


def nll(logits, labels):
    """Mean negative log-likelihood -log p_y in nats, >= 0: the cross-entropy that training minimises.

    From the logarithm of softmax, not by sklearn.metrics.log_loss, which clips the probabilities.
    """
    logits, labels = _check(logits, labels)
    return float(-scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def brier(logits, labels):
    """Mean over images of sum_k (p_k - 1[y = k])^2, 0..2 (Brier 1950)."""
    logits, labels = _check(logits, labels)
    return float(((softmax(logits) - np.eye(logits.shape[1])[labels]) ** 2).sum(1).mean())


def _bin_of(probability, bins):
    """The equal-width bin (lo, hi] of each probability; a zero joins the first."""
    bin_of = np.maximum(np.searchsorted(np.linspace(0, 1, bins + 1), probability, side="left") - 1, 0)
    return np.minimum(bin_of, bins - 1)  # a softmax may round to just above 1


def _bin_sums(probability, outcome, bins):
    """Count, sum of probability and sum of outcome in each bin, all (bins,)."""
    bin_of = _bin_of(probability, bins)
    return tuple(np.bincount(bin_of, weights, bins) for weights in (None, probability, outcome))


def _gap(probability, outcome, bins):
    """ECE of probabilities (n,) against outcomes (n,) in {0, 1}: sum_b n_b/n |mean outcome - mean probability|."""
    _, probabilities, outcomes = _bin_sums(probability, outcome, bins)
    return float(np.abs(outcomes - probabilities).sum() / len(probability))


def reliability(logits, labels, bins=BINS):
    """DataFrame, one row a non-empty bin (lower, upper] of the confidence, with the columns lower, upper and count,
    the means confidence and accuracy within the bin, 0..1, and the 95 % Wilson interval low, high of the accuracy.
    """
    confidence, correct = _outcome(logits, labels)
    count, confidences, corrects = _bin_sums(confidence, correct, bins)
    edges = np.linspace(0, 1, bins + 1)
    table = pd.DataFrame({"lower": edges[:-1], "upper": edges[1:], "count": count})
    table = table[count > 0]
    intervals = [wilson(corrects[i], count[i]) for i in table.index]
    return table.assign(
        confidence=confidences[table.index] / table["count"],
        accuracy=corrects[table.index] / table["count"],
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
    ).reset_index(drop=True)


def ece(logits, labels, bins=BINS):
    """Expected calibration error, 0..1: sum_b n_b/n |accuracy_b - confidence_b| (Guo et al. 2017, eq. 3).

    Biased upwards: read it beside ece_if_calibrated.
    """
    confidence, correct = _outcome(logits, labels)
    return _gap(confidence, correct, bins)


def ece_if_calibrated(logits, bins=BINS, draws=1000, seed=0):
    """ECEs (draws,), 0..1, of as many sets of labels drawn from p itself: those of a perfectly calibrated model.

    Their mean is the floor of an ECE. An ECE above 95 % of them shows a model that is not calibrated.
    """
    confidence = softmax(logits).max(1)
    count, confidences, _ = _bin_sums(confidence, confidence, bins)
    which, rng = _bin_of(confidence, bins), np.random.default_rng(seed)
    # A label drawn from p equals the prediction with probability max p, and the ECE asks for no more than that.
    drawn = (which[rng.random(len(which)) < confidence] for _ in range(draws))
    gaps = [np.abs(np.bincount(right, minlength=bins) - confidences).sum() for right in drawn]
    return np.array(gaps) / count.sum()


def classwise_ece(logits, labels, bins=BINS):
    """Mean over classes k of the ECE of p_k against 1[y = k], 0..1 (Kull et al. 2019)."""
    logits, labels = _check(logits, labels)
    return float(np.mean([_gap(p, labels == k, bins) for k, p in enumerate(softmax(logits).T)]))


def fit_temperature(logits, labels):
    """The T in 0.05..20 that minimises nll(logits / T) (Guo et al. 2017, section 4.2). Validation images only."""
    logits, labels = _check(logits, labels)
    return float(
        scipy.optimize.minimize_scalar(
            lambda t: nll(logits / t, labels), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-7}
        ).x
    )


# ---------------------------------------------------------------- whether confidence ranks right above wrong


def _most_confident_first(confidence):
    return np.argsort(-confidence, kind="stable")


def risk_coverage(logits, labels):
    """Coverage i/n and risk (error rate among the i most confident images), two arrays (n,) in 0..1, i = 1..n."""
    confidence, correct = _outcome(logits, labels)
    answered = np.arange(1, len(correct) + 1)
    return answered / len(correct), np.cumsum(~correct[_most_confident_first(confidence)]) / answered


def aurc(logits, labels):
    """Area under the risk-coverage curve, 0..1, lower is better (Geifman and El-Yaniv 2017)."""
    return float(risk_coverage(logits, labels)[1].mean())


def e_aurc(logits, labels):
    """AURC in excess of the oracle that is least confident in its errors, 0..1 (Geifman et al. 2019)."""
    _, correct = _outcome(logits, labels)
    oracle = np.cumsum(np.sort(~correct)) / np.arange(1, len(correct) + 1)
    return aurc(logits, labels) - float(oracle.mean())


def augrc(logits, labels):
    """Area under the generalised risk-coverage curve, errors so far / n, 0..1 (Traub et al. 2024)."""
    coverage, risk = risk_coverage(logits, labels)
    return float((coverage * risk).mean())


def coverage_at_risk(logits, labels, risk):
    """Largest share of images, most confident first, whose error rate is at most `risk`; 0 if there is none."""
    coverage, risks = risk_coverage(logits, labels)
    return float(coverage[risks <= risk].max(initial=0))


def threshold_at_risk(logits, labels, risk):
    """The lowest confidence that coverage_at_risk still answers, 0..1; 1 where it answers nothing."""
    confidence, _ = _outcome(logits, labels)
    answered = round(coverage_at_risk(logits, labels, risk) * len(confidence))
    return float(np.sort(confidence)[-answered]) if answered else 1.0


def answered(logits, labels, threshold):
    """What comes of answering at a confidence of at least `threshold`: shares coverage and risk, with risk_low and
    risk_high, the 95 % Wilson interval of the risk; without any answer the risk counts as 0, between 0 and 1.
    """
    confidence, correct = _outcome(logits, labels)
    wrong = ~correct[confidence >= threshold]
    low, high = wilson(wrong.sum(), len(wrong)) if len(wrong) else (0.0, 1.0)
    return {
        "coverage": len(wrong) / len(correct),
        "risk": float(wrong.sum() / max(1, len(wrong))),
        "risk_low": low,
        "risk_high": high,
    }


def failure_auroc(logits, labels):
    """Chance that a correct prediction is more confident than a wrong one, 0..1; NaN unless there are both."""
    confidence, correct = _outcome(logits, labels)
    return float(sklearn.metrics.roc_auc_score(correct, confidence)) if 0 < correct.sum() < len(correct) else np.nan


def most_confident(logits, labels, correct, count):
    """Indices of the `count` (or fewer) most confident predictions that are right (or wrong), most confident first."""
    confidence, right = _outcome(logits, labels)
    order = _most_confident_first(confidence)
    return order[right[order] == correct][:count]


def surest_of_each_class(logits, labels):
    """Indices of the most confident right prediction of each class, most confident first."""
    order = most_confident(logits, labels, correct=True, count=len(labels))
    _, firsts = np.unique(np.asarray(labels)[order], return_index=True)
    return order[np.sort(firsts)]


def confident_mistakes(logits, labels, threshold):
    """Which predictions (n,) bool are wrong with a confidence above `threshold`."""
    confidence, correct = _outcome(logits, labels)
    return ~correct & (confidence > threshold)


def overconfident(logits, labels, threshold):
    """Number of wrong predictions whose confidence exceeds `threshold`."""
    return int(confident_mistakes(logits, labels, threshold).sum())


def expected_overconfident(logits, threshold):
    """Mean and deviation of `overconfident` if every confidence were right: of the images above the threshold each is
    wrong with probability 1 - confidence.
    """
    confidence = softmax(logits).max(1)
    sure = confidence[confidence > threshold]
    return float((1 - sure).sum()), float((sure * (1 - sure)).sum() ** 0.5)


# ---------------------------------------------------------------- deciding otherwise than by the most probable class


def least_cost(probabilities, costs):
    """The classes (n,) of least expected cost sum_y costs[k, y] p_y, for probabilities (n, K) and costs (K, K) >= 0 of
    answering k where y is true.
    """
    return (np.asarray(probabilities) @ np.asarray(costs).T).argmin(1)


def unsmoothed(logits, share):
    """Logits (n, K) of the probabilities (p - share / K) / (1 - share), at least 1e-12 and with the sum 1.

    This undoes label smoothing: a network that fits its smoothed targets (Szegedy et al. 2016) exactly then gives the
    frequencies of the classes.
    """
    p = softmax(logits)
    p = np.maximum(p - share / p.shape[1], 0)
    return np.log(np.maximum(p / p.sum(1, keepdims=True), 1e-12))


# ---------------------------------------------------------------- how sure we may be of a number


def wilson(correct, n):
    """95 % Wilson interval (low, high) of the proportion correct / n."""
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"A proportion needs 0 <= correct <= n and n >= 1, not correct = {correct} and n = {n}.")
    interval = scipy.stats.binomtest(int(correct), int(n)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(correct_a, correct_b):
    """Exact McNemar test on two models' correctness (n,) bool: dict of only_a, only_b (images) and p_value."""
    correct_a, correct_b = np.asarray(correct_a), np.asarray(correct_b)
    if correct_a.dtype != bool or correct_b.dtype != bool or correct_a.ndim != 1 or correct_a.shape != correct_b.shape:
        raise ValueError("McNemar's test needs two boolean arrays of the same length, one value an image.")
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    p_value = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": float(p_value)}


def paired_difference(correct_a, correct_b):
    """Accuracy of b minus that of a on the same images, from their correctness (n,) bool: dict of difference,
    difference_low and difference_high, the 95 % interval of a normal approximation from the discordant images.
    """
    counts, n = mcnemar(correct_a, correct_b), len(correct_a)
    only_a, only_b = counts["only_a"], counts["only_b"]
    difference = (only_b - only_a) / n
    error = scipy.stats.norm.ppf(0.975) * np.sqrt((only_a + only_b) / n - difference**2) / np.sqrt(n)
    return {
        "difference": difference,
        "difference_low": float(difference - error),
        "difference_high": float(difference + error),
    }


def resampled_means(columns, draws=1000, seed=0):
    """Means (draws, k) of columns (n, k) over rows sampled with replacement (Efron 1979), all columns by the same."""
    columns, rng = np.asarray(columns, dtype=float), np.random.default_rng(seed)
    n = len(columns)
    return np.array([np.bincount(rng.integers(0, n, n), minlength=n) @ columns for _ in range(draws)]) / n


def paired_bootstrap(statistic, labels, *logits, draws=1000, seed=0):
    """Draws (models, draws) of statistic(logits, labels) over images sampled with replacement.

    Column d uses the same images for every model, so that differences of rows are paired. 95 % interval of a
    difference: np.quantile(b[1] - b[0], [.025, .975]).
    """
    checked = [_check(z, labels)[0] for z in logits]
    labels, n, rng = np.asarray(labels), len(labels), np.random.default_rng(seed)
    samples = (rng.integers(0, n, n) for _ in range(draws))
    return np.array([[statistic(z[i], labels[i]) for z in checked] for i in samples]).T


def intervals(logits, labels, draws=500):
    """Bootstrap 95 % intervals of macro-F1, loss, Brier score and AURC over the choice of images: KEY_low, KEY_high."""
    statistics = {"macro_f1": macro_f1, "nll": nll, "brier": brier, "aurc": aurc}
    found = {key: paired_bootstrap(of, labels, logits, draws=draws)[0] for key, of in statistics.items()}
    ends = {"low": 0.025, "high": 0.975}
    return {f"{key}_{end}": float(np.quantile(drawn, q)) for key, drawn in found.items() for end, q in ends.items()}


def summary(logits, labels):
    """The headline numbers of one model on one split, ready for JSON; wrong_above_90 and _99 are counts of images."""
    confidence, correct = _outcome(logits, labels)
    low, high = wilson(correct.sum(), len(correct))
    if_calibrated = ece_if_calibrated(logits)
    expected, deviation = expected_overconfident(logits, 0.9)
    return {
        "accuracy": accuracy(logits, labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": macro_f1(logits, labels),
        "nll": nll(logits, labels),
        "brier": brier(logits, labels),
        "ece": ece(logits, labels),
        "ece_floor": float(if_calibrated.mean()),
        "ece_limit": float(np.quantile(if_calibrated, 0.95)),
        "classwise_ece": classwise_ece(logits, labels),
        "mean_confidence": float(confidence.mean()),
        "wrong_above_90": overconfident(logits, labels, 0.9),
        "expected_above_90": expected,
        "expected_above_90_std": deviation,
        "wrong_above_99": overconfident(logits, labels, 0.99),
        "aurc": aurc(logits, labels),
        "coverage_at_1": coverage_at_risk(logits, labels, 0.01),
    }
