import math
import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from musictag.evaluation import bootstrap, metrics

GROUPS = ("b", "a", "b", "c", "a", "b", "d")


def made(n_tracks=60, n_tags=5, seed=0):
    """Targets and scores with many ties, and thresholds at some of those."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n_tracks, n_tags)) < 0.3
    scores = np.round(0.6 * rng.random((n_tracks, n_tags)) + 0.3 * targets, 1).astype(np.float32)
    return targets, scores, np.linspace(0.2, 0.6, n_tags)


def test_draws_take_whole_groups():
    weights = bootstrap.draws(GROUPS, 500, seed=1)
    assert weights.shape == (500, 7)
    assert (weights[:, [0]] == weights[:, [2, 5]]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 6]].sum(axis=1) == 4).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)


def test_draws_depend_on_the_seed_and_not_on_track_order():
    weights = bootstrap.draws(GROUPS, 50, seed=1)
    order = [6, 3, 0, 5, 1, 2, 4]
    np.testing.assert_array_equal(bootstrap.draws([GROUPS[n] for n in order], 50, seed=1), weights[:, order])
    assert (bootstrap.draws(GROUPS, 50, seed=2) != weights).any()


@pytest.mark.parametrize("groups", [(), ("a",), ("a", "a", "a")])
def test_fewer_than_two_groups_give_no_draws(groups):
    weights = bootstrap.draws(groups)
    assert weights.shape == (0, len(groups))
    n_tracks = len(groups)
    drawn = bootstrap.figures(np.ones((n_tracks, 2), bool), np.ones((n_tracks, 2)), np.zeros(2), weights)
    assert all(values.shape == (0, 2) for values in drawn.values())
    assert np.isnan(bootstrap.interval(drawn["pr_auc"])).all()
    assert np.isnan(bootstrap.interval(bootstrap.macro(drawn["f1"]))).all()


def test_areas_equal_scikit_learn_with_sample_weights():
    targets, scores, thresholds = made()
    weights = np.random.default_rng(3).integers(0, 4, (5, len(targets)))
    drawn = bootstrap.figures(targets, scores, thresholds, weights)
    for d, weight in enumerate(weights):
        for k in range(targets.shape[1]):
            truth, score = targets[:, k], scores[:, k]
            assert drawn["pr_auc"][d, k] == pytest.approx(average_precision_score(truth, score, sample_weight=weight))
            assert drawn["roc_auc"][d, k] == pytest.approx(roc_auc_score(truth, score, sample_weight=weight))
            given = precision_recall_fscore_support(
                truth, score > thresholds[k], sample_weight=weight, average="binary", zero_division=0
            )
            assert [drawn[name][d, k] for name in ("precision", "recall", "f1")] == pytest.approx(given[:3])


def of_metrics(targets, scores, thresholds):
    precision, recall, f1 = metrics.precision_recall_f1(targets, metrics.apply_thresholds(scores, thresholds))
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "pr_auc": metrics.average_precision(targets, scores),
        "roc_auc": metrics.roc_auc(targets, scores),
    }


@pytest.mark.parametrize("n_tracks", [0, 1, 5, 60])
def test_track_of_weight_w_counts_w_times(n_tracks):
    targets, scores, thresholds = made(n_tracks)
    weights = np.stack([np.ones(n_tracks, int), np.arange(n_tracks) % 3, np.zeros(n_tracks, int)])
    drawn = bootstrap.figures(targets, scores, thresholds, weights)
    errors = bootstrap.pooled_calibration_error(targets, scores, weights)
    for d, weight in enumerate(weights):
        repeated = np.repeat(targets, weight, axis=0), np.repeat(scores, weight, axis=0)
        (error,) = metrics.expected_calibration_error(*map(metrics.pooled, repeated))
        assert errors[d] == pytest.approx(error, nan_ok=True)
        expected = of_metrics(*repeated, thresholds)
        assert drawn.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(drawn[name][d], values, atol=1e-12, err_msg=name)


def test_area_is_nan_for_a_draw_without_positives():
    targets, scores = np.array([[True], [False], [False]]), np.array([[0.9], [0.5], [0.1]])
    drawn = bootstrap.figures(targets, scores, np.array([0.7]), np.array([[0, 1, 2], [3, 0, 0], [1, 1, 1]]))
    np.testing.assert_array_equal(drawn["pr_auc"][:, 0], [math.nan, 1, 1])
    np.testing.assert_array_equal(drawn["roc_auc"][:, 0], [math.nan, math.nan, 1])
    np.testing.assert_array_equal(drawn["f1"][:, 0], [math.nan, 1, 1])


def test_no_tags_give_no_columns():
    drawn = bootstrap.figures(np.ones((3, 0), bool), np.ones((3, 0)), np.ones(0), np.ones((4, 3), int))
    assert {values.shape for values in drawn.values()} == {(4, 0)}
    assert np.isnan(bootstrap.macro(drawn["pr_auc"])).all()


def test_block_size_does_not_change_areas(monkeypatch):
    targets, scores, thresholds = made()
    weights = bootstrap.draws([str(n // 3) for n in range(60)], 50)
    at_once = bootstrap.figures(targets, scores, thresholds, weights)
    monkeypatch.setattr(bootstrap, "BLOCK", 128)
    for name, values in bootstrap.figures(targets, scores, thresholds, weights).items():
        np.testing.assert_array_equal(values, at_once[name])


def test_macro_ignores_undefined_tags():
    values = np.array([[0.5, math.nan, 1.0], [math.nan, math.nan, math.nan]])
    np.testing.assert_array_equal(bootstrap.macro(values), [0.75, math.nan])


def test_interval_holds_95_percent_of_the_defined_draws():
    values = np.full((1002, 3), math.nan)
    values[:1001, 0] = np.arange(1001)[::-1]
    values[:1, 1] = 7
    np.testing.assert_allclose(bootstrap.interval(values), [[25, 7, math.nan], [975, 7, math.nan]])
    np.testing.assert_allclose(bootstrap.interval(values[:1001, 0]), [25, 975])


@pytest.mark.parametrize("tracks_of_a_group", [1, 10])
def test_interval_width_follows_the_number_of_groups(tracks_of_a_group):
    # Recall of 1/2 on so many groups, each of which is wholly right or wholly wrong.
    n_groups = 400
    groups = np.repeat(np.arange(n_groups), tracks_of_a_group).astype(str)
    scores = np.repeat(np.arange(n_groups) % 2, tracks_of_a_group)[:, None].astype(np.float32)
    drawn = bootstrap.figures(np.ones_like(scores, bool), scores, np.array([0.5]), bootstrap.draws(groups))
    low, high = bootstrap.interval(drawn["recall"][:, 0])
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / n_groups), rel=0.1)


def test_undefined_figures_raise_no_warning():
    targets, scores, thresholds = made(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = bootstrap.figures(targets & False, scores, thresholds, bootstrap.draws("abcde"))
        assert np.isnan(bootstrap.interval(drawn["pr_auc"])).all()
