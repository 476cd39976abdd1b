"""The same audio is never learned from and tested on."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sample_tables
from musictag.catalog import validation
from musictag.catalog.matching import TrackCount
from musictag.catalog.splits import SPLITS, Labels, folds, tags_by_split
from musictag.catalog.twins import learned_elsewhere, merge_groups
from musictag.storage import tables


def labels_of(uri: str, rows: list[dict[str, object]], digests: dict[str, str | None]) -> Labels:
    """Return the labels of rows; each has a tag."""
    fields = [{"uri": "a.mp3", "tags": ["x"], **row} for row in rows]
    return tags_by_split(pa.Table.from_pylist(fields, validation.SCHEMA), sample_tables.features(digests), uri)


def split_of(labels: Labels) -> dict[str, str]:
    return {track_id: split for split in SPLITS for track_id in labels.tags[split]}


ALBUM = [{"track_id": f"{artist}-{n}", "artist": f"artist {artist}"} for artist in range(12) for n in range(2)]


def test_album_and_compilation_are_in_one_split(tmp_path) -> None:
    compilation = [{"track_id": f"various-{n}", "artist": "Various"} for n in range(3)]
    digests = {str(row["track_id"]): f"sha of {row['track_id']}" for row in ALBUM}
    digests |= {"various-0": digests["3-0"], "various-1": digests["7-1"], "various-2": "its own"}
    labels = labels_of(str(tmp_path / "splits"), ALBUM + compilation, digests)
    splits = split_of(labels)
    assert len(splits) == 27
    assert {splits[track] for track in ("3-0", "3-1", "7-0", "7-1", "various-0", "various-1", "various-2")} == {
        splits["3-0"]
    }
    assert labels.twins == TrackCount(0)
    for fold in folds(labels, 3):
        together = {track for track in ("3-0", "7-1", "various-2") if track in fold["validation"]}
        assert len(together) in (0, 3) or splits["3-0"] == "test"


def test_twins_of_artists_with_different_splits_are_in_one_fold(tmp_path) -> None:
    rows = [
        {"track_id": "t1", "artist": "G", "split": "train"},
        {"track_id": "g2", "artist": "G", "split": "test"},
        *({"track_id": name, "artist": "H", "split": "train"} for name in ("t2", "h0", "h1")),
        *({"track_id": f"o{n}", "artist": f"O{n}", "split": "train"} for n in range(4)),
    ]
    digests = {**dict.fromkeys(str(row["track_id"]) for row in rows), "t1": "1", "t2": "1"}
    labels = labels_of(str(tmp_path / "splits"), rows, digests)
    for n_folds in (2, 3, 5):
        assert all(("t1" in fold["validation"]) == ("t2" in fold["validation"]) for fold in folds(labels, n_folds))


def test_twin_in_a_given_split_is_left_out_and_named(tmp_path) -> None:
    rows = [
        {"track_id": "album", "artist": "A", "split": "train"},
        {"track_id": "compilation", "artist": "B", "split": "test"},
        {"track_id": "live", "artist": "C", "split": "validation"},
        {"track_id": "other", "artist": "D", "split": "test"},
    ]
    labels = labels_of(str(tmp_path / "splits"), rows, {"album": "1", "compilation": "1", "live": "1", "other": "2"})
    assert split_of(labels) == {"album": "train", "other": "test"}
    assert labels.twins == TrackCount(2, ("compilation", "live"))
    assert str(labels).endswith(", 2 (compilation, live) with the same audio as a track of another split")


def test_stored_split_is_kept_and_the_twin_of_a_new_artist_follows_it(tmp_path) -> None:
    uri = str(tmp_path / "splits")
    before = split_of(labels_of(uri, ALBUM, dict.fromkeys(str(row["track_id"]) for row in ALBUM)))
    test_track = next(track for track, split in before.items() if split == "test")
    digests = {**dict.fromkeys(before), test_track: "1", "new": "1"}
    after = split_of(labels_of(uri, [*ALBUM, {"track_id": "new", "artist": "A new one"}], digests))
    assert after == before | {"new": "test"}
    assert tables.read_columns(uri, ("group",)).num_rows == 13


tracks = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.sampled_from(["1", "2", "3", None]), st.sampled_from([*SPLITS, None])),
    max_size=12,
)


@pytest.mark.slow
@settings(deadline=None)
@given(tracks)
def test_no_audio_is_in_two_splits_for_any_catalog(tmp_path_factory, catalog) -> None:
    rows = [{"track_id": str(n), "artist": artist, "split": split} for n, (artist, _, split) in enumerate(catalog)]
    digests = {str(n): digest for n, (_, digest, _) in enumerate(catalog)}
    labels = labels_of(str(tmp_path_factory.mktemp("any") / "splits"), rows, digests)
    splits = split_of(labels)
    for digest in "123":
        assert len({split for track, split in splits.items() if digests[track] == digest}) <= 1
    assert len(splits.keys() & digests.keys()) + labels.twins.n == len(digests)
    assert all(splits[str(n)] == split for n, (_, _, split) in enumerate(catalog) if split and str(n) in splits)


def test_groups_with_different_splits_are_not_merged() -> None:
    merged = merge_groups(["a", "b", "c"], ["1", "1", "1"], {"a": "train", "b": "test"})
    assert merged["a"] != merged["b"]
    assert merge_groups(["a", "b", "c"], ["1", None, None], {}) == {"a": "a", "b": "b", "c": "c"}
    assert merge_groups(["c", "b"], ["1", "1"], {"c": "test"}) == {"b": "c", "c": "c"}
    chain = merge_groups(["a", "b", "b", "c"], ["1", "1", "2", "2"], {})
    assert set(chain.values()) == {"a"}


def test_tracks_of_unknown_audio_are_kept() -> None:
    assert learned_elsewhere({"a": "train", "b": "test"}, {"a": None, "b": None}) == set()
