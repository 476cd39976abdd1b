"""Calibration: from scores to probabilities, fitted on validation tracks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musictag.evaluation import metrics

Float32 = npt.NDArray[np.float32]


def calibrate(scores: Float32, calibration: Sequence[tuple[float, float]]) -> Float32:
    """Return probabilities (..., K): sigmoid(scale * logit(score) + bias), with one (scale, bias) per tag.

    Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    scale, bias = np.asarray(calibration, dtype=np.float64).T
    logits = scale * metrics.logit(scores) + bias
    # Equal to 1 / (1 + exp(-logits)), but without overflow.
    calibrated: Float32 = (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32)
    return calibrated


def fit_outputs(
    targets: npt.NDArray[np.bool_], scores: Float32, min_precision: npt.NDArray[np.float64] | None = None
) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Fit calibration and thresholds (see `TaggerSpec`) on targets and joined scores (N, K) of validation tracks.

    For `min_precision` (K,) see `metrics.fit_thresholds`.
    """
    calibration = tuple((float(scale), float(bias)) for scale, bias in metrics.fit_calibration(targets, scores))
    thresholds = metrics.fit_thresholds(targets, calibrate(scores, calibration), min_precision)
    return calibration, tuple(map(float, thresholds))
