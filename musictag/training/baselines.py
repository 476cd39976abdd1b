"""Fit the methods of `musictag.models.classical` with scikit-learn, on descriptors of whole tracks.

Each method is fitted on the train tracks with every setting of its grid; the setting with the best macro PR-AUC on the
validation tracks is used, the same one for all tags: a choice per tag would overfit, because most tags have only some
dozens of positive tracks.

Shapes: N tracks, D descriptors, K tags, J of them learned; x (N, D) is standardized, y (N, J) is bool.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import threadpoolctl
import torch
from numpy.typing import NDArray

from musictag.errors import TrainingError, UsageError
from musictag.evaluation import metrics
from musictag.features.descriptors import VERSION
from musictag.models.classical import CLASSICAL, Classical, standardize

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Setting = dict[str, Any]
Fit = tuple[dict[str, int], dict[str, NDArray[Any]]]
"""Sizes and tensors of a fitted method, by name."""

# A descriptor with a smaller standard deviation is constant: scaling it would only amplify rounding errors.
MIN_DEVIATION = 1e-6
CLASS_WEIGHTS = (None, "balanced")
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "linear-svm": {"penalty": (0.1, 0.3, 1.0, 3.0, 10.0), "class_weight": CLASS_WEIGHTS},
    "rbf-svm": {
        "penalty": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
        "reach": (0.1, 0.2, 0.4, 0.8),
        "class_weight": CLASS_WEIGHTS,
    },
    "classifier-chain": {"penalty": (0.001, 0.003, 0.01, 0.03), "class_weight": CLASS_WEIGHTS},
    "random-forest": {"min_tracks": (1, 4), "tried": (0.04, 0.2), "class_weight": CLASS_WEIGHTS},
    "ml-knn": {"neighbours": (8, 12, 16, 24, 32, 48)},
}
"""Values to try for the arguments of each method's function. Balanced class weights give the tracks with a tag the same
total weight as those without it."""
TRIALS: dict[str, Setting] = {"classifier-chain": {"n_chains": 2}, "random-forest": {"n_trees": 40}}
"""Smaller models for the search, of the methods that are slow to fit."""


def fit(
    method: str,
    descriptors: Float32,
    targets: Bools,
    validation_descriptors: Float32,
    validation_targets: Bools,
    seed: int,
) -> tuple[Classical, Setting]:
    """Fit a method on train tracks, with the setting of its grid that is best on validation tracks.

    Args:
        method: name in `GRIDS`.
        descriptors: (N, D) of the train tracks.
        targets: (N, K).
        validation_descriptors: (V, D).
        validation_targets: (V, K).
        seed: seed of the random numbers in trees and chains.

    Returns:
        The fitted model and its setting.

    Raises:
        UsageError: the method is unknown.
        TrainingError: each tag is on all train tracks or on none.
    """
    if method not in GRIDS:
        raise UsageError(f"there is no method {method!r}; there is {', '.join(sorted(GRIDS))}")
    x_validation = torch.from_numpy(validation_descriptors)

    def validation_pr_auc(setting: Setting) -> float:
        model = fit_setting(method, descriptors, targets, {**setting, **TRIALS.get(method, {})}, seed)
        with torch.inference_mode():
            scores = model(x_validation).numpy()
        pr_auc = metrics.macro(metrics.average_precision(validation_targets, scores))
        return -1.0 if np.isnan(pr_auc) else pr_auc  # NaN if no validation track has a tag: any setting will do

    grid = GRIDS[method]
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    best = max(settings, key=validation_pr_auc)
    return fit_setting(method, descriptors, targets, best, seed), best


def fit_setting(method: str, descriptors: Float32, targets: Bools, setting: Setting, seed: int) -> Classical:
    """Fit a method with one setting to descriptors (N, D) and targets (N, K). Raises `TrainingError` as `fit` does."""
    learned = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
    if not learned.size:
        raise TrainingError(
            f"each of the {targets.shape[1]} tags is on all of the {len(targets)} train tracks or on none: there is "
            "nothing to learn; label more tracks, or choose other tags"
        )
    deviations = descriptors.std(axis=0)
    common = {
        "mean": descriptors.mean(axis=0),
        "scale": np.where(deviations > MIN_DEVIATION, deviations, 1).astype(np.float32),
        "prior": metrics.prior_logits(targets),
        "learned": learned,
    }
    x = standardize(*map(torch.from_numpy, (descriptors, common["mean"], common["scale"]))).numpy()
    with threadpoolctl.threadpool_limits(1):  # matrices are small: more threads are slower
        sizes, tensors = FITS[method](x, targets[:, learned], seed, **setting)
    sizes |= {"descriptors": descriptors.shape[1], "learned": len(learned)}
    model = CLASSICAL[method](n_mels=1, n_tags=targets.shape[1], described_by=VERSION, sizes=sizes)
    model.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in {**common, **tensors}.items()})
    return model.eval()


def fit_linear_svm(x: Float32, y: Bools, seed: int, *, penalty: float, class_weight: str | None) -> Fit:
    """Fit a `LinearSVM`. The kernel is divided by D, so that a penalty has the same effect for any number D."""
    kernel = x.astype(np.float64) @ x.T / x.shape[1]
    duals, bias = _fit_svms(kernel, y, penalty, class_weight)
    return {}, {"weight": duals @ x / x.shape[1], "bias": bias}


def fit_rbf_svm(x: Float32, y: Bools, seed: int, *, penalty: float, reach: float, class_weight: str | None) -> Fit:
    """Fit an `RBFSVM`; its gamma is `reach` divided by D."""
    gamma = reach / x.shape[1]
    squares = (x.astype(np.float64) ** 2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (x.astype(np.float64) @ x.T)
    duals, bias = _fit_svms(np.exp(-gamma * np.maximum(distances, 0)), y, penalty, class_weight)
    support = np.flatnonzero(duals.any(axis=0))
    tensors = {"gamma": np.array(gamma), "support": x[support], "weight": duals[:, support], "bias": bias}
    return {"support": len(support)}, tensors


def _fit_svms(kernel: Float64, y: Bools, penalty: float, class_weight: str | None) -> tuple[Float64, Float64]:
    """Fit one support vector machine per tag to a kernel (N, N); return weights (J, N) of the tracks and bias (J,)."""
    from sklearn.svm import SVC  # imported here and below only when needed: it takes a second

    duals, bias = np.zeros(y.T.shape), np.zeros(y.shape[1])
    for tag, labels in enumerate(y.T):
        svm = SVC(kernel="precomputed", C=penalty, class_weight=class_weight).fit(kernel, labels)
        duals[tag, svm.support_] = svm.dual_coef_[0]
        bias[tag] = svm.intercept_[0]
    return duals, bias


def fit_chains(x: Float32, y: Bools, seed: int, *, penalty: float, class_weight: str | None, n_chains: int = 10) -> Fit:
    """Fit `ClassifierChains`; each chain has its own random order of tags."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multioutput import ClassifierChain

    n_learned, n_descriptors = y.shape[1], x.shape[1]
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(n_learned) for _ in range(n_chains)])
    weight, bias = np.zeros((n_chains, n_learned, n_descriptors)), np.zeros((n_chains, n_learned))
    chained = np.zeros((n_chains, n_learned, n_learned))
    link = LogisticRegression(C=penalty, class_weight=class_weight, max_iter=2000)
    for chain in range(n_chains):
        fitted = ClassifierChain(link, order=order[chain].tolist()).fit(x, y)
        for position, regression in enumerate(fitted.estimators_):
            weight[chain, position] = regression.coef_[0, :n_descriptors]
            chained[chain, position, :position] = regression.coef_[0, n_descriptors:]
            bias[chain, position] = regression.intercept_[0]
    return {"chains": n_chains}, {"order": order, "weight": weight, "chained": chained, "bias": bias}


