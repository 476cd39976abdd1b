import dataclasses

import numpy as np
import pytest

from musictag.evaluation import metrics
from musictag.evaluation.calibration import calibrate, fit_outputs
from small import SPEC


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
    assert not metrics.give(np.ones((1, 1), np.float32), np.array(spec.thresholds)).any()
