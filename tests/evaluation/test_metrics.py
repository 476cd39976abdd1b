import math

import numpy as np
import pytest

from musictag.evaluation import metrics

NAN = math.nan


def column(*values, dtype=np.float64):
    return np.array(values, dtype=dtype)[:, None]


def test_tag_is_given_strictly_above_its_threshold():
    scores = np.array([[0.5, 0.5], [0.6, 0.25]], np.float32)
    assert metrics.give(scores, np.array([0.5, 0.25])).tolist() == [[False, True], [True, False]]


def test_no_score_exceeds_never():
    assert not metrics.give(np.ones((3, 1), np.float32), np.array([metrics.NEVER])).any()


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
    assert metrics.fit_calibration(targets, scores).tolist() == [[1, 0], [1, 0]]


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


def test_threshold_is_midway_between_scores():
    # Cuts after 1, 2, 3, 4 tracks have F1 2/3, 1/2, 4/5, 2/3.
    scores, targets = column(0.9, 0.7, 0.6, 0.2), column(1, 0, 1, 0, dtype=bool)
    np.testing.assert_allclose(metrics.fit_thresholds(targets, scores), [0.4])


def test_of_equal_thresholds_the_highest_is_returned():
    # F1 is 2/3 after 1 track (precision 1) and after 4 tracks (precision 1/2).
    scores, targets = column(0.9, 0.7, 0.6, 0.2), column(1, 0, 0, 1, dtype=bool)
    np.testing.assert_allclose(metrics.fit_thresholds(targets, scores), [0.8])


def test_tracks_of_equal_score_are_not_separated():
    scores, targets = column(0.8, 0.8, 0.8, 0.4), column(1, 0, 0, 0, dtype=bool)
    np.testing.assert_allclose(metrics.fit_thresholds(targets, scores), [0.6])


def test_thresholds_of_tags_with_one_class():
    scores = np.array([[0.9, 0.9], [0.5, 0.5]], np.float32)
    targets = np.array([[False, True], [False, True]])
    np.testing.assert_allclose(metrics.fit_thresholds(targets, scores), [metrics.NEVER, 0.25])


def test_threshold_has_highest_recall_at_minimum_precision():
    # Precision after 1 to 5 tracks: 1, 1/2, 2/3, 3/4, 3/5; the best F1 is after 4.
    scores, targets = column(0.9, 0.8, 0.6, 0.4, 0.1), column(1, 0, 1, 1, 0, dtype=bool)
    for demanded, threshold in [(0.5, 0.25), (0.75, 0.25), (0.76, 0.85), (1.0, 0.85)]:
        np.testing.assert_allclose(metrics.fit_thresholds(targets, scores, np.array([demanded])), [threshold])


def test_minimum_precision_of_some_tags():
    scores, targets = column(0.9, 0.8, 0.6, 0.4, 0.1), column(0, 1, 1, 1, 0, dtype=bool)
    fitted = metrics.fit_thresholds(np.tile(targets, 3), np.tile(scores, 3), np.array([NAN, 0.76, 0.6]))
    np.testing.assert_allclose(fitted, [0.25, metrics.NEVER, 0.25])


def test_no_threshold_has_more_recall_at_minimum_precision():
    rng = np.random.default_rng(0)
    targets = rng.random((40, 6)) < 0.4
    scores = np.round(rng.random((40, 6)) + 0.3 * targets, 1).clip(0, 1).astype(np.float32)
    demanded = np.linspace(0.4, 0.9, 6)
    fitted = metrics.fit_thresholds(targets, scores, demanded)
    precision, recall, _ = metrics.precision_recall_f1(targets, metrics.give(scores, fitted))
    never = fitted == metrics.NEVER
    assert 0 < never.sum() < 6
    assert (precision[~never] >= demanded[~never]).all()
    for threshold in np.linspace(0, 1, 101):
        precision, other, _ = metrics.precision_recall_f1(targets, metrics.give(scores, np.full(6, threshold)))
        assert (other <= recall)[precision >= demanded].all()


def test_no_threshold_has_a_better_f1_than_the_fitted_one():
    rng = np.random.default_rng(0)
    targets = rng.random((40, 6)) < 0.3
    scores = np.round(rng.random((40, 6)) + 0.3 * targets, 1).clip(0, 1).astype(np.float32)
    fitted = metrics.fit_thresholds(targets, scores)
    best = metrics.precision_recall_f1(targets, metrics.give(scores, fitted))[2]
    for threshold in np.linspace(0, 1, 101):
        f1 = metrics.precision_recall_f1(targets, metrics.give(scores, np.full(6, threshold)))[2]
        assert (np.nan_to_num(f1) <= best + 1e-12).all()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def calibrated(scores, calibration):
    return sigmoid(calibration[:, 0] * metrics.logit(scores) + calibration[:, 1])


def test_calibration_recovers_scale_and_bias():
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1, 2, (20_000, 2))
    targets = rng.random(true_logits.shape) < sigmoid(true_logits)
    overconfident = sigmoid((true_logits - [0.5, -1]) / [0.4, 1])
    calibration = metrics.fit_calibration(targets, overconfident)
    np.testing.assert_allclose(calibration, [[0.4, 0.5], [1, -1]], atol=0.06)
    assert metrics.log_loss(targets, calibrated(overconfident, calibration)) < metrics.log_loss(targets, overconfident)


def test_few_separable_tracks_give_no_steep_scale():
    targets, scores = column(1, 1, 0, 0, 0, dtype=bool), column(0.9, 0.8, 0.2, 0.1, 0.1)
    scale, _ = metrics.fit_calibration(targets, scores)[0]
    assert 0.5 < scale < 2


def test_calibration_keeps_the_ranking():
    rng = np.random.default_rng(1)
    targets = rng.random((200, 1)) < 0.5
    against = np.where(targets, 0.1, 0.9) + rng.uniform(-0.05, 0.05, targets.shape)
    calibration = metrics.fit_calibration(targets, against)
    assert calibration[0, 0] > 0
    assert (np.argsort(calibrated(against, calibration)[:, 0]) == np.argsort(against[:, 0])).all()


def test_tags_with_one_class_keep_their_scores():
    targets = np.array([[True, False], [True, False]])
    assert metrics.fit_calibration(targets, np.full((2, 2), 0.3)).tolist() == [[1, 0], [1, 0]]


def test_saturated_scores_give_finite_calibration():
    targets = column(1, 0, 1, 0, dtype=bool)
    calibration = metrics.fit_calibration(targets, column(1, 0, 0, 1, dtype=np.float32))
    assert np.isfinite(calibration).all()


def test_validation_metrics_improve_with_scores():
    targets = np.array([[True, False], [False, True], [True, False], [False, True]])
    good = metrics.validation_metrics(targets, np.where(targets, 0.9, 0.1).astype(np.float32))
    poor = metrics.validation_metrics(targets, np.where(targets, 0.4, 0.6).astype(np.float32))
    assert good == {"val_loss": pytest.approx(-math.log(0.9)), "val_macro_pr_auc": 1.0, "val_macro_roc_auc": 1.0}
    assert poor["val_loss"] > good["val_loss"]
    assert poor["val_macro_roc_auc"] == 0.0
