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


def with_specialist(logits: np.ndarray, specialist: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Classes (n,) where a specialist decides between a pair of classes whenever the first network names one of them.

    Both logits are (n, 10); of the specialist's, only those of the pair count.
    """
    answers = logits.argmax(axis=1)
    asked = np.isin(answers, pair)
    answers[asked] = np.array(pair)[specialist[asked][:, pair].argmax(axis=1)]
    return answers