def fit_forest(
    x: Float32,
    y: Bools,
    seed: int,
    *,
    min_tracks: int,
    tried: float,
    class_weight: str | None,
    n_trees: int = 200,
) -> Fit:
    """Fit a `RandomForest`.

    Each leaf has at least `min_tracks` tracks; each node chooses from a share `tried` of the descriptors.
    """
    from sklearn.ensemble import RandomForestClassifier

    forests = RandomForestClassifier(
        n_trees,
        min_samples_leaf=min_tracks,
        max_features=tried,
        class_weight=class_weight,
        n_jobs=-1,
        random_state=seed,
    )
    trees = [estimator.tree_ for labels in y.T for estimator in forests.fit(x, labels).estimators_]
    first = np.cumsum([0, *(tree.node_count for tree in trees)])
    child = [np.stack([tree.children_left, tree.children_right], axis=1) for tree in trees]
    is_leaf = [children[:, 0] < 0 for children in child]
    self_index = [np.arange(len(children))[:, None] for children in child]  # a leaf is its own child
    tensors = {
        "root": first[:-1].reshape(y.shape[1], n_trees),
        "descriptor": np.concatenate([np.maximum(tree.feature, 0) for tree in trees]),
        "threshold": _round_down(np.concatenate([tree.threshold for tree in trees])),
        "child": np.concatenate(
            [start + np.where(leaf[:, None], index, children)
             for start, leaf, index, children in zip(first, is_leaf, self_index, child, strict=False)]
        ),
        "share": np.concatenate([tree.value[:, 0, 1] for tree in trees]),
    }  # fmt: skip
    depth = max(1, *(tree.max_depth for tree in trees))
    return {"trees": n_trees, "nodes": int(first[-1]), "depth": int(depth)}, tensors


