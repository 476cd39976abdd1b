import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musictag import evaluation as ev
from musictag.errors import ModelError, StoreError


@pytest.fixture
def evaluation():
    return ev.Evaluation(
        split="test",
        track_ids=("a", "b", "ü", "d"),
        vocabulary=("jazz", "polka", "rock"),
        targets=np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], bool),
        scores=np.array([[0.9, 0.1, 0.2], [0.6, 0.2, 0.7], [0.4, 0.3, 0.3], [0.1, 0.1, 0.5]], np.float32),
        thresholds=np.array([0.5, 1.0, 0.6]),
    )


def test_per_tag_by_hand(evaluation):
    table = ev.per_tag(evaluation)
    expected = {
        "tag": ["jazz", "polka", "rock"],
        "support": [2, 0, 2],
        "precision": [1 / 2, np.nan, 1],
        "recall": [1 / 2, np.nan, 1 / 2],
        "f1": [1 / 2, np.nan, 2 / 3],
        "pr_auc": [5 / 6, np.nan, 5 / 6],
        "roc_auc": [3 / 4, np.nan, 3 / 4],
        "threshold": [0.5, 1.0, 0.6],
    }
    assert table.column_names == list(expected)
    assert table["tag"].to_pylist() == expected.pop("tag")
    for name, values in expected.items():
        np.testing.assert_allclose(table[name].to_numpy(), values, err_msg=name)


def test_summary_by_hand(evaluation):
    summary = ev.summary(evaluation)
    assert summary["n_tracks"] == 4
    assert summary["macro_precision"] == pytest.approx(3 / 4)
    assert summary["macro_recall"] == pytest.approx(1 / 2)
    assert summary["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert summary["macro_pr_auc"] == pytest.approx(5 / 6)
    assert summary["micro_precision"] == pytest.approx(2 / 3)
    assert summary["micro_recall"] == pytest.approx(2 / 4)
    assert summary["micro_f1"] == pytest.approx(4 / 7)
    # Positives are ranked 1, 2, 5 and (0.3, tied with a negative) 6 to 7 of all 12 decisions.
    assert summary["micro_pr_auc"] == pytest.approx((1 + 1 + 3 / 5 + 4 / 7) / 4)
    assert summary["micro_roc_auc"] == pytest.approx((8 + 8 + 6 + 5.5) / 32)


def test_an_evaluation_is_one_parquet_file_and_back(evaluation, tmp_path):
    pq.write_table(ev.to_table(evaluation), tmp_path / "evaluation.parquet")
    back = ev.from_table(pq.read_table(tmp_path / "evaluation.parquet"))
    for field in dataclasses.fields(ev.Evaluation):
        written, read = getattr(evaluation, field.name), getattr(back, field.name)
        np.testing.assert_array_equal(read, written)
        assert type(read) is type(written)
        if isinstance(read, np.ndarray):
            assert read.dtype == written.dtype


def test_the_table_has_one_row_per_track(evaluation):
    table = ev.to_table(evaluation)
    assert table.schema.field("targets").type == pa.list_(pa.bool_())
    assert table.schema.field("scores").type == pa.list_(pa.float32())
    assert table.slice(1, 1).to_pylist() == [
        {"track_id": "b", "targets": [False, False, True], "scores": pytest.approx([0.6, 0.2, 0.7])}
    ]


def test_a_part_of_the_table_reads_as_that_part(evaluation):
    part = ev.from_table(ev.to_table(evaluation).slice(2, 2))
    assert part.track_ids == ("ü", "d")
    np.testing.assert_array_equal(part.scores, evaluation.scores[2:])
    np.testing.assert_array_equal(part.targets, evaluation.targets[2:])


def test_no_tracks_are_a_table_too(evaluation):
    none = dataclasses.replace(evaluation, track_ids=(), targets=evaluation.targets[:0], scores=evaluation.scores[:0])
    back = ev.from_table(ev.to_table(none))
    assert back.scores.shape == (0, 3)
    assert ev.summary(back)["n_tracks"] == 0
    assert np.isnan(ev.summary(back)["macro_f1"])


@pytest.mark.parametrize("name", ["track_id", "targets", "scores"])
def test_a_missing_column_is_named(evaluation, name):
    with pytest.raises(StoreError, match=f"no column {name}: "):
        ev.from_table(ev.to_table(evaluation).drop_columns([name]))


def test_missing_metadata_is_named(evaluation):
    table = ev.to_table(evaluation)
    with pytest.raises(StoreError, match=r"no metadata 'musictag\.evaluation'"):
        ev.from_table(table.replace_schema_metadata(None))
    with pytest.raises(StoreError, match="has no vocabulary, thresholds"):
        ev.from_table(table.replace_schema_metadata({ev.METADATA_KEY: '{"split": "test"}'}))


def test_a_list_of_another_length_is_refused(evaluation):
    table = ev.to_table(evaluation)
    short = pa.array([[0.1, 0.2]] + [[0.1, 0.2, 0.3]] * 3, pa.list_(pa.float32()))
    with pytest.raises(StoreError, match="scores has a list of 2 values where the vocabulary has 3 tags"):
        ev.from_table(table.set_column(2, "scores", short))


def test_fields_that_do_not_fit_are_refused(evaluation):
    with pytest.raises(ModelError, match=r"scores has shape \(4, 2\)"):
        dataclasses.replace(evaluation, scores=evaluation.scores[:, :2])
    with pytest.raises(ModelError, match=r"thresholds has shape \(2,\)"):
        dataclasses.replace(evaluation, thresholds=evaluation.thresholds[:2])
    with pytest.raises(ModelError, match="twice"):
        dataclasses.replace(evaluation, track_ids=("a", "b", "b", "d"))


def test_scores_that_are_not_numbers_are_refused(evaluation):
    scores = evaluation.scores.copy()
    scores[2, 1] = np.nan
    with pytest.raises(ModelError, match=r"1 tracks.*'ü'"):
        dataclasses.replace(evaluation, scores=scores)
