import numpy as np
import pytest
import torch

from musictag.errors import TrainingError, UsageError
from musictag.evaluation import metrics
from musictag.training import baselines

RNG = np.random.default_rng(3)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the grids small, so that tests are fast."""
    grids = {method: {name: of[:2] for name, of in grid.items()} for method, grid in baselines.GRIDS.items()}
    grids["random-forest"] = {"min_tracks": (1,), "tried": (0.5,), "class_weight": (None,), "n_trees": (12,)}
    grids["classifier-chain"] = {"penalty": (0.1,), "class_weight": (None,), "n_chains": (2,)}
    monkeypatch.setattr(baselines, "GRIDS", grids)
    monkeypatch.setattr(baselines, "TRIALS", {})


def problem(n_tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return descriptors and targets: three learnable tags, one on no track; a constant descriptor."""
    targets = RNG.random((n_tracks, 4)) < [0.5, 0.3, 0.4, 0.0]
    descriptors = RNG.standard_normal((n_tracks, 8)) + 6 * targets[:, [0, 1, 2, 0, 1, 2, 0, 1]]
    descriptors[:, 7] = 5.0
    return descriptors.astype(np.float32), targets


def scores_of(model: torch.nn.Module, descriptors: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(model(torch.from_numpy(descriptors))).numpy()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("method", baselines.GRIDS)
def test_every_method_learns(method: str) -> None:
    train, validation, (descriptors, truth) = problem(120), problem(40), problem(60)
    model, chosen = baselines.fit(method, *train, *validation, seed=0)
    scores = scores_of(model, descriptors)
    assert (metrics.roc_auc(truth, scores)[:3] > 0.97).all()
    assert set(chosen) == set(baselines.GRIDS[method])
    # The tag that no track has gets the lowest prior on every track.
    np.testing.assert_allclose(scores[:, 3], metrics.MIN_SHARE, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("method", baselines.GRIDS)
def test_same_seed_gives_the_same_model(method: str) -> None:
    train, validation = problem(40), problem(20)
    first, again = (baselines.fit(method, *train, *validation, seed=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_tag_on_every_track_gets_the_highest_prior() -> None:
    descriptors, targets = problem(30)
    targets[:, 3] = True
    model = baselines.fit_setting("linear-svm", descriptors, targets, {"penalty": 1.0, "class_weight": None}, 0)
    np.testing.assert_allclose(scores_of(model, descriptors)[:, 3], 1 - metrics.MIN_SHARE, rtol=1e-5)


@pytest.mark.parametrize("method", baselines.GRIDS)
def test_tags_on_all_tracks_or_none_are_refused(method: str) -> None:
    descriptors = problem(10)[0]
    targets = np.tile([True, False], (10, 1))
    with pytest.raises(TrainingError, match="2 tags is on all of the 10 train tracks or on none"):
        baselines.fit(method, descriptors, targets, descriptors, targets, seed=0)


def test_unknown_method_is_refused() -> None:
    descriptors, targets = problem(10)
    with pytest.raises(UsageError, match=r"no method 'svm'; there is classifier-chain, linear-svm"):
        baselines.fit("svm", descriptors, targets, descriptors, targets, seed=0)


def test_best_setting_on_validation_tracks_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = problem(80), problem(40)
    noisy = train[0], RNG.permuted(train[1], axis=0) ^ (RNG.random(train[1].shape) < 0.2)
    grid = {"neighbours": (1, 3, 30)}
    monkeypatch.setitem(baselines.GRIDS, "ml-knn", grid)
    _, chosen = baselines.fit("ml-knn", *noisy, *validation, seed=0)
    pr_auc = {}
    for k in grid["neighbours"]:
        model = baselines.fit_setting("ml-knn", *noisy, {"neighbours": k}, 0)
        pr_auc[k] = metrics.macro(metrics.average_precision(validation[1], scores_of(model, validation[0])))
    assert len(set(pr_auc.values())) > 1
    assert chosen == {"neighbours": max(pr_auc, key=pr_auc.__getitem__)}


def test_validation_tracks_without_tags_give_the_first_setting() -> None:
    descriptors, targets = problem(30)
    _, chosen = baselines.fit("ml-knn", descriptors, targets, descriptors, np.zeros_like(targets), seed=0)
    assert chosen == {"neighbours": baselines.GRIDS["ml-knn"]["neighbours"][0]}


def test_ml_knn_follows_the_published_equations() -> None:
    # Five tracks on a line, one neighbour each: 0-1, 1-0, 2.1-1 (nearer than 3.5), 3.5-2.1, 10-3.5.
    x = np.array([[0.0], [1.0], [2.1], [3.5], [10.0]], np.float32)
    y = np.array([[True], [True], [False], [False], [False]])
    sizes, tensors = baselines.fit_ml_knn(x, y, 0, neighbours=1)
    assert sizes == {"stored": 5, "neighbours": 1}
    # Tracks 0 and 1 have the tag, and so do their neighbours; of the other neighbours only that of 2 does.
    prior = np.log((1 + 2) / (1 + 3))
    none = prior + np.log((1 + 0) / (2 + 2)) - np.log((1 + 2) / (2 + 3))
    one = prior + np.log((1 + 2) / (2 + 2)) - np.log((1 + 1) / (2 + 3))
    np.testing.assert_allclose(tensors["log_odds"], [[none, one]])


def test_thresholds_are_rounded_down_to_float32() -> None:
    thresholds = RNG.standard_normal(1000)
    rounded = baselines._round_down(thresholds)
    assert rounded.dtype == np.float32
    assert (rounded <= thresholds).all()
    assert (np.nextafter(rounded, np.float32(np.inf)) > thresholds).all()
