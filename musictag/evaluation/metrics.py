"""How good scores are: pure functions from targets and scores to numbers.

Conventions. `targets` is (N, K) bool, the truth; `scores` is (N, K) floating point, probabilities from 0 to 1; N tracks
and K tags. A tag is given to a track where its score is strictly above the tag's threshold. Per-tag functions return
(K,) float64. What the data does not define is NaN, never 0 and never a warning: precision of a tag that is given to no
track, recall and average precision of a tag without a positive track, F1 of a tag with neither, ROC-AUC of a tag whose
tracks are all positive or all negative, calibration error without a track. `macro` is the mean over the tags for which
a value is defined; a micro value is the per-tag function applied to `pooled` arrays, where every pair of track and tag
is one decision.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

EPSILON = 1e-7
"""Scores are kept this far from 0 and 1 where a logarithm is taken."""
LOG_SCALE_SD = 0.7
"""How far calibration expects the log of its scale to be from 0: a factor of 2 either way is ordinary."""
MIN_SHARE = 0.01
"""Who hears nothing takes no tag to be rarer than this, nor its absence."""
NEVER = 1.0
"""The threshold that no score is above."""
N_BINS = 10
"""Bins of equal width into which calibration error sorts scores."""


def give(scores: NDArray[np.floating], thresholds: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which tags are given (N, K), bool: scores (N, K) above thresholds (K,)."""
    return np.asarray(scores > thresholds)