def _round_down(thresholds: Float64) -> Float32:
    """Return the greatest float32 that is not above each threshold.

    A float32 value is above the result if and only if it is above the threshold.
    """
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def fit_ml_knn(x: Float32, y: Bools, seed: int, *, neighbours: int, smoothing: float = 1.0) -> Fit:
    """Fit an `MLkNN`: counts of Zhang & Zhou's equations, plus `smoothing`. Fewer tracks give fewer neighbours."""
    neighbours = min(neighbours, len(x) - 1)
    stored = torch.from_numpy(x)
    # An infinite distance to itself: a track is not its own neighbour.
    distances = torch.cdist(stored, stored).fill_diagonal_(torch.inf)
    nearest = distances.topk(neighbours, largest=False).indices.numpy()
    counts = y[nearest].sum(axis=1)  # (N, J)
    has_count = counts[:, :, None] == np.arange(neighbours + 1)  # (N, J, neighbours + 1)
    odds = (smoothing + y.sum(axis=0)) / (smoothing + (~y).sum(axis=0))
    log_odds = (
        np.log(odds)[:, None] + _log_likelihood(has_count, y, smoothing) - _log_likelihood(has_count, ~y, smoothing)
    )
    return {"stored": len(x), "neighbours": neighbours}, {"stored": x, "targets": y, "log_odds": log_odds}


def _log_likelihood(has_count: Bools, selected: Bools, smoothing: float) -> Float64:
    """Return the log probability (J, counts) of each count (N, J, counts) among the selected tracks (N, J)."""
    tracks = (has_count & selected[:, :, None]).sum(axis=0) + smoothing
    return np.asarray(np.log(tracks / tracks.sum(axis=1, keepdims=True)))


FITS: dict[str, Callable[..., Fit]] = {
    "linear-svm": fit_linear_svm,
    "rbf-svm": fit_rbf_svm,
    "classifier-chain": fit_chains,
    "random-forest": fit_forest,
    "ml-knn": fit_ml_knn,
}
