"""95 % intervals of metrics by bootstrap over artists.

Tracks of one artist resemble each other, so whole groups of tracks are drawn with replacement (Efron & Tibshirani, "An
Introduction to the Bootstrap", 1993: intervals are percentiles of the draws, chapter 13; independent units are drawn,
chapter 8). A draw is an integer weight for each track: how often its group was drawn. Two models evaluated with the
same weights are paired: the interval of their difference excludes the difficulty of the tracks, which is common to
both.

Conventions are those of `evaluation.metrics`, with D draws: figures are (D, K), NaN where a draw does not define them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from musictag.evaluation import metrics

N_DRAWS = 1000
SEED = 0
"""Fixed, so that the same evaluation always has the same intervals."""
LEVEL = 0.95
BLOCK = 1 << 18
"""Number of weights that are processed at once, so that they fit into the cache."""


def draws(groups: Sequence[str], n_draws: int = N_DRAWS, seed: int = SEED) -> NDArray[np.int64]:
    """Return the weight of each track in each draw (D, N), from the group of each track (N).

    Weights do not depend on the order of the tracks. With fewer than two groups there are no draws, (0, N), and every
    `interval` is NaN.
    """
    names, group_of_track = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return np.zeros((0, len(groups)), dtype=np.int64)
    equal = np.full(len(names), 1 / len(names))
    return np.random.default_rng(seed).multinomial(len(names), equal, size=n_draws)[:, group_of_track]


def figures(
    targets: NDArray[np.bool_],
    scores: NDArray[np.floating],
    thresholds: NDArray[np.float64],
    weights: NDArray[np.integer],
) -> dict[str, NDArray[np.float64]]:
    """Return `precision`, `recall`, `f1`, `pr_auc` and `roc_auc` of each draw and tag, (D, K) each.

    A track of weight w counts as w equal tracks. Weights of 1 give the values of `evaluation.metrics`.

    Args:
        targets: (N, K).
        scores: (N, K).
        thresholds: (K,).
        weights: (D, N), from `draws`.
    """
    counts = weights.astype(np.float64)  # matrix products of integers are slow
    predicted = metrics.apply_thresholds(scores, thresholds)
    true_positives, n_predicted, n_positive = counts @ (targets & predicted), counts @ predicted, counts @ targets
    areas = np.empty((2, *true_positives.shape))
    for k in range(targets.shape[1]):
        areas[:, :, k] = _areas(targets[:, k], scores[:, k], counts)
    precision, recall, f1 = metrics.rates(true_positives, n_predicted, n_positive)
    return {"precision": precision, "recall": recall, "f1": f1, "pr_auc": areas[0], "roc_auc": areas[1]}


def pooled_calibration_error(
    targets: NDArray[np.bool_], scores: NDArray[np.floating], weights: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the calibration error of all decisions in each draw (D,); see `metrics.expected_calibration_error`.

    There is no such function for single tags: their error is a mean of absolute values of few decisions, which every
    draw increases by chance, so that the draws do not lie around it. Pooled over all tags the bias is small; it makes
    the error of a good model slightly too large, and its difference from a bad model slightly too small.
    """
    counts = weights.astype(np.float64)
    gaps = metrics.calibration_gaps(targets, scores).sum(axis=2)  # (bins, N)
    return metrics.ratio(np.abs(counts @ gaps.T).sum(axis=1), counts.sum(axis=1) * targets.shape[1])


def macro(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each draw (D,) over the tags with a defined value, from values (D, K)."""
    defined = ~np.isnan(values)
    return metrics.ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return low and high end (2, ...) of the 95 % interval of values (D, ...); NaN if no draw defines a value."""
    ends = np.full((2, *values.shape[1:]), np.nan)
    defined = ~np.isnan(values).all(axis=0)
    if defined.any():
        ends[:, defined] = np.nanquantile(values[:, defined], ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    return ends


def _areas(
    targets: NDArray[np.bool_], scores: NDArray[np.floating], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return PR-AUC and ROC-AUC (2, D) of one tag in each draw: targets (N,), scores (N,), counts (D, N)."""
    if not len(scores):
        return np.full((2, len(counts)), np.nan)
    order = np.argsort(-scores, kind="stable")
    truth = targets[order]
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # tracks of equal score are not separated
    blocks = np.array_split(counts, max(1, counts.size // BLOCK))
    return np.concatenate([_ranked_areas(truth, block[:, order], ends) for block in blocks], axis=1)


def _ranked_areas(
    truth: NDArray[np.bool_], counts: NDArray[np.float64], ends: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the areas for tracks ranked by score; `ends` holds the last index of each distinct score."""
    true_positives = np.cumsum(counts * truth, axis=1)[:, ends]
    n_predicted = np.cumsum(counts, axis=1)[:, ends]
    false_positives = n_predicted - true_positives
    n_positive, n_negative = true_positives[:, -1], false_positives[:, -1]
    gained = np.diff(true_positives, axis=1, prepend=0.0)
    precision = np.divide(true_positives, n_predicted, out=np.zeros_like(true_positives), where=n_predicted > 0)
    pr_area = (gained * precision).sum(axis=1)
    roc_area = (np.diff(false_positives, axis=1, prepend=0.0) * (true_positives - gained / 2)).sum(axis=1)
    return np.stack([metrics.ratio(pr_area, n_positive), metrics.ratio(roc_area, n_positive * n_negative)])
