"""Answers of least expected cost, tried beside the most probable class."""

import numpy as np
import pandas as pd

from helpers import metrics
from helpers.config import ANIMALS, CLASSES

HEAVY = 10.0  # what an animal taken for a vehicle costs, where any other mistake costs 1; a choice made for the trial
ANIMAL = np.isin(np.arange(len(CLASSES)), ANIMALS)


def costs() -> np.ndarray:
    """Costs (10, 10) of answering the class of the row where that of the column is true."""
    matrix = 1 - np.eye(len(CLASSES))
    matrix[np.ix_(~ANIMAL, ANIMAL)] = HEAVY
    return matrix


def compare(versions: dict[str, tuple[np.ndarray, np.ndarray]], labels: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
    """Mean costs of deciding by the most probable class (first row) and by the least expected cost, a row a version.

    versions: {title: probabilities (n, 10) of the validation and of the test images}, which name the same most probable
    classes; labels: of both. Columns: validation and test, the mean costs of an image; change on test against the first
    row, and `corrected`, that against the least cost with the first version, each with the ends _low and _high of its
    95 % interval (bootstrap over images); "animals as vehicles" and accuracy, both on test.
    """
    matrix = costs()
    first = tuple(p.argmax(1) for p in next(iter(versions.values())))
    answers = {"most probable class": first}
    for title, both in versions.items():
        answers[f"least cost, {title}"] = tuple(metrics.least_cost(p, matrix) for p in both)
    costs_of = {title: matrix[on_test, labels[1]] for title, (_, on_test) in answers.items()}
    before, as_it_is, *_ = costs_of.values()
    rows = {}
    for title, (on_validation, on_test) in answers.items():
        cost = costs_of[title]
        rows[title] = {
            "validation": matrix[on_validation, labels[0]].mean(),
            "test": cost.mean(),
            **_difference("change", cost - before),
            **_difference("corrected", cost - as_it_is),
            "animals as vehicles": int((~ANIMAL[on_test] & ANIMAL[labels[1]]).sum()),
            "accuracy": (on_test == labels[1]).mean(),
        }
    return pd.DataFrame(rows).T


def _difference(name: str, differences: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(metrics.resampled_means(differences[:, None]), [0.025, 0.975])
    return {name: differences.mean(), f"{name}_low": low, f"{name}_high": high}


def for_equal_classes(logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Logits (n, 10) as if all classes were equally frequent, of a network that was trained on these shares (10,).

    By Bayes' rule the probability of a class is proportional to its share, so the share is divided out (Menon et al.
    2021).
    """
    return logits - np.log(shares)


def costs_by_step(
    logits: np.ndarray, labels: np.ndarray, shares: np.ndarray, smoothing: float, asking: float
) -> pd.DataFrame:
    """What each image costs by several ways to decide, (n,) rows, a column a way.

    logits (n, 10): of a network that was trained on classes of these shares (10,) with this label smoothing. The answer
    is the most probable class or that of least cost, for probabilities "as trained", with the shares divided out
    ("shares"), or with the smoothing undone before that ("corrected"). In the column "asking" an image whose least
    expected cost is above `asking`, the price of asking a person, is passed on at this price; "asked" says which.
    """
    matrix = costs()
    versions = {
        "as trained": logits,
        "shares": for_equal_classes(logits, shares),
        "corrected": for_equal_classes(metrics.unsmoothed(logits, smoothing), shares),
    }
    found = {}
    for name, z in versions.items():
        found[f"most probable, {name}"] = matrix[z.argmax(1), labels]
        found[f"least cost, {name}"] = matrix[metrics.least_cost(metrics.softmax(z), matrix), labels]
    asked = (metrics.softmax(versions["corrected"]) @ matrix.T).min(1) > asking
    found["asking"] = np.where(asked, asking, found["least cost, corrected"])
    return pd.DataFrame(found | {"asked": asked})


def with_specialist(logits: np.ndarray, specialist: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Classes (n,) where a specialist decides between a pair of classes whenever the first network names one of them.

    Both logits are (n, 10); of the specialist's, only those of the pair count.
    """
    answers = logits.argmax(axis=1)
    asked = np.isin(answers, pair)
    answers[asked] = np.array(pair)[specialist[asked][:, pair].argmax(axis=1)]
    return answers
