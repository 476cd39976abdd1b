import dataclasses

import numpy as np
import pytest

from musictag.errors import PromotionError
from musictag.evaluation import bootstrap, metrics
from musictag.evaluation.comparison import COMPARED, compare
from musictag.evaluation.results import Evaluation, summary


def evaluate(skill, n_tracks=60, n_tags=3, seed=0, **changes):
    """A model whose scores hold as much of the truth, on tracks of which three are of one artist."""
    targets = np.random.default_rng(0).random((n_tracks, n_tags)) < 0.4
    noise = np.random.default_rng(seed).random((n_tracks, n_tags))
    scores = (skill * targets + (1 - skill) * noise).astype(np.float32)
    fields = {
        "split": "test",
        "track_ids": tuple(f"{n:02d}" for n in range(n_tracks)),
        "groups": tuple(f"artist:{n // 3}" for n in range(n_tracks)),
        "vocabulary": ("jazz", "polka", "rock", "waltz")[:n_tags],
        "targets": targets,
        "scores": scores,
        "raw_scores": scores,
        "thresholds": np.full(n_tags, 0.5),
    }
    return Evaluation(**(fields | changes))


GOOD, POOR = evaluate(0.5, seed=1), evaluate(0.1, seed=2)


def rows(table, figure):
    return {row["tag"]: row for row in table.to_pylist() if row["figure"] == figure}


def test_each_figure_has_a_row_per_tag_and_a_macro_row():
    table = compare(GOOD, POOR)
    assert table["figure"].to_pylist() == [*(figure for figure in COMPARED for _ in range(4)), "ece"]
    assert table["tag"].to_pylist() == [*["jazz", "polka", "rock", None] * len(COMPARED), None]
    for figure in (*COMPARED, "ece"):
        macro = rows(table, figure)[None]
        for who, evaluation in (("candidate", GOOD), ("champion", POOR)):
            value = summary(evaluation)["micro_ece" if figure == "ece" else f"macro_{figure}"]
            assert macro[who] == pytest.approx(value)
        assert macro["difference"] == pytest.approx(macro["candidate"] - macro["champion"])
    of_tag = metrics.average_precision(POOR.targets, POOR.scores)
    assert [row["champion"] for row in rows(table, "pr_auc").values()][:3] == pytest.approx(of_tag)


def test_large_difference_is_clear_in_both_directions():
    better, worse = rows(compare(GOOD, POOR), "pr_auc"), rows(compare(POOR, GOOD), "pr_auc")
    for tag, row in better.items():
        assert row["clear"]
        assert 0 < row["low"] < row["difference"] < row["high"]
        assert worse[tag]["clear"]
        assert (worse[tag]["low"], worse[tag]["high"]) == pytest.approx((-row["high"], -row["low"]))


def test_calibration_error_is_in_its_interval_and_clear_if_large():
    # Scores that are true probabilities, and the same exaggerated: the error of the latter is some 0.09, whatever the
    # draws add to either.
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.5, (150, 20))
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    changes = {"n_tracks": 150, "targets": truth, "vocabulary": tuple(f"{k:02d}" for k in range(20))}
    exact, boastful = (
        evaluate(0, n_tags=20, scores=scores, raw_scores=scores, **changes)
        for scores in ((1 / (1 + np.exp(-scale * logits))).astype(np.float32) for scale in (1, 2))
    )
    row = rows(compare(boastful, exact), "ece")[None]
    assert row["clear"]
    assert 0.03 < row["low"] < row["difference"] < row["high"] < 0.15


def test_tag_without_positives_counts_for_neither_model():
    targets = GOOD.targets & [True, False, True]
    silent = dataclasses.replace(GOOD, targets=targets, thresholds=np.array([0.5, 1.0, 0.5]))
    found = rows(compare(dataclasses.replace(GOOD, targets=targets), silent), "f1")
    assert np.isnan(found["polka"]["difference"])
    assert found[None]["difference"] == found[None]["low"] == found[None]["high"] == 0


def test_model_does_not_differ_from_itself():
    table = compare(GOOD, GOOD)
    assert not any(table["clear"].to_pylist())
    for name in ("difference", "low", "high"):
        assert table[name].to_pylist() == [0] * len(table)


