"""Answers of least expected cost, tried beside the most probable class, and a specialist for two classes."""

import numpy as np
import pandas as pd

from helpers import metrics
from helpers.config import ANIMALS, CLASSES

HEAVY = 10.0  # what an animal taken for a vehicle costs, where any other mistake costs 1; a choice made for the trial
ASKING = 0.5  # what asking a person costs, another choice made for the trial
ASK = len(CLASSES)  # the answer that asks
ANIMAL = np.isin(np.arange(len(CLASSES)), ANIMALS)


def costs() -> np.ndarray:
    """Costs (10, 10) of answering the class of the row where that of the column is true."""
    matrix = 1 - np.eye(len(CLASSES))
    matrix[np.ix_(~ANIMAL, ANIMAL)] = HEAVY
    return matrix


def decide(logits: np.ndarray, shares: np.ndarray, smoothing: float) -> pd.DataFrame:
    """Answers (n,) by several ways, a column each, named by the steps that it takes; ASK where a person is asked.

    (1) The most probable class of logits (n, 10); (2) label smoothing undone; (3) the shares (10,) of the classes in
    training divided out; (4) the answer of least expected cost; (5) ASK where this cost is above ASKING.
    """
    versions = {
        "1": logits,
        "1, 3": for_equal_classes(logits, shares),
        "1, 2, 3": for_equal_classes(metrics.unsmoothed(logits, smoothing), shares),
    }
    prices = costs()
    found = {steps: z.argmax(1) for steps, z in versions.items()}
    for steps, z in versions.items():
        found[f"{steps}, 4"] = metrics.least_cost(metrics.softmax(z), prices)
    expected = (metrics.softmax(versions["1, 2, 3"]) @ prices.T).min(1)
    found["1, 2, 3, 4, 5"] = np.where(expected > ASKING, ASK, found["1, 2, 3, 4"])
    return pd.DataFrame(found)


def compare(
    trainings: list[dict[str, np.ndarray]], labels: dict[str, np.ndarray], shares: np.ndarray, smoothing: float
) -> pd.DataFrame:
    """What the ways of `decide` cost, as means over trainings, a row a way.

    trainings: the logits (n, 10) of each by part, "validation" and "test"; labels: (n,) of both. Columns: the mean cost
    of an image by part; change, on test against the first way, with the ends low and high of its 95 % interval
    (bootstrap over images); asked, the share of the test images; accuracy, on the others.
    """
    prices = np.vstack([costs(), np.full(len(CLASSES), ASKING)])
    paid, answers = {}, []
    for part, true in labels.items():
        answers = [decide(each[part], shares, smoothing) for each in trainings]
        paid[part] = sum(pd.DataFrame(prices[a, true[:, None]], columns=a.columns) for a in answers) / len(answers)
    rows = pd.DataFrame({part: cost.mean() for part, cost in paid.items()})
    change = paid["test"].sub(paid["test"]["1"], axis=0)
    rows["change"] = change.mean()
    rows["low"], rows["high"] = np.quantile(metrics.resampled_means(change), [0.025, 0.975], axis=0)
    rows["asked"] = sum((a == ASK).mean() for a in answers) / len(answers)
    right = sum(a.eq(labels["test"], axis=0).mean() for a in answers) / len(answers)
    rows["accuracy"] = right / np.maximum(1 - rows["asked"], 1e-9)  # 0 if none is answered
    return rows


def for_equal_classes(logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Logits (n, 10) as if all classes were equally frequent, of a network that was trained on these shares (10,).

    By Bayes' rule the probability of a class is proportional to its share, so the share is divided out (Menon et al.
    2021).
    """
    return logits - np.log(shares)


def with_specialist(logits: np.ndarray, specialist: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Classes (n,) where a specialist decides between a pair of classes whenever the first network names one of them.

    Both logits are (n, 10); of the specialist's, only those of the pair count.
    """
    answers = logits.argmax(axis=1)
    asked = np.isin(answers, pair)
    answers[asked] = np.array(pair)[specialist[asked][:, pair].argmax(axis=1)]
    return answers
