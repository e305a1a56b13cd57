import json
import time

import numpy as np
import pytest
import sklearn.metrics

from helpers import metrics
from helpers.config import CLASSES


def two_class(confidence, correct):
    """Logits (n, 2) that predict class 0 with these confidences, and labels that make them right or wrong."""
    confidence = np.array(confidence, dtype=float)
    return np.stack([np.log(confidence / (1 - confidence)), np.zeros(len(confidence))], 1), 1 - np.array(correct)


@pytest.fixture
def toy():
    return two_class([0.95, 0.85, 0.75, 0.65], [1, 1, 0, 1])


@pytest.fixture(scope="module")
def synthetic():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    logits = rng.normal(size=(2000, 10))
    logits[np.arange(2000), labels] += 2.5
    return logits * 1.7, labels


def test_toy_values(toy):
    assert metrics.ece(*toy, bins=10) == pytest.approx(0.325)
    assert metrics.aurc(*toy) == pytest.approx(0.1458333, abs=5e-8)
    assert metrics.aurc(*toy) - metrics.e_aurc(*toy) == pytest.approx(0.0625)
    assert metrics.augrc(*toy) == pytest.approx(0.125)


@pytest.mark.parametrize(
    "name, value",
    [
        ("accuracy", 0.801),
        ("macro_f1", 0.800589),
        ("nll", 0.634343),
        ("brier", 0.293424),
        ("ece", 0.098283),
        ("classwise_ece", 0.023807),
        ("aurc", 0.054219),
        ("e_aurc", 0.032907),
        ("augrc", 0.043007),
        ("fit_temperature", 0.691453),
        ("failure_auroc", 0.854728),
    ],
)
def test_synthetic_values(synthetic, name, value):
    assert getattr(metrics, name)(*synthetic) == pytest.approx(value, abs=6e-7)


@pytest.mark.parametrize("risk, coverage", [(0.01, 0.341), (0.02, 0.405), (0.05, 0.6005)])
def test_synthetic_coverage_at_risk(synthetic, risk, coverage):
    assert metrics.coverage_at_risk(*synthetic, risk) == pytest.approx(coverage, abs=1e-12)


def test_agrees_with_scikit_learn(synthetic):
    logits, labels = synthetic
    p, predicted = metrics.softmax(logits), logits.argmax(1)
    assert metrics.nll(logits, labels) == pytest.approx(sklearn.metrics.log_loss(labels, p))
    assert metrics.brier(logits, labels) == pytest.approx(
        sklearn.metrics.brier_score_loss(labels, p, scale_by_half=False)
    )
    matrix = metrics.confusion(logits, labels)
    assert matrix.dtype.kind == "i"
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predicted))
    few = slice(0, 6)  # some classes are neither true nor predicted
    assert metrics.macro_f1(logits[few], labels[few]) == pytest.approx(
        sklearn.metrics.f1_score(labels[few], predicted[few], labels=range(10), average="macro", zero_division=0)
    )


def test_only_classes_of_the_group_may_be_the_answer():
    logits = np.log([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.5, 0.4], [0.9, 0.05, 0.05]])
    labels = np.array([1, 1, 2, 0])
    assert metrics.accuracy_among(logits, labels, (1, 2)) == pytest.approx(1 / 3)  # the first image, once 0 is out
    assert metrics.accuracy_among(logits, labels, (0, 1, 2)) == metrics.accuracy(logits, labels) == 0.25
    assert np.isnan(metrics.accuracy_among(logits[3:], labels[3:], (1, 2)))
    rates = metrics.pair_error_rates(logits, labels)
    assert rates.index.tolist() == [(0, 1), (0, 2), (1, 2)]
    assert rates.tolist() == pytest.approx([1 / 3, 0, 2 / 3])


def test_confusion_has_true_classes_as_rows():
    assert metrics.confusion([[5.0, 0.0]], np.array([1])).tolist() == [[0, 0], [1, 0]]


def test_per_class_has_a_row_a_class_and_agrees_with_macro_f1(synthetic):
    table = metrics.per_class(*synthetic)
    assert tuple(table.index) == CLASSES
    assert list(table.columns) == ["precision", "recall", "f1", "support"]
    assert table["support"].sum() == 2000
    assert table["f1"].mean() == pytest.approx(metrics.macro_f1(*synthetic))


