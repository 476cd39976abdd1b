import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musictag.errors import ModelError, StoreError
from musictag.evaluation import bootstrap
from musictag.evaluation import results as ev


@pytest.fixture
def evaluation():
    return ev.Evaluation(
        split="test",
        track_ids=("a", "b", "ü", "d"),
        groups=("artist:x", "artist:y", "artist:x", "track:d"),
        vocabulary=("jazz", "polka", "rock"),
        targets=np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], bool),
        scores=np.array([[0.9, 0.1, 0.2], [0.6, 0.2, 0.7], [0.4, 0.3, 0.3], [0.1, 0.1, 0.5]], np.float32),
        raw_scores=np.array([[1.0, 0.1, 0.1], [0.7, 0.1, 0.9], [0.5, 0.1, 0.1], [0.0, 0.1, 0.5]], np.float32),
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
        "ece": [(0.1 + 0.6 + 0.6 + 0.1) / 4, (0.2 + 0.2 + 0.3) / 4, (0.2 + 0.3 + 0.7 + 0.5) / 4],
        # Of rock, tracks a and ü share a bin, and one of them is positive.
        "ece_raw": [(0.0 + 0.7 + 0.5 + 0.0) / 4, 0.4 / 4, (0.8 + 0.1 + 0.5) / 4],
        "threshold": [0.5, 1.0, 0.6],
    }
    intervals = [f"{name}_{end}" for name in ev.WITH_INTERVAL for end in ("low", "high")]
    assert [name for name in table.column_names if name not in intervals] == list(expected)
    assert table["tag"].to_pylist() == expected.pop("tag")
    for name, values in expected.items():
        np.testing.assert_allclose(table[name].to_numpy(), values, rtol=1e-6, err_msg=name)


def test_intervals_are_drawn_by_group(evaluation):
    table, summary = ev.per_tag(evaluation), ev.summary(evaluation)
    weights = bootstrap.draws(evaluation.groups)
    drawn = bootstrap.figures(evaluation.targets, evaluation.scores, evaluation.thresholds, weights)
    for name in ev.WITH_INTERVAL:
        low, high = bootstrap.interval(drawn[name])
        np.testing.assert_array_equal(table[f"{name}_low"], low)
        np.testing.assert_array_equal(table[f"{name}_high"], high)
        ends = summary[f"macro_{name}_low"], summary[f"macro_{name}_high"]
        assert ends == tuple(bootstrap.interval(bootstrap.macro(drawn[name])))
        assert ends[0] < summary[f"macro_{name}"] <= ends[1]


def test_has_labels_compares_tracks_and_tags(evaluation):
    tags = {
        track_id: [tag for tag, has in zip(evaluation.vocabulary, row, strict=True) if has]
        for track_id, row in zip(evaluation.track_ids, evaluation.targets, strict=True)
    }
    first = evaluation.track_ids[0]
    assert ev.has_labels(evaluation, tags)
    assert ev.has_labels(evaluation, {**tags, first: [*tags[first], "a word that the model does not know"]})
    assert not ev.has_labels(evaluation, {**tags, first: ["polka"]})
    assert not ev.has_labels(evaluation, {**tags, "one more": ["jazz"]})
    assert not ev.has_labels(evaluation, {name: tags[name] for name in evaluation.track_ids[1:]})


def test_error_of_a_broken_file_names_the_model(evaluation, tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(ev.to_table(evaluation), path)
    assert ev.read(path, "models:/musictag/7").track_ids == evaluation.track_ids
    whole = path.read_bytes()
    for content in (b"not parquet", whole[:-20], whole[:-100] + bytes(60) + whole[-40:]):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="the evaluation of models:/musictag/7: "):
            ev.read(path, "models:/musictag/7")


def test_malformed_metadata_and_columns_are_store_errors(evaluation, tmp_path):
    table = ev.to_table(evaluation)
    path = tmp_path / "scores.parquet"
    no_list = table.set_column(2, "targets", pa.array([1] * len(table)))
    for broken in (table.replace_schema_metadata({ev.METADATA_KEY: b"{"}), no_list):
        pq.write_table(broken, path)
        with pytest.raises(StoreError, match="the evaluation of models:/musictag/7: "):
            ev.read(path, "models:/musictag/7")


def test_tracks_of_one_artist_have_no_intervals(evaluation):
    alone = dataclasses.replace(evaluation, groups=("artist:x",) * 4)
    np.testing.assert_array_equal(ev.per_tag(alone)["f1"], ev.per_tag(evaluation)["f1"])
    for name in ("f1_low", "f1_high", "pr_auc_low", "pr_auc_high"):
        assert np.isnan(ev.per_tag(alone)[name].to_numpy()).all()
        assert np.isnan(ev.summary(alone)[f"macro_{name}"])


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
    # Of all 12 decisions, three are in the bin of 0.1 and two each in those of 0.2 and 0.3, where their gaps add up.
    gaps = [0.3, 0.4, 0.6 - 1, 0.4 - 1, 0.5, 0.6, 0.7 - 1, 0.9 - 1]
    assert summary["micro_ece"] == pytest.approx(sum(map(abs, gaps)) / 12)
    assert summary["macro_ece"] == pytest.approx((1.4 + 0.7 + 1.7) / 12)
    assert summary["macro_ece_raw"] == pytest.approx((1.2 + 0.4 + 1.4) / 12)
    assert summary["micro_roc_auc"] == pytest.approx((8 + 8 + 6 + 5.5) / 32)


