import dataclasses

import numpy as np
import pytest

from musictag.evaluation import metrics
from musictag.evaluation.calibration import NEVER, calibrate, fit_calibration, fit_outputs, fit_thresholds
from small import SPEC

NAN = float("nan")


def column(*values, dtype=np.float64):
    return np.array(values, dtype=dtype)[:, None]


def test_no_score_exceeds_never():
    assert not metrics.apply_thresholds(np.ones((3, 1), np.float32), np.array([NEVER])).any()


def test_calibration_is_platt_scaling_and_1_0_changes_nothing() -> None:
    scores = np.array([[0.2, 0.5, 0.9], [0.0, 1.0, 0.7]], dtype=np.float32)
    np.testing.assert_allclose(calibrate(scores, [(1, 0)] * 3), scores, atol=2e-7)
    calibrated = calibrate(scores[0], [(1.0, 0.0), (5.0, np.log(3)), (2.0, 0.0)])
    np.testing.assert_allclose(calibrated, [0.2, 0.75, 81 / 82], rtol=1e-5)
    assert calibrated.dtype == np.float32


def test_calibration_of_extreme_scores_is_finite() -> None:
    extreme = calibrate(np.array([0.0, 1.0], dtype=np.float32), [(1e4, 0.0), (1e4, 0.0)])
    np.testing.assert_array_equal(extreme, [0.0, 1.0])


def test_min_precision_raises_the_threshold():
    targets = np.array([[True], [False], [True], [True], [False], [False], [False], [False]])
    scores = np.linspace(0.9, 0.2, 8, dtype=np.float32)[:, None]
    n_given = []
    for least in (None, np.array([0.99])):
        calibration, thresholds = fit_outputs(targets, scores, least)
        n_given.append(int((calibrate(scores, calibration) > np.array(thresholds)).sum()))
    assert n_given == [4, 1]


def test_fitted_calibration_and_thresholds_separate_the_validation_tracks():
    targets = np.array([[True, False]] * 6 + [[False, True]] * 6)
    scores = np.where(targets, 0.3, 0.1).astype(np.float32)  # ranked rightly, far too low
    calibration, thresholds = fit_outputs(targets, scores)
    spec = dataclasses.replace(SPEC, vocabulary=("a", "b"), calibration=calibration, thresholds=thresholds)
    given = calibrate(scores, spec.calibration) > np.array(spec.thresholds)
    assert (given == targets).all()
    assert (calibrate(scores, calibration)[targets] > 0.5).all()


@pytest.mark.parametrize("least", [None, np.array([0.9])])
def test_a_tag_without_positive_validation_tracks_is_never_given(least):
    scores = np.linspace(0.9, 0.2, 8, dtype=np.float32)[:, None]
    calibration, thresholds = fit_outputs(np.zeros((8, 1), bool), scores, least)
    assert calibration == ((1.0, 0.0),)
    spec = dataclasses.replace(SPEC, vocabulary=("a",), calibration=calibration, thresholds=thresholds)
    assert not metrics.apply_thresholds(np.ones((1, 1), np.float32), np.array(spec.thresholds)).any()


def test_calibration_of_no_tracks_changes_nothing():
    assert fit_calibration(np.zeros((0, 2), bool), np.zeros((0, 2), np.float32)).tolist() == [[1, 0], [1, 0]]


def test_threshold_is_midway_between_scores():
    # Cuts after 1, 2, 3, 4 tracks have F1 2/3, 1/2, 4/5, 2/3.
    scores, targets = column(0.9, 0.7, 0.6, 0.2), column(1, 0, 1, 0, dtype=bool)
    np.testing.assert_allclose(fit_thresholds(targets, scores), [0.4])


def test_of_equal_thresholds_the_highest_is_returned():
    # F1 is 2/3 after 1 track (precision 1) and after 4 tracks (precision 1/2).
    scores, targets = column(0.9, 0.7, 0.6, 0.2), column(1, 0, 0, 1, dtype=bool)
    np.testing.assert_allclose(fit_thresholds(targets, scores), [0.8])


def test_tracks_of_equal_score_are_not_separated():
    scores, targets = column(0.8, 0.8, 0.8, 0.4), column(1, 0, 0, 0, dtype=bool)
    np.testing.assert_allclose(fit_thresholds(targets, scores), [0.6])


def test_thresholds_of_tags_with_one_class():
    scores = np.array([[0.9, 0.9], [0.5, 0.5]], np.float32)
    targets = np.array([[False, True], [False, True]])
    np.testing.assert_allclose(fit_thresholds(targets, scores), [NEVER, 0.25])


