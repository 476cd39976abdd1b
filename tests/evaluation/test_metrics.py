import math

import numpy as np
import pytest

from musictag.evaluation import metrics

NAN = math.nan


def column(*values, dtype=np.float64):
    return np.array(values, dtype=dtype)[:, None]


def test_tag_is_given_strictly_above_its_threshold():
    scores = np.array([[0.5, 0.5], [0.6, 0.25]], np.float32)
    assert metrics.apply_thresholds(scores, np.array([0.5, 0.25])).tolist() == [[False, True], [True, False]]


def test_precision_recall_f1_by_hand():
    # Tag 0: 5 tracks positive, 4 given, 3 of them rightly. Tag 1: 1 positive, 2 given, 1 rightly.
    targets = np.array([[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]], bool).T
    given = np.array([[1, 1, 1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]], bool).T
    precision, recall, f1 = metrics.precision_recall_f1(targets, given)
    np.testing.assert_allclose(precision, [3 / 4, 1 / 2])
    np.testing.assert_allclose(recall, [3 / 5, 1])
    np.testing.assert_allclose(f1, [2 / 3, 2 / 3])
    assert metrics.support(targets).tolist() == [5, 1]


def test_micro_values_pool_all_decisions():
    targets = np.array([[1, 1], [1, 0], [0, 0]], bool)
    given = np.array([[1, 0], [1, 1], [1, 0]], bool)
    figures = metrics.precision_recall_f1(metrics.pooled(targets), metrics.pooled(given))
    np.testing.assert_allclose(np.concatenate(figures), [2 / 4, 2 / 3, 4 / 7])


def test_undefined_metrics_are_nan():
    # Tags: never positive nor given; never positive but given; never given but positive; all positive and given.
    targets = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], bool)
    given = np.array([[0, 1, 0, 1], [0, 0, 0, 1]], bool)
    precision, recall, f1 = metrics.precision_recall_f1(targets, given)
    np.testing.assert_array_equal(precision, [NAN, NAN, 0, 1])
    np.testing.assert_array_equal(recall, [NAN, NAN, 0, 1])
    np.testing.assert_array_equal(f1, [NAN, NAN, 0, 1])
    scores = np.array([[0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])
    np.testing.assert_array_equal(metrics.average_precision(targets, scores), [NAN, NAN, 1, 1])
    np.testing.assert_array_equal(metrics.roc_auc(targets, scores), [NAN, NAN, 1, NAN])


def test_all_metrics_are_nan_without_tracks():
    targets, scores = np.zeros((0, 2), bool), np.zeros((0, 2), np.float32)
    values = [*metrics.precision_recall_f1(targets, targets), metrics.average_precision(targets, scores)]
    values += [metrics.roc_auc(targets, scores), metrics.expected_calibration_error(targets, scores)]
    assert np.isnan(values).all()
    assert math.isnan(metrics.log_loss(targets, scores))


def test_areas_by_hand():
    # Ranked: positive, negative, positive, negative. Precision at the positives is 1 and 2/3, 3 of 4 pairs are right.
    targets = column(0, 1, 0, 1, dtype=bool)
    scores = column(0.6, 0.9, 0.1, 0.4, dtype=np.float32)
    np.testing.assert_allclose(metrics.average_precision(targets, scores), [(1 + 2 / 3) / 2])
    np.testing.assert_allclose(metrics.roc_auc(targets, scores), [3 / 4])


def test_calibration_error_by_hand():
    # Bins: 0.0 to 0.1 with a gap of 0.05 on one track, 0.6 to 0.7 with 0.65 against 1/2 on two, 0.9 to 1 with 0 on one.
    targets, scores = column(0, 1, 0, 1, dtype=bool), column(0.05, 0.62, 0.68, 1.0, dtype=np.float32)
    np.testing.assert_allclose(
        metrics.expected_calibration_error(targets, scores), [0.05 / 4 + 0.15 * 2 / 4], rtol=1e-6
    )


def test_exaggerated_probabilities_have_a_larger_calibration_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random((20_000, 1))
    targets = rng.random((20_000, 1)) < probabilities
    exaggerated = (probabilities > 0.5).astype(np.float32)
    assert metrics.expected_calibration_error(targets, probabilities)[0] < 0.02
    assert metrics.expected_calibration_error(targets, exaggerated)[0] == pytest.approx(0.25, abs=0.02)


def test_calibration_error_of_few_tracks_is_large_by_chance():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.5, 1.5, (150, 200))
    targets = rng.random(probabilities.shape) < probabilities
    assert metrics.macro(metrics.expected_calibration_error(targets, probabilities)) == pytest.approx(0.07, abs=0.01)
    pooled = metrics.pooled(targets), metrics.pooled(probabilities)
    assert metrics.expected_calibration_error(*pooled)[0] < 0.01


def test_macro_ignores_undefined_tags():
    assert metrics.macro(np.array([0.5, NAN, 1.0])) == 0.75
    assert math.isnan(metrics.macro(np.array([NAN, NAN])))


def test_log_loss_by_hand_and_finite_at_0_and_1():
    targets = np.array([[True, False]])
    assert metrics.log_loss(targets, np.array([[0.8, 0.4]])) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert metrics.log_loss(targets, np.array([[0.0, 1.0]], np.float32)) == pytest.approx(-math.log(metrics.EPSILON))
    assert metrics.log_loss(targets, np.array([[1.0, 0.0]])) == 0


def test_validation_metrics_improve_with_scores():
    targets = np.array([[True, False], [False, True], [True, False], [False, True]])
    good = metrics.validation_metrics(targets, np.where(targets, 0.9, 0.1).astype(np.float32))
    poor = metrics.validation_metrics(targets, np.where(targets, 0.4, 0.6).astype(np.float32))
    assert good == {"val_loss": pytest.approx(-math.log(0.9)), "val_macro_pr_auc": 1.0, "val_macro_roc_auc": 1.0}
    assert poor["val_loss"] > good["val_loss"]
    assert poor["val_macro_roc_auc"] == 0.0