def test_five_tracks_and_one_tag_are_judged():
    scores = np.array([[0.9], [0.8], [0.3], [0.2], [0.1]], np.float32)
    few = ev.Evaluation(
        split="test",
        track_ids=tuple("abcde"),
        groups=tuple(f"track:{track}" for track in "abcde"),
        vocabulary=("jazz",),
        targets=np.array([[True], [False], [True], [False], [False]]),
        scores=scores,
        raw_scores=scores,
        thresholds=np.array([0.25]),
    )
    summary = ev.summary(few)
    (row,) = ev.per_tag(few).to_pylist()
    for name, value in {"precision": 2 / 3, "recall": 1, "pr_auc": 5 / 6, "roc_auc": 5 / 6}.items():
        assert row[name] == summary[f"macro_{name}"] == summary[f"micro_{name}"] == pytest.approx(value)
    assert row["pr_auc_low"] < row["pr_auc"] <= row["pr_auc_high"]
    np.testing.assert_array_equal(ev.from_table(ev.to_table(few)).targets, few.targets)


def test_evaluation_survives_a_parquet_file(evaluation, tmp_path):
    pq.write_table(ev.to_table(evaluation), tmp_path / "evaluation.parquet")
    back = ev.from_table(pq.read_table(tmp_path / "evaluation.parquet"))
    for field in dataclasses.fields(ev.Evaluation):
        written, read = getattr(evaluation, field.name), getattr(back, field.name)
        np.testing.assert_array_equal(read, written)
        assert type(read) is type(written)
        if isinstance(read, np.ndarray):
            assert read.dtype == written.dtype


def test_table_has_a_row_per_track(evaluation):
    table = ev.to_table(evaluation)
    assert table.schema.field("targets").type == pa.list_(pa.bool_())
    assert table.schema.field("scores").type == pa.list_(pa.float32())
    assert table.slice(1, 1).to_pylist() == [
        {
            "track_id": "b",
            "group": "artist:y",
            "targets": [False, False, True],
            "scores": pytest.approx([0.6, 0.2, 0.7]),
            "raw_scores": pytest.approx([0.7, 0.1, 0.9]),
        }
    ]


def test_slice_of_the_table_is_read(evaluation):
    part = ev.from_table(ev.to_table(evaluation).slice(2, 2))
    assert part.track_ids == ("ü", "d")
    np.testing.assert_array_equal(part.scores, evaluation.scores[2:])
    np.testing.assert_array_equal(part.targets, evaluation.targets[2:])


def test_evaluation_without_tracks_is_a_table(evaluation):
    arrays = {name: getattr(evaluation, name)[:0] for name in ("targets", "scores", "raw_scores")}
    none = dataclasses.replace(evaluation, track_ids=(), groups=(), **arrays)
    back = ev.from_table(ev.to_table(none))
    assert back.scores.shape == (0, 3)
    assert ev.summary(back)["n_tracks"] == 0
    assert np.isnan(ev.summary(back)["macro_f1"])


@pytest.mark.parametrize("name", ["track_id", "group", "targets", "scores", "raw_scores"])
def test_missing_column_is_named(evaluation, name):
    with pytest.raises(StoreError, match=f"no column {name}: "):
        ev.from_table(ev.to_table(evaluation).drop_columns([name]))


def test_error_of_an_unknown_format_names_the_command(evaluation):
    with pytest.raises(StoreError, match=r"no column group, raw_scores: .*`python pipelines/evaluate\.py`"):
        ev.from_table(ev.to_table(evaluation).drop_columns(["group", "raw_scores"]))


def test_missing_metadata_is_named(evaluation):
    table = ev.to_table(evaluation)
    with pytest.raises(StoreError, match=r"no metadata 'musictag\.evaluation'"):
        ev.from_table(table.replace_schema_metadata(None))
    with pytest.raises(StoreError, match="has no vocabulary, thresholds"):
        ev.from_table(table.replace_schema_metadata({ev.METADATA_KEY: '{"split": "test"}'}))


def test_list_of_another_length_is_refused(evaluation):
    table = ev.to_table(evaluation)
    short = pa.array([[0.1, 0.2]] + [[0.1, 0.2, 0.3]] * 3, pa.list_(pa.float32()))
    with pytest.raises(StoreError, match="scores has a list of 2 values where the vocabulary has 3 tags"):
        ev.from_table(table.set_column(table.column_names.index("scores"), "scores", short))


def test_mismatched_fields_are_refused(evaluation):
    with pytest.raises(ModelError, match=r"scores has shape \(4, 2\)"):
        dataclasses.replace(evaluation, scores=evaluation.scores[:, :2])
    with pytest.raises(ModelError, match=r"raw_scores has shape \(3, 3\)"):
        dataclasses.replace(evaluation, raw_scores=evaluation.raw_scores[:3])
    with pytest.raises(ModelError, match="groups has 3 entries for 4 tracks"):
        dataclasses.replace(evaluation, groups=evaluation.groups[:3])
    with pytest.raises(ModelError, match=r"thresholds has shape \(2,\)"):
        dataclasses.replace(evaluation, thresholds=evaluation.thresholds[:2])
    with pytest.raises(ModelError, match="twice"):
        dataclasses.replace(evaluation, track_ids=("a", "b", "b", "d"))


def test_non_finite_scores_are_refused(evaluation):
    scores = evaluation.scores.copy()
    scores[2, 1] = np.nan
    with pytest.raises(ModelError, match=r"1 tracks.*'ü'"):
        dataclasses.replace(evaluation, scores=scores)