def support(targets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of positive tracks of each tag (K,), int64."""
    return np.asarray(targets.sum(axis=0, dtype=np.int64))


def precision_recall_f1(
    targets: NDArray[np.bool_], given: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each tag, (K,) each; `given` (N, K) is the answer of `give`."""
    return rates((targets & given).sum(axis=0), given.sum(axis=0), targets.sum(axis=0))


def rates(
    hits: NDArray[np.number], n_given: NDArray[np.number], n_positive: NDArray[np.number]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 from counts of tracks, arrays of one shape.

    All three are NaN where no track has the tag, so that the same tags are defined whatever a model gives. Precision is
    0 where some have it and it is never given: who keeps silent on hard tags must not gain by it.
    """
    absent = n_positive == 0
    precision = np.where(absent, np.nan, np.nan_to_num(ratio(hits, n_given)))
    return precision, ratio(hits, n_positive), np.where(absent, np.nan, ratio(2 * hits, n_given + n_positive))


def average_precision(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """PR-AUC of each tag (K,): precision averaged over the steps of recall, without interpolation."""
    from sklearn.metrics import average_precision_score  # here: it takes 2 s, and whoever only tags needs none of it

    return np.array(
        [
            average_precision_score(truth, score) if truth.any() else np.nan
            for truth, score in zip(targets.T, scores.T, strict=True)
        ]
    )


def roc_auc(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """ROC-AUC of each tag (K,): how often a positive track scores above a negative one."""
    from sklearn.metrics import roc_auc_score

    return np.array(
        [
            roc_auc_score(truth, score) if _has_both(truth) else np.nan
            for truth, score in zip(targets.T, scores.T, strict=True)
        ]
    )


def expected_calibration_error(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far scores are from shares of positive tracks, for each tag (K,): 0 at best.

    The mean over `N_BINS` bins of scores, each weighted by its tracks, of |mean score - share of positives| (Naeini,
    Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; Guo et al., "On
    calibration of modern neural networks", ICML 2017). Few tracks make it large by chance alone: a model without any
    error has about 0.07 on 150 tracks and 0.03 on 1000. The `pooled` value, of all tags at once, is much less so.
    """
    return ratio(np.abs(calibration_gaps(targets, scores).sum(axis=1)).sum(axis=0), np.array(len(scores)))


def calibration_gaps(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Score minus truth of every decision, in the bin of its score and 0 in the others: (`N_BINS`, N, K)."""
    bins = np.minimum((scores * N_BINS).astype(np.int64), N_BINS - 1)
    gaps = scores.astype(np.float64) - targets
    return np.where(bins == np.arange(N_BINS)[:, None, None], gaps, 0.0)


def macro(values: NDArray[np.float64]) -> float:
    """Mean of (K,) over the tags for which it is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def pooled(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """All decisions of (N, K) as those of one tag (N * K, 1): the input of a micro value."""
    return values.reshape(-1, 1)


def log_loss(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Mean binary cross-entropy over tracks and tags, in nats; NaN where there is no track."""
    right = np.where(targets, scores, 1.0 - scores.astype(np.float64))
    return float(-np.log(np.clip(right, EPSILON, 1.0)).mean()) if right.size else float("nan")


def validation_metrics(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> dict[str, float]:
    """What training watches: `val_loss` (the lower the better), `val_macro_pr_auc` and `val_macro_roc_auc`."""
    return {
        "val_loss": log_loss(targets, scores),
        "val_macro_pr_auc": macro(average_precision(targets, scores)),
        "val_macro_roc_auc": macro(roc_auc(targets, scores)),
    }


def fit_thresholds(
    targets: NDArray[np.bool_], scores: NDArray[np.floating], min_precision: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The best threshold for each tag (K,); fit it on validation tracks, never on those of the test.

    It lies midway between two neighbouring scores. Of several cuts that are equally good, the highest is taken: it
    gives fewer tags, at better precision. A tag without a positive track gets `NEVER`.

    Args:
        targets: the truth.
        scores: what is to be cut.
        min_precision: (K,), the precision that each tag must reach on these tracks. Best is then the most recall, and
            `NEVER` where no cut reaches it. Where it is NaN or not given, the best F1.
    """
    demanded = np.full(targets.shape[1], np.nan) if min_precision is None else min_precision
    return np.array([_best_cut(*tag) for tag in zip(targets.T, scores.T.astype(np.float64), demanded, strict=True)])


def fit_calibration(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale and bias of each tag (K, 2), so that sigmoid(scale * logit(score) + bias) is a probability.

    Platt scaling with his targets, which keep few tracks from being believed wholly (Platt, "Probabilistic outputs for
    support vector machines", 1999). The log of the scale is fitted under a normal prior around 0 (`LOG_SCALE_SD`): the
    scale is therefore positive, so the ranking never changes, and needs many tracks to get far from 1. A tag whose
    tracks are all positive or all negative keeps its scores: (1, 0).
    """
    fits = [
        _platt(truth, logits) if _has_both(truth) else (1.0, 0.0)
        for truth, logits in zip(targets.T, logit(scores).T, strict=True)
    ]
    return np.array(fits).reshape(-1, 2)


def logit(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 - p)) of scores, float64; those within `EPSILON` of 0 or 1 are moved there first."""
    p = np.clip(scores.astype(np.float64), EPSILON, 1.0 - EPSILON)
    return np.asarray(np.log(p) - np.log1p(-p))


def prior_logits(targets: Sequence[NDArray[np.bool_]] | NDArray[np.bool_]) -> NDArray[np.float32]:
    """The logit (K,) of each tag's share of the tracks (N, K): the guess of who hears nothing; see `MIN_SHARE`."""
    shares = np.mean(targets, axis=0).clip(MIN_SHARE, 1 - MIN_SHARE)
    return np.asarray(np.log(shares / (1 - shares)), dtype=np.float32)


def ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> NDArray[np.float64]:
    """`part / whole` of arrays that broadcast, NaN where `whole` is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    result: NDArray[np.float64] = np.divide(part, whole, out=np.full(shape, np.nan), where=whole > 0)
    return result


def _has_both(targets: NDArray[np.bool_]) -> bool:
    """Whether one tag's targets (N,) hold a positive and a negative."""
    return bool(targets.any() and not targets.all())


def _best_cut(targets: NDArray[np.bool_], scores: NDArray[np.float64], min_precision: float) -> float:
    """The best threshold of one tag: targets (N,), scores (N,), min_precision NaN for none."""
    if not targets.any():
        return NEVER
    order = np.argsort(-scores)
    ranked, hits = scores[order], np.cumsum(targets[order])
    below = np.append(ranked[1:], 0.0)  # a threshold is never negative, so a score of 0 cannot be given
    n_given = np.arange(1, len(hits) + 1)
    if np.isnan(min_precision):
        worth, possible = 2 * hits / (n_given + hits[-1]), ranked > below
    else:
        worth, possible = hits / hits[-1], (ranked > below) & (hits / n_given >= min_precision)
    if not possible.any():
        return NEVER
    best = int(np.argmax(np.where(possible, worth, -1.0)))  # the first, that is the highest, of equals
    return float((ranked[best] + below[best]) / 2)


def _platt(targets: NDArray[np.bool_], logits: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and bias of one tag with positive and negative tracks: targets (N,), logits (N,)."""
    from scipy.optimize import minimize

    n_positive = int(targets.sum())
    n_negative = len(targets) - n_positive
    smoothed = np.where(targets, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss_and_gradient(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_scale, bias = parameters
        calibrated = np.exp(log_scale) * logits + bias
        error = 1 / (1 + np.exp(-np.clip(calibrated, -500, 500))) - smoothed
        loss = np.sum(np.logaddexp(0, calibrated) - smoothed * calibrated) + (log_scale / LOG_SCALE_SD) ** 2 / 2
        slope = np.sum(error * logits) * np.exp(log_scale) + log_scale / LOG_SCALE_SD**2
        return float(loss), np.array([slope, np.sum(error)])

    fit = minimize(loss_and_gradient, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-5, 5), (-50, 50)])
    return float(np.exp(fit.x[0])), float(fit.x[1])
