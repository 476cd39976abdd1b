"""Fitting the methods of `musictag.models.architectures.classical`, by scikit-learn, on descriptors of whole tracks.

Each method is fitted with every choice of its grid on the train tracks; the choice with the best macro PR-AUC on the
validation tracks stays, one for all tags: chosen tag by tag, it would follow the noise of some dozens of positives.

Shapes: N tracks, D descriptors, K tags, J of them learned; x (N, D) is standardized, y (N, J) bool.
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
Choice = dict[str, Any]
# The sizes and tensors that are a method's own, by name.
Fit = tuple[dict[str, int], dict[str, NDArray[Any]]]

# A descriptor that varies less is a constant: to divide by its deviation would blow up rounding.
FLAT = 1e-6
WEIGHTS = (None, "balanced")
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "linear-svm": {"penalty": (0.1, 0.3, 1.0, 3.0, 10.0), "class_weight": WEIGHTS},
    "rbf-svm": {"penalty": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), "reach": (0.1, 0.2, 0.4, 0.8), "class_weight": WEIGHTS},
    "classifier-chain": {"penalty": (0.001, 0.003, 0.01, 0.03), "class_weight": WEIGHTS},
    "random-forest": {"min_tracks": (1, 4), "tried": (0.04, 0.2), "class_weight": WEIGHTS},
    "ml-knn": {"neighbours": (8, 12, 16, 24, 32, 48)},
}
"""What is tried of each method, by the names of its function's arguments. Balanced weights let the tracks that have a
tag count as much, all together, as those that have not."""
TRIALS: dict[str, Choice] = {"classifier-chain": {"n_chains": 2}, "random-forest": {"n_trees": 40}}
"""What choices are compared with, where fitting each of them in full would take long."""


def fit(
    method: str,
    descriptors: Float32,
    targets: Bools,
    validation_descriptors: Float32,
    validation_targets: Bools,
    seed: int,
) -> tuple[Classical, Choice]:
    """Fit a method on train tracks; what its grid leaves open is chosen on validation tracks.

    Args:
        method: a name in `GRIDS`.
        descriptors: (N, D) of the train tracks.
        targets: (N, K).
        validation_descriptors: (V, D).
        validation_targets: (V, K).
        seed: decides what is random in trees and chains.

    Returns:
        The fitted model, and the choice that it was fitted with.

    Raises:
        UsageError: an unknown method.
        TrainingError: no tag tells train tracks apart.
    """
    if method not in GRIDS:
        raise UsageError(f"there is no method {method!r}; there is {', '.join(sorted(GRIDS))}")
    heard = torch.from_numpy(validation_descriptors)

    def worth(choice: Choice) -> float:
        model = fit_choice(method, descriptors, targets, {**choice, **TRIALS.get(method, {})}, seed)
        with torch.inference_mode():
            scores = model(heard).numpy()
        pr_auc = metrics.macro(metrics.average_precision(validation_targets, scores))
        return -1.0 if np.isnan(pr_auc) else pr_auc  # no validation track has a tag: the first choice is as good

    grid = GRIDS[method]
    choices = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    chosen = max(choices, key=worth)
    return fit_choice(method, descriptors, targets, chosen, seed), chosen


def fit_choice(method: str, descriptors: Float32, targets: Bools, choice: Choice, seed: int) -> Classical:
    """The model of one choice, from descriptors (N, D) and targets (N, K). Raises `TrainingError` as `fit` does."""
    learned = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
    if not learned.size:
        raise TrainingError(
            f"each of the {targets.shape[1]} tags is on all of the {len(targets)} train tracks or on none: there is "
            "nothing to tell apart; label more tracks, or learn other tags"
        )
    deviations = descriptors.std(axis=0)
    common = {
        "mean": descriptors.mean(axis=0),
        "scale": np.where(deviations > FLAT, deviations, 1).astype(np.float32),
        "prior": metrics.prior_logits(targets),
        "learned": learned,
    }
    x = standardize(*(torch.from_numpy(of) for of in (descriptors, common["mean"], common["scale"]))).numpy()
    with threadpoolctl.threadpool_limits(1):  # what is multiplied is small: threads would wait for each other
        sizes, own = FITS[method](x, targets[:, learned], seed, **choice)
    sizes |= {"descriptors": descriptors.shape[1], "learned": len(learned)}
    model = CLASSICAL[method](n_mels=1, n_tags=targets.shape[1], described_by=VERSION, sizes=sizes)
    model.load_state_dict({name: torch.from_numpy(np.asarray(of)) for name, of in {**common, **own}.items()})
    return model.eval()


def fit_linear_svm(x: Float32, y: Bools, seed: int, *, penalty: float, class_weight: str | None) -> Fit:
    """See `LinearSVM`. Kernels are divided by D, so that penalties mean the same for any number of descriptors."""
    kernel = x.astype(np.float64) @ x.T / x.shape[1]
    duals, bias = _machines(kernel, y, penalty, class_weight)
    return {}, {"weight": duals @ x / x.shape[1], "bias": bias}


def fit_rbf_svm(x: Float32, y: Bools, seed: int, *, penalty: float, reach: float, class_weight: str | None) -> Fit:
    """See `RBFSVM`; gamma is `reach` divided by D."""
    gamma = reach / x.shape[1]
    squares = (x.astype(np.float64) ** 2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (x.astype(np.float64) @ x.T)
    duals, bias = _machines(np.exp(-gamma * np.maximum(distances, 0)), y, penalty, class_weight)
    support = np.flatnonzero(duals.any(axis=0))
    tensors = {"gamma": np.array(gamma), "support": x[support], "weight": duals[:, support], "bias": bias}
    return {"support": len(support)}, tensors


def _machines(kernel: Float64, y: Bools, penalty: float, class_weight: str | None) -> tuple[Float64, Float64]:
    """Weights (J, N) of the train tracks and bias (J,) of the support vector machines over a kernel (N, N)."""
    from sklearn.svm import SVC  # here, as below: it takes a second, and whoever only tags needs none of it

    duals, bias = np.zeros(y.T.shape), np.zeros(y.shape[1])
    for tag, truth in enumerate(y.T):
        machine = SVC(kernel="precomputed", C=penalty, class_weight=class_weight).fit(kernel, truth)
        duals[tag, machine.support_] = machine.dual_coef_[0]
        bias[tag] = machine.intercept_[0]
    return duals, bias


def fit_chains(x: Float32, y: Bools, seed: int, *, penalty: float, class_weight: str | None, n_chains: int = 10) -> Fit:
    """See `ClassifierChains`; every chain has an order of its own, drawn by the seed."""
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
        for place, regression in enumerate(fitted.estimators_):
            weight[chain, place] = regression.coef_[0, :n_descriptors]
            chained[chain, place, :place] = regression.coef_[0, n_descriptors:]
            bias[chain, place] = regression.intercept_[0]
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
    """See `RandomForest`; a leaf has `min_tracks` or more, a node chooses from a share `tried` of the descriptors."""
    from sklearn.ensemble import RandomForestClassifier

    forests = RandomForestClassifier(
        n_trees,
        min_samples_leaf=min_tracks,
        max_features=tried,
        class_weight=class_weight,
        n_jobs=-1,
        random_state=seed,
    )
    trees = [grown.tree_ for truth in y.T for grown in forests.fit(x, truth).estimators_]
    first = np.cumsum([0, *(tree.node_count for tree in trees)])
    child = [np.stack([tree.children_left, tree.children_right], axis=1) for tree in trees]
    is_leaf = [of[:, 0] < 0 for of in child]
    itself = [np.arange(len(of))[:, None] for of in child]
    tensors = {
        "root": first[:-1].reshape(y.shape[1], n_trees),
        "descriptor": np.concatenate([np.maximum(tree.feature, 0) for tree in trees]),
        "threshold": _rounded_down(np.concatenate([tree.threshold for tree in trees])),
        "child": np.concatenate(
            [begin + np.where(leaf[:, None], own, of)
             for begin, leaf, own, of in zip(first, is_leaf, itself, child, strict=False)]
        ),
        "share": np.concatenate([tree.value[:, 0, 1] for tree in trees]),
    }  # fmt: skip
    depth = max(1, *(tree.max_depth for tree in trees))
    return {"trees": n_trees, "nodes": int(first[-1]), "depth": int(depth)}, tensors


def _rounded_down(thresholds: Float64) -> Float32:
    """The greatest float32 not above each: float32 numbers are on the same side of it as of the threshold."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def fit_ml_knn(x: Float32, y: Bools, seed: int, *, neighbours: int, smoothing: float = 1.0) -> Fit:
    """See `MLkNN`: the counts of Zhang & Zhou's equations, begun at `smoothing`. Few tracks have fewer neighbours."""
    neighbours = min(neighbours, len(x) - 1)
    stored = torch.from_numpy(x)
    # With its own distance out of the way a track is no neighbour of itself.
    distances = torch.cdist(stored, stored).fill_diagonal_(torch.inf)
    nearest = distances.topk(neighbours, largest=False).indices.numpy()
    counts = y[nearest].sum(axis=1)  # (N, J)
    seen = counts[:, :, None] == np.arange(neighbours + 1)  # (N, J, neighbours + 1)
    odds = (smoothing + y.sum(axis=0)) / (smoothing + (~y).sum(axis=0))
    log_odds = np.log(odds)[:, None] + _log_likelihood(seen, y, smoothing) - _log_likelihood(seen, ~y, smoothing)
    return {"stored": len(x), "neighbours": neighbours}, {"stored": x, "targets": y, "log_odds": log_odds}


def _log_likelihood(seen: Bools, having: Bools, smoothing: float) -> Float64:
    """Log probability (J, counts) of each count among the tracks `having` (N, J) of what is seen (N, J, counts)."""
    tracks = (seen & having[:, :, None]).sum(axis=0) + smoothing
    return np.asarray(np.log(tracks / tracks.sum(axis=1, keepdims=True)))


FITS: dict[str, Callable[..., Fit]] = {
    "linear-svm": fit_linear_svm,
    "rbf-svm": fit_rbf_svm,
    "classifier-chain": fit_chains,
    "random-forest": fit_forest,
    "ml-knn": fit_ml_knn,
}
