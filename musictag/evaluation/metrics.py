"""Metrics: pure functions from targets and scores to numbers.

Conventions. There are N tracks and K tags. `targets` is (N, K) bool, the truth; `scores` is (N, K) floating point,
probabilities from 0 to 1. A track is given a tag if its score is strictly above the tag's threshold. Per-tag functions
return (K,) float64. An undefined value is NaN, never 0 and never a warning: precision, recall, F1 and average precision
of a tag without a positive track, ROC-AUC of a tag whose tracks are all positive or all negative, calibration error
without tracks. `macro` is the mean over the tags with a defined value. A micro value is the per-tag function applied to
`pooled` arrays, in which each pair of track and tag is one decision.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

EPSILON = 1e-7
"""Scores are clipped to this distance from 0 and 1 before a logarithm is taken."""
MIN_SHARE = 0.01
"""Minimum share of tracks that `prior_logits` assumes to have a tag, and to lack it."""
N_BINS = 10
"""Number of equal-width bins of the calibration error."""


def apply_thresholds(scores: NDArray[np.floating], thresholds: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which tags are given (N, K), bool, from scores (N, K) and thresholds (K,)."""
    return np.asarray(scores > thresholds)


def support(targets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of positive tracks of each tag (K,), int64."""
    return np.asarray(targets.sum(axis=0, dtype=np.int64))


def precision_recall_f1(
    targets: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return precision, recall and F1 of each tag, (K,) each; `predicted` (N, K) comes from `apply_thresholds`."""
    return rates((targets & predicted).sum(axis=0), predicted.sum(axis=0), targets.sum(axis=0))


def rates(
    true_positives: NDArray[np.number], n_predicted: NDArray[np.number], n_positive: NDArray[np.number]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return precision, recall and F1 from counts of tracks, arrays of one shape.

    All three are NaN for a tag without a positive track, so that the same tags are defined for every model. Precision
    of a tag that is never given is 0 if it has a positive track: a model must not gain by not giving difficult tags.
    """
    absent = n_positive == 0
    precision = np.where(absent, np.nan, np.nan_to_num(ratio(true_positives, n_predicted)))
    recall = ratio(true_positives, n_positive)
    f1 = np.where(absent, np.nan, ratio(2 * true_positives, n_predicted + n_positive))
    return precision, recall, f1


def average_precision(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the PR-AUC of each tag (K,): average precision, without interpolation."""
    from sklearn.metrics import average_precision_score  # imported here: it takes 2 s, and tagging does not need it

    return np.array(
        [
            average_precision_score(truth, score) if truth.any() else np.nan
            for truth, score in zip(targets.T, scores.T, strict=True)
        ]
    )


def roc_auc(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the ROC-AUC of each tag (K,)."""
    from sklearn.metrics import roc_auc_score

    return np.array(
        [
            roc_auc_score(truth, score) if _has_both(truth) else np.nan
            for truth, score in zip(targets.T, scores.T, strict=True)
        ]
    )


def expected_calibration_error(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the expected calibration error of each tag (K,); 0 is best.

    The mean over `N_BINS` bins of scores, each weighted by its tracks, of |mean score - share of positives| (Naeini,
    Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; Guo et al., "On
    calibration of modern neural networks", ICML 2017). On few tracks it is large by chance: a perfectly calibrated
    model has about 0.07 on 150 tracks and 0.03 on 1000. The `pooled` value over all tags is much less affected.
    """
    return ratio(np.abs(calibration_gaps(targets, scores).sum(axis=1)).sum(axis=0), np.array(len(scores)))


def calibration_gaps(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return score minus truth of every decision in the bin of its score, 0 in the other bins: (`N_BINS`, N, K)."""
    bins = np.minimum((scores * N_BINS).astype(np.int64), N_BINS - 1)
    gaps = scores.astype(np.float64) - targets
    return np.where(bins == np.arange(N_BINS)[:, None, None], gaps, 0.0)


def macro(values: NDArray[np.float64]) -> float:
    """Return the mean over the tags with a defined value; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def pooled(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """Reshape (N, K) to (N * K, 1), all decisions as those of one tag, for micro values."""
    return values.reshape(-1, 1)


def log_loss(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Return the mean binary cross-entropy over tracks and tags, in nats; NaN without tracks."""
    right = np.where(targets, scores, 1.0 - scores.astype(np.float64))
    return float(-np.log(np.clip(right, EPSILON, 1.0)).mean()) if right.size else float("nan")


def validation_metrics(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> dict[str, float]:
    """Return the metrics that training monitors: `val_loss`, `val_macro_pr_auc` and `val_macro_roc_auc`."""
    return {
        "val_loss": log_loss(targets, scores),
        "val_macro_pr_auc": macro(average_precision(targets, scores)),
        "val_macro_roc_auc": macro(roc_auc(targets, scores)),
    }


def prior_logits(targets: Sequence[NDArray[np.bool_]] | NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the logit (K,) of each tag's share of the tracks (N, K), the best constant prediction; see `MIN_SHARE`."""
    shares = np.mean(targets, axis=0).clip(MIN_SHARE, 1 - MIN_SHARE)
    return np.asarray(np.log(shares / (1 - shares)), dtype=np.float32)


def ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> NDArray[np.float64]:
    """Return `part / whole` of arrays that broadcast; NaN where `whole` is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    result: NDArray[np.float64] = np.divide(part, whole, out=np.full(shape, np.nan), where=whole > 0)
    return result


def _has_both(targets: NDArray[np.bool_]) -> bool:
    """Return whether one tag's targets (N,) hold a positive and a negative."""
    return bool(targets.any() and not targets.all())