def test_reliability_table_reproduces_the_ece(synthetic):
    table = metrics.reliability(*synthetic)
    assert list(table.columns) == ["lower", "upper", "count", "confidence", "accuracy", "low", "high"]
    assert (table["low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["high"]).all()
    assert (table["count"] > 0).all() and table["count"].sum() == 2000
    assert ((table["lower"] < table["confidence"]) & (table["confidence"] <= table["upper"])).all()
    gap = (table["accuracy"] - table["confidence"]).abs()
    assert (gap * table["count"]).sum() / 2000 == pytest.approx(metrics.ece(*synthetic))


def test_a_bin_holds_its_upper_edge_but_not_its_lower():
    logits, labels = np.zeros((1, 2)), np.array([0])  # confidence exactly 0.5
    assert metrics.reliability(logits, labels, bins=2)[["lower", "upper"]].values.tolist() == [[0.0, 0.5]]


def test_ece_if_calibrated_is_what_a_calibrated_model_shows(synthetic):
    logits, _ = synthetic
    p = metrics.softmax(logits)
    rng = np.random.default_rng(1)
    drawn = [(rng.random((len(p), 1)) > p.cumsum(1)).sum(1).clip(max=9) for _ in range(200)]
    expected = np.quantile([metrics.ece(logits, y) for y in drawn], [0.5, 0.95])
    found = metrics.ece_if_calibrated(logits, draws=400)
    assert np.quantile(found, [0.5, 0.95]) == pytest.approx(expected, rel=0.08) and len(found) == 400
    assert (found == metrics.ece_if_calibrated(logits, draws=400)).all()
    assert (found != metrics.ece_if_calibrated(logits, draws=400, seed=1)).any()


def test_the_limit_tells_a_calibrated_model_from_another(synthetic):
    logits, labels = synthetic
    best = logits / metrics.fit_temperature(logits, labels)
    scores = metrics.summary(best, labels)
    assert scores["ece_floor"] < scores["ece_limit"] and scores["ece"] < scores["ece_limit"]
    assert metrics.summary(3 * best, labels)["ece"] > metrics.summary(3 * best, labels)["ece_limit"]


def test_expected_mistakes_are_those_that_the_confidences_promise(toy):
    mean, deviation = metrics.expected_overconfident(toy[0], 0.8)  # 0.95 and 0.85
    assert mean == pytest.approx(0.05 + 0.15)
    assert deviation == pytest.approx((0.95 * 0.05 + 0.85 * 0.15) ** 0.5)
    assert metrics.confident_mistakes(*toy, 0.7).tolist() == [False, False, True, False]


def test_a_threshold_answers_as_many_as_it_promises(synthetic):
    for risk in (0.01, 0.05):
        threshold = metrics.threshold_at_risk(*synthetic, risk)
        found = metrics.answered(*synthetic, threshold)
        assert found["coverage"] == pytest.approx(metrics.coverage_at_risk(*synthetic, risk))
        assert found["risk_low"] < found["risk"] <= risk < found["risk_high"]
    assert metrics.threshold_at_risk(*two_class([0.9, 0.8], [0, 0]), 0.01) == 1
    assert metrics.answered(*two_class([0.9], [1]), 1.0) == {"coverage": 0, "risk": 0, "risk_low": 0, "risk_high": 1}


def test_smoothing_is_undone_exactly():
    true = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    logits = np.log(0.9 * true + 0.1 / 3)
    np.testing.assert_allclose(metrics.softmax(metrics.unsmoothed(logits, 0.1)), true, atol=1e-11)
    np.testing.assert_allclose(metrics.softmax(metrics.unsmoothed(logits, 0.0)), metrics.softmax(logits))
    below = metrics.softmax(metrics.unsmoothed(np.array([[9.0, 0.0, 0.0]]), 0.1))  # less than the target has
    np.testing.assert_allclose(below, [[1, 0, 0]], atol=1e-11)


def test_least_cost_weighs_what_is_unlikely_and_dear():
    p = np.array([[0.8, 0.2], [0.95, 0.05]])
    assert metrics.least_cost(p, 1 - np.eye(2)).tolist() == [0, 0]
    dear = np.array([[0.0, 10.0], [1.0, 0.0]])  # answering 0 where 1 is true costs 10: 2 against 0.8, 0.5 against 0.95
    assert metrics.least_cost(p, dear).tolist() == [1, 0]


def test_temperature_makes_the_likelihood_best(synthetic):
    logits, labels = synthetic
    best = metrics.fit_temperature(logits, labels)
    assert metrics.fit_temperature(logits / best, labels) == pytest.approx(1, abs=1e-5)
    for other in (0.98 * best, 1.02 * best):
        assert metrics.nll(logits / best, labels) < metrics.nll(logits / other, labels)


def test_all_right():
    logits, labels = two_class([0.9, 0.8], [1, 1])
    assert metrics.accuracy(logits, labels) == 1
    assert metrics.macro_f1(logits, labels) == 0.5  # class 1 never occurs
    assert metrics.aurc(logits, labels) == metrics.e_aurc(logits, labels) == metrics.augrc(logits, labels) == 0
    assert metrics.coverage_at_risk(logits, labels, 0) == 1
    assert np.isnan(metrics.failure_auroc(logits, labels))
    assert metrics.overconfident(logits, labels, 0) == 0
    assert metrics.most_confident(logits, labels, correct=False, count=5).tolist() == []


def test_all_wrong():
    logits, labels = two_class([0.9, 0.8], [0, 0])
    assert metrics.accuracy(logits, labels) == metrics.macro_f1(logits, labels) == 0
    assert metrics.aurc(logits, labels) == 1 and metrics.e_aurc(logits, labels) == 0
    assert metrics.coverage_at_risk(logits, labels, 0.5) == 0
    assert metrics.ece(logits, labels) == pytest.approx(0.85)
    assert metrics.brier([[50.0, 0.0]], [1]) == pytest.approx(2)
    assert metrics.overconfident(logits, labels, 0.85) == 1


def test_one_image():
    logits, labels = two_class([0.7], [1])
    coverage, risk = metrics.risk_coverage(logits, labels)
    assert (coverage.tolist(), risk.tolist()) == ([1.0], [0.0])
    assert all(np.isfinite(list(metrics.summary(logits, labels).values())))


def test_ties_keep_the_order_of_the_images():
    logits, labels = two_class([0.7, 0.9, 0.7, 0.9, 0.7], [1, 1, 0, 1, 1])
    assert metrics.most_confident(logits, labels, correct=True, count=3).tolist() == [1, 3, 0]
    assert metrics.most_confident(logits, labels, correct=False, count=3).tolist() == [2]
    assert metrics.risk_coverage(logits, labels)[1].tolist() == [0, 0, 0, 1 / 4, 1 / 5]


def test_huge_logits_stay_finite_and_exact():
    logits, labels = np.array([[1000.0, 0.0]], dtype=np.float32), np.array([1])
    assert metrics.nll(logits, labels) == 1000
    assert metrics.ece(logits, labels) == 1


def test_wilson_interval():
    # Wilson 1927 by hand: n = 10, no success, z = 1.959964: z^2 / (n + z^2)
    assert metrics.wilson(0, 10) == pytest.approx((0, 0.277533), abs=1e-6)
    low, high = metrics.wilson(801, 2000)
    assert low < 801 / 2000 < high
    for wrong in [(3, 2), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match="proportion needs"):
            metrics.wilson(*wrong)


def test_mcnemar_counts_only_the_images_on_which_the_models_differ():
    a = np.array([True] * 6 + [False] * 2)
    b = np.array([True] + [False] * 6 + [True])
    assert metrics.mcnemar(a, b) == {"only_a": 5, "only_b": 1, "p_value": pytest.approx(2 * (1 + 6) / 2**6)}
    assert metrics.mcnemar(a, a) == {"only_a": 0, "only_b": 0, "p_value": 1.0}
    with pytest.raises(ValueError, match="same length"):
        metrics.mcnemar(a, b[1:])


def test_intervals_are_those_of_the_bootstrap(synthetic):
    logits, labels = synthetic[0], synthetic[1]
    found = metrics.intervals(logits, labels, draws=50)
    (drawn,) = metrics.paired_bootstrap(metrics.nll, labels, logits, draws=50)
    assert (found["nll_low"], found["nll_high"]) == tuple(np.quantile(drawn, [0.025, 0.975]))
    assert found.keys() == {f"{key}_{end}" for key in ("macro_f1", "nll", "brier", "aurc") for end in ("low", "high")}


def test_paired_difference_by_hand():
    a = np.array([True] * 60 + [False] * 40)
    b = np.array([True] * 50 + [False] * 10 + [True] * 30 + [False] * 10)
    found = metrics.paired_difference(a, b)  # only a: 10, only b: 30 of 100
    reach = 1.959964 * (0.4 - 0.2**2) ** 0.5 / 10
    assert list(found.values()) == pytest.approx([0.2, 0.2 - reach, 0.2 + reach])
    assert metrics.paired_difference(a, a)["difference_high"] == 0


def test_resampled_means_draw_whole_rows():
    columns = np.column_stack([np.arange(50), -np.arange(50)])
    drawn = metrics.resampled_means(columns, draws=300)
    assert drawn.shape == (300, 2) and np.allclose(drawn[:, 0], -drawn[:, 1])
    assert drawn[:, 0].std() == pytest.approx(np.arange(50).std() / 50**0.5, rel=0.15)


def test_paired_bootstrap_gives_every_model_the_same_images(synthetic):
    logits, labels = synthetic
    draws = metrics.paired_bootstrap(metrics.accuracy, labels, logits, 2 * logits, -logits, draws=200)
    assert draws.shape == (3, 200)
    np.testing.assert_array_equal(draws[0], draws[1])
    standard_error = np.sqrt(0.801 * 0.199 / 2000)
    assert draws[0].mean() == pytest.approx(0.801, abs=standard_error)
    assert draws[0].std() == pytest.approx(standard_error, rel=0.2)
    again = metrics.paired_bootstrap(metrics.accuracy, labels, logits, draws=200)
    np.testing.assert_array_equal(again[0], draws[0])


def test_quick_enough_for_the_test_set():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(10_000, 10)), rng.integers(0, 10, 10_000)
    start = time.process_time()
    metrics.ece_if_calibrated(logits)
    floor = time.process_time()
    metrics.paired_bootstrap(metrics.macro_f1, labels, logits, logits, draws=100)
    assert floor - start < 10
    assert time.process_time() - floor < 10


def test_summary_is_ready_for_json(synthetic):
    logits, labels = 3 * synthetic[0], synthetic[1]  # over-confident
    numbers = metrics.summary(logits, labels)
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["accuracy_low"] < numbers["accuracy"] < numbers["accuracy_high"]
    assert numbers["ece_floor"] < numbers["ece_limit"] < numbers["ece"]
    assert numbers["wrong_above_90"] > numbers["expected_above_90"] + 2 * numbers["expected_above_90_std"]
    p, wrong = metrics.softmax(logits).max(1), logits.argmax(1) != labels
    assert numbers["wrong_above_90"] == (wrong & (p > 0.9)).sum() > numbers["wrong_above_99"] > 0


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.zeros(3), np.zeros(3, int), "shape"),
        (np.zeros((0, 3)), np.zeros(0, int), "at least one image"),
        (np.zeros((2, 3)), np.zeros(3, int), "2 integers"),
        (np.zeros((2, 3)), np.zeros(2), "integers"),
        (np.zeros((2, 3)), np.array([0, 3]), r"0\.\.2"),
        (np.zeros((2, 3)), np.array([-1, 0]), r"0\.\.2"),
        (np.full((2, 3), np.nan), np.array([0, 1]), "finite"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(logits, labels, message):
    for function in (metrics.accuracy, metrics.nll, metrics.ece, metrics.confusion, metrics.summary):
        with pytest.raises(ValueError, match=message) as error:
            function(logits, labels)
        assert "\n" not in str(error.value)


def test_class_names_must_fit_the_logits():
    with pytest.raises(ValueError, match="10 class names for logits of 3"):
        metrics.per_class(np.zeros((2, 3)), np.array([0, 1]))


def test_top_confusions_add_both_directions():
    matrix = np.diag([9, 9, 9])
    matrix[0, 1], matrix[1, 0], matrix[2, 1] = 2, 3, 4
    assert metrics.top_confusions(matrix, count=2) == [(0, 1, 5), (1, 2, 4)]


def test_pair_errors_are_all_of_them_and_in_both_directions():
    matrix = np.diag([9, 9, 9])
    matrix[0, 1], matrix[1, 0], matrix[2, 1] = 2, 3, 4
    assert metrics.pair_errors(matrix).tolist() == [5, 0, 4]