def test_pairing_separates_models_that_fail_on_the_same_artists():
    # Both guess for half of the artists; for the other half one is right and the other nearly.
    hard = np.arange(60)[:, None] // 3 % 2 == 0
    nearly = np.where(np.arange(60)[:, None] % 12 == 3, 0.5, GOOD.targets)
    right = dataclasses.replace(GOOD, scores=np.where(hard, POOR.scores, GOOD.targets).astype(np.float32))
    close = dataclasses.replace(GOOD, scores=np.where(hard, POOR.scores, nearly).astype(np.float32))
    paired = rows(compare(right, close), "pr_auc")[None]
    each = [bootstrap.macro(drawn(evaluation)["pr_auc"]) for evaluation in (right, close)]
    alone = [np.diff(bootstrap.interval(values)) for values in each]
    assert paired["clear"]
    assert paired["high"] - paired["low"] < min(alone) / 2


def drawn(evaluation):
    weights = bootstrap.draws(evaluation.groups)
    return bootstrap.figures(evaluation.targets, evaluation.scores, evaluation.thresholds, weights)


def test_order_of_tracks_and_tags_does_not_matter():
    order = np.random.default_rng(0).permutation(60)
    turned = dataclasses.replace(
        POOR,
        track_ids=tuple(POOR.track_ids[n] for n in order),
        groups=tuple(POOR.groups[n] for n in order),
        vocabulary=POOR.vocabulary[::-1],
        **{name: getattr(POOR, name)[order, ::-1] for name in ("targets", "scores", "raw_scores")},
    )
    for one, other in zip(compare(GOOD, turned).to_pylist(), compare(GOOD, POOR).to_pylist(), strict=True):
        assert one == pytest.approx(other)


def test_tag_known_to_one_model_is_not_compared():
    other = dataclasses.replace(POOR, vocabulary=("jazz", "polka", "rag"))
    found = rows(compare(GOOD, other), "f1")
    assert list(found) == ["jazz", "polka", "rag", "rock", None]
    assert np.isnan([found["rag"]["candidate"], found["rock"]["champion"]]).all()
    assert found["rock"]["candidate"] == rows(compare(GOOD, POOR), "f1")["rock"]["candidate"]
    for tag in ("rag", "rock"):
        assert np.isnan([found[tag][name] for name in ("difference", "low", "high")]).all()
        assert not found[tag]["clear"]
    assert found[None]["candidate"] == pytest.approx((found["jazz"]["candidate"] + found["polka"]["candidate"]) / 2)


def test_models_without_common_tags_have_no_macro():
    found = rows(compare(GOOD, dataclasses.replace(POOR, vocabulary=("a", "b", "c"))), "pr_auc")
    assert np.isnan([found[None][name] for name in ("candidate", "champion", "difference", "low", "high")]).all()


def test_tag_without_a_positive_track_is_not_compared():
    targets = GOOD.targets & [True, False, True]
    new, old = (dataclasses.replace(each, targets=targets) for each in (GOOD, POOR))
    found = rows(compare(new, old), "pr_auc")
    assert np.isnan([found["polka"]["difference"], found["polka"]["low"]]).all()
    assert found[None]["difference"] == pytest.approx((found["jazz"]["difference"] + found["rock"]["difference"]) / 2)


def test_small_evaluations_are_compared():
    one_tag = rows(compare(evaluate(0.5, n_tags=1, seed=1), evaluate(0.1, n_tags=1, seed=2)), "pr_auc")
    assert one_tag["jazz"] == {**one_tag[None], "tag": "jazz"}
    groups = ("artist:x",) * 60
    one_artist = compare(dataclasses.replace(GOOD, groups=groups), dataclasses.replace(POOR, groups=groups))
    assert one_artist["difference"].to_pylist() == pytest.approx(compare(GOOD, POOR)["difference"].to_pylist())
    assert np.isnan(one_artist["low"].to_numpy()).all()
    assert not any(one_artist["clear"].to_pylist())
    five = rows(compare(evaluate(0.5, n_tracks=5), evaluate(0.1, n_tracks=5)), "roc_auc")[None]
    assert five["low"] <= five["difference"] <= five["high"]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"track_ids": ("x", *GOOD.track_ids[1:])}, r"1 tracks only the candidate has \(00\), 1 tracks only"),
        ({"targets": GOOD.targets ^ (np.arange(60)[:, None] == [7, 9, 9])}, r"2 test tracks were relabelled .*07, 09"),
        ({"split": "validation"}, "the champion was evaluated on the validation split"),
    ],
)
def test_incomparable_evaluations_are_refused(changes, difference):
    with pytest.raises(PromotionError, match=difference) as refusal:
        compare(GOOD, dataclasses.replace(GOOD, **changes))
    assert "evaluate both on the same catalog (`python pipelines/evaluate.py --model MODEL`)" in str(refusal.value)
