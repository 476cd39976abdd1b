"""Tagged tracks are matched with features; rows of no track are counted."""

import pyarrow as pa

import sample_tables
from musictag.catalog.matching import TrackCount, match_features


def tracks(tags: dict[str, list[str]]) -> pa.Table:
    return pa.table({"track_id": list(tags), "tags": pa.array(tags.values(), pa.list_(pa.string()))})


def test_digests_of_tagged_tracks_are_found() -> None:
    features = sample_tables.features({"a": "1", "b": "2", "c": None})
    assert match_features(tracks({"a": ["x"], "b": [], "c": ["x"], "d": ["x"]}), features) == (
        {"a": "1", "c": None},
        TrackCount(0),
    )


def test_ids_that_differ_in_case_or_unicode_form_are_not_matched() -> None:
    features = sample_tables.features({"A": "1", "\u00e9": "2"})
    digests, orphaned = match_features(tracks({"a": ["x"], "e\u0301": ["x"]}), features)
    assert (digests, orphaned) == ({}, TrackCount(2, ("A", "\u00e9")))


def test_a_track_with_two_rows_is_counted_once() -> None:
    row = sample_tables.features({"old": "1"})
    _, orphaned = match_features(tracks({"a": ["x"]}), pa.concat_tables([row, row]))
    assert orphaned == TrackCount(1, ("old",))


def test_the_first_of_many_tracks_are_named() -> None:
    assert str(TrackCount.of(f"{n}" for n in range(1_000))) == "1,000 (0, 1, 10, \u2026)"
    assert (str(TrackCount.of([])), str(TrackCount.of("b"))) == ("0", "1 (b)")