def test_threshold_has_highest_recall_at_minimum_precision():
    # Precision after 1 to 5 tracks: 1, 1/2, 2/3, 3/4, 3/5; the best F1 is after 4.
    scores, targets = column(0.9, 0.8, 0.6, 0.4, 0.1), column(1, 0, 1, 1, 0, dtype=bool)
    for demanded, threshold in [(0.5, 0.25), (0.75, 0.25), (0.76, 0.85), (1.0, 0.85)]:
        np.testing.assert_allclose(fit_thresholds(targets, scores, np.array([demanded])), [threshold])


def test_minimum_precision_of_some_tags():
    scores, targets = column(0.9, 0.8, 0.6, 0.4, 0.1), column(0, 1, 1, 1, 0, dtype=bool)
    fitted = fit_thresholds(np.tile(targets, 3), np.tile(scores, 3), np.array([NAN, 0.76, 0.6]))
    np.testing.assert_allclose(fitted, [0.25, NEVER, 0.25])


def test_no_threshold_has_more_recall_at_minimum_precision():
    rng = np.random.default_rng(0)
    targets = rng.random((40, 6)) < 0.4
    scores = np.round(rng.random((40, 6)) + 0.3 * targets, 1).clip(0, 1).astype(np.float32)
    demanded = np.linspace(0.4, 0.9, 6)
    fitted = fit_thresholds(targets, scores, demanded)
    precision, recall, _ = metrics.precision_recall_f1(targets, metrics.apply_thresholds(scores, fitted))
    never = fitted == NEVER
    assert 0 < never.sum() < 6
    assert (precision[~never] >= demanded[~never]).all()
    for threshold in np.linspace(0, 1, 101):
        precision, other, _ = metrics.precision_recall_f1(
            targets, metrics.apply_thresholds(scores, np.full(6, threshold))
        )
        assert (other <= recall)[precision >= demanded].all()


def test_no_threshold_has_a_better_f1_than_the_fitted_one():
    rng = np.random.default_rng(0)
    targets = rng.random((40, 6)) < 0.3
    scores = np.round(rng.random((40, 6)) + 0.3 * targets, 1).clip(0, 1).astype(np.float32)
    fitted = fit_thresholds(targets, scores)
    best = metrics.precision_recall_f1(targets, metrics.apply_thresholds(scores, fitted))[2]
    for threshold in np.linspace(0, 1, 101):
        f1 = metrics.precision_recall_f1(targets, metrics.apply_thresholds(scores, np.full(6, threshold)))[2]
        assert (np.nan_to_num(f1) <= best + 1e-12).all()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def test_calibration_recovers_scale_and_bias():
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1, 2, (20_000, 2))
    targets = rng.random(true_logits.shape) < sigmoid(true_logits)
    overconfident = sigmoid((true_logits - [0.5, -1]) / [0.4, 1])
    fit = fit_calibration(targets, overconfident)
    np.testing.assert_allclose(fit, [[0.4, 0.5], [1, -1]], atol=0.06)
    assert metrics.log_loss(targets, calibrate(overconfident, fit)) < metrics.log_loss(targets, overconfident)


def test_few_separable_tracks_give_no_steep_scale():
    targets, scores = column(1, 1, 0, 0, 0, dtype=bool), column(0.9, 0.8, 0.2, 0.1, 0.1)
    scale, _ = fit_calibration(targets, scores)[0]
    assert 0.5 < scale < 2


def test_calibration_keeps_the_ranking():
    rng = np.random.default_rng(1)
    targets = rng.random((200, 1)) < 0.5
    against = np.where(targets, 0.1, 0.9) + rng.uniform(-0.05, 0.05, targets.shape)
    fit = fit_calibration(targets, against)
    assert fit[0, 0] > 0
    assert (np.argsort(calibrate(against, fit)[:, 0]) == np.argsort(against[:, 0])).all()


def test_tags_with_one_class_keep_their_scores():
    targets = np.array([[True, False], [True, False]])
    assert fit_calibration(targets, np.full((2, 2), 0.3)).tolist() == [[1, 0], [1, 0]]


def test_saturated_scores_give_finite_calibration():
    targets = column(1, 0, 1, 0, dtype=bool)
    fit = fit_calibration(targets, column(1, 0, 0, 1, dtype=np.float32))
    assert np.isfinite(fit).all()
