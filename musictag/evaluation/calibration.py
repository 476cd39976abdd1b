"""Calibration and thresholds: scores to probabilities to tags, fitted on validation tracks.

Conventions are those of `evaluation.metrics`: `targets` (N, K) bool, `scores` (N, K), one calibration and one threshold
for each of K tags.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musictag.evaluation import metrics

Float32 = npt.NDArray[np.float32]

LOG_SCALE_SD = 0.7
"""Standard deviation of the prior of calibration's log scale: a factor of 2 in either direction is usual."""
NEVER = 1.0
"""Threshold that no score exceeds."""


def calibrate(scores: Float32, calibration: Sequence[tuple[float, float]]) -> Float32:
    """Return probabilities (..., K): sigmoid(scale * logit(score) + bias), with one (scale, bias) per tag.

    Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    scale, bias = np.asarray(calibration, dtype=np.float64).T
    logits = scale * logit(scores) + bias
    # Equal to 1 / (1 + exp(-logits)), but without overflow.
    calibrated: Float32 = (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32)
    return calibrated


def fit_outputs(
    targets: npt.NDArray[np.bool_], scores: Float32, min_precision: npt.NDArray[np.float64] | None = None
) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Fit calibration and thresholds (see `TaggerSpec`) on targets and joined scores (N, K) of validation tracks.

    For `min_precision` (K,) see `fit_thresholds`.
    """
    calibration = tuple((float(scale), float(bias)) for scale, bias in fit_calibration(targets, scores))
    thresholds = fit_thresholds(targets, calibrate(scores, calibration), min_precision)
    return calibration, tuple(map(float, thresholds))


def fit_thresholds(
    targets: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.floating],
    min_precision: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the best threshold of each tag (K,), fitted on validation tracks (never on test tracks).

    A threshold lies midway between two neighbouring scores. Of equally good thresholds the highest is returned, which
    gives fewer tags at higher precision. A tag without a positive track gets `NEVER`.

    Args:
        targets: (N, K).
        scores: (N, K), calibrated.
        min_precision: (K,), minimum precision of each tag on these tracks. The best threshold then has the highest
            recall, or is `NEVER` if none reaches the precision. For a tag with NaN, and without this argument, the best
            threshold has the highest F1.
    """
    demanded = np.full(targets.shape[1], np.nan) if min_precision is None else min_precision
    return np.array([_best_cut(*tag) for tag in zip(targets.T, scores.T.astype(np.float64), demanded, strict=True)])


def fit_calibration(targets: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Fit scale and bias of each tag (K, 2), so that sigmoid(scale * logit(score) + bias) is a probability.

    Platt scaling with smoothed targets, which prevent overconfidence on few tracks (Platt, "Probabilistic outputs for
    support vector machines", 1999). The log of the scale has a normal prior around 0 (`LOG_SCALE_SD`): the scale is
    positive, so that the ranking never changes, and moves far from 1 only if there are many tracks. A tag whose tracks
    are all positive or all negative gets (1, 0), which leaves scores unchanged.
    """
    fits = [
        _platt(truth, logits) if truth.any() and not truth.all() else (1.0, 0.0)
        for truth, logits in zip(targets.T, logit(scores).T, strict=True)
    ]
    return np.array(fits).reshape(-1, 2)


def logit(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return log(p / (1 - p)) of scores, float64; scores are clipped to `metrics.EPSILON` from 0 and 1."""
    p = np.clip(scores.astype(np.float64), metrics.EPSILON, 1.0 - metrics.EPSILON)
    return np.asarray(np.log(p) - np.log1p(-p))


def _best_cut(targets: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], min_precision: float) -> float:
    """Return the best threshold of one tag: targets (N,), scores (N,), min_precision NaN for none."""
    if not targets.any():
        return NEVER
    order = np.argsort(-scores)
    ranked, true_positives = scores[order], np.cumsum(targets[order])
    below = np.append(ranked[1:], 0.0)  # thresholds are not negative, so a score of 0 is never given
    n_predicted = np.arange(1, len(true_positives) + 1)
    if np.isnan(min_precision):
        objective, possible = 2 * true_positives / (n_predicted + true_positives[-1]), ranked > below
    else:
        precise = true_positives / n_predicted >= min_precision
        objective, possible = true_positives / true_positives[-1], (ranked > below) & precise
    if not possible.any():
        return NEVER
    best = int(np.argmax(np.where(possible, objective, -1.0)))  # the first of equals is the highest
    return float((ranked[best] + below[best]) / 2)


def _platt(targets: npt.NDArray[np.bool_], logits: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Fit scale and bias of one tag with positive and negative tracks: targets (N,), logits (N,)."""
    from scipy.optimize import minimize

    n_positive = int(targets.sum())
    n_negative = len(targets) - n_positive
    smoothed = np.where(targets, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss_and_gradient(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        log_scale, bias = parameters
        calibrated = np.exp(log_scale) * logits + bias
        error = 1 / (1 + np.exp(-np.clip(calibrated, -500, 500))) - smoothed
        loss = np.sum(np.logaddexp(0, calibrated) - smoothed * calibrated) + (log_scale / LOG_SCALE_SD) ** 2 / 2
        slope = np.sum(error * logits) * np.exp(log_scale) + log_scale / LOG_SCALE_SD**2
        return float(loss), np.array([slope, np.sum(error)])

    fit = minimize(loss_and_gradient, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-5, 5), (-50, 50)])
    return float(np.exp(fit.x[0])), float(fit.x[1])
