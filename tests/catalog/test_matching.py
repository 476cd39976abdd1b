"""Tagged tracks are matched with features; rows of no track are counted."""

import datetime

import pyarrow as pa

import sample_tables
from musictag.catalog.matching import Matches, TrackCount, match_features


def tracks(tags: dict[str, list[str]]) -> pa.Table:
    return pa.table({"track_id": list(tags), "tags": pa.array(tags.values(), pa.list_(pa.string()))})


def test_digests_and_files_of_tagged_tracks_are_found() -> None:
    features = sample_tables.features({"a": "1", "b": "2", "c": None})
    assert match_features(tracks({"a": ["x"], "b": [], "c": ["x"], "d": ["x"]}), features) == Matches(
        digests={"a": "1", "c": None},
        file_by_track={"a": "a.parquet", "c": "c.parquet"},
        row_versions={"a": "1", "c": ""},
        orphaned=TrackCount(0),
    )


def test_ids_that_differ_in_case_or_unicode_form_are_not_matched() -> None:
    features = sample_tables.features({"A": "1", "\u00e9": "2"})
    matches = match_features(tracks({"a": ["x"], "e\u0301": ["x"]}), features)
    assert matches == Matches({}, {}, {}, TrackCount(2, ("A", "\u00e9")))


def test_of_a_track_with_several_rows_the_newest_counts() -> None:
    hours = [datetime.datetime(2026, 1, 1, hour, tzinfo=datetime.UTC) for hour in (2, 3, 1)]
    rows = pa.table(
        {
            "track_id": ["a", "a", "a", "old", "old"],
            "audio_sha256": ["1", "2", "3", "4", "4"],
            "featurized_at": pa.array([*hours, *hours[:2]], pa.timestamp("us", "UTC")),
            "file": ["first", "second", "third", "first", "second"],
        }
    )
    assert match_features(tracks({"a": ["x"]}), rows) == Matches(
        {"a": "2"}, {"a": "second"}, {"a": f"2 {1_000_000 * int(hours[1].timestamp())}"}, TrackCount(1, ("old",))
    )


def test_the_first_of_many_tracks_are_named() -> None:
    assert str(TrackCount.of(f"{n}" for n in range(1_000))) == "1,000 (0, 1, 10, \u2026)"
    assert (str(TrackCount.of([])), str(TrackCount.of("b"))) == ("0", "1 (b)")
