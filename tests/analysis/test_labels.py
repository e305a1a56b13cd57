"""The label audit against planted errors and against its definition written out."""

import warnings

import numpy as np
import pytest

from helpers.analysis.labels import suspects


def classified(n=1000, classes=10, sure=6.0, seed=0):
    """Probabilities (n, K) of a good but imperfect classifier, and the true labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += sure
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


def test_planted_errors_are_found_and_come_first():
    probabilities, true = classified()
    planted = np.arange(0, 1000, 37)
    given = true.copy()
    given[planted] = (true[planted] + 1 + planted % 9) % 10
    table = suspects(probabilities, given)
    assert set(table.index[: len(planted) - 2]) <= set(planted)  # an image may be unclear and mislabelled
    found = table.loc[table.index.intersection(planted)]
    assert len(found) >= 0.7 * len(planted) and len(table) <= len(found) + 2
    np.testing.assert_array_equal(found["given"], given[found.index])
    np.testing.assert_array_equal(found["suggested"], true[found.index])


def test_a_suspect_is_what_the_definition_says():
    probabilities, labels = classified(sure=2.0)
    threshold = np.array([probabilities[labels == k, k].mean() for k in range(10)])
    sure_of_another = (probabilities >= threshold) & (np.arange(10) != labels[:, None])
    expected = sure_of_another.any(1) & (probabilities.argmax(1) != labels)
    table = suspects(probabilities, labels)
    assert sorted(table.index) == np.flatnonzero(expected).tolist() and len(table) > 20
    np.testing.assert_allclose(table["quality"], probabilities[table.index, labels[table.index]])
    assert table["quality"].is_monotonic_increasing
    assert (table["given"] != table["suggested"]).all()


def test_clean_labels_give_an_empty_table():
    table = suspects(*classified(sure=12.0))
    assert list(table.columns) == ["given", "suggested", "quality"]
    assert len(table) == 0 and table.index.name == "image" and table.index.dtype.kind == "i"


def test_bytes_and_single_precision_give_the_same_suspects_and_nothing_is_changed():
    probabilities, labels = classified(sure=2.0)
    single, small = probabilities.astype(np.float32), labels.astype(np.uint8)
    before = single.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(suspects(single, small).index) == set(suspects(probabilities, labels).index)
    np.testing.assert_array_equal(single, before)


HALVES = np.full((4, 2), 0.5)


@pytest.mark.parametrize(
    "probabilities, labels, message",
    [
        (HALVES, np.array([0, 1]), r"one integer an image, not \(4, 2\) and int64 of shape \(2,\)"),
        (HALVES, np.array([0.0, 1, 0, 1]), "one integer an image"),
        (HALVES[0], np.array([0, 1]), r"\(images, classes\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least two classes"),
        (3 * HALVES, np.array([0, 1, 0, 1]), "sum to 1"),
        (HALVES + [1, -1], np.array([0, 1, 0, 1]), "at least 0"),
        (HALVES * np.nan, np.array([0, 1, 0, 1]), "at least 0"),
        (HALVES, np.array([0, 1, 0, 2]), r"0\.\.1"),
        (HALVES, np.array([0, 1, 0, -1]), r"0\.\.1"),
        (HALVES, np.array([1, 1, 1, 1]), "at least two classes"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(probabilities, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        suspects(probabilities, labels)
    assert "\n" not in str(error.value)
