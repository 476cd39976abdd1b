import itertools
import tempfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sample_tables
from musictag.catalog import splits, validation
from musictag.catalog.matching import TrackCount
from musictag.catalog.splits import SHARES, SPLITS, assign_splits, folds, group_of, tags_by_split
from musictag.errors import CatalogError
from musictag.storage import tables


def synthetic_catalog(n_artists, n_tags, seed):
    """Return groups and tag lists: artists of about 3 tracks, whose tags differ a little."""
    rng = np.random.default_rng(seed)
    frequency = rng.beta(1, 6, n_tags)
    groups, tag_lists = [], []
    for artist in range(n_artists):
        style = rng.random(n_tags) < frequency
        for _ in range(1 + rng.poisson(2)):
            tags = style ^ (rng.random(n_tags) < 0.02)
            groups.append(f"artist:{artist}")
            tag_lists.append([f"tag {k}" for k in np.flatnonzero(tags)])
    return groups, tag_lists


def shares(groups, splits):
    counts = Counter(splits[group] for group in groups)
    return np.array([counts[split] for split in SPLITS]) / len(groups)


def test_spellings_of_an_artist_are_one_group():
    assert group_of("a.mp3", "The  Beatles ") == group_of("b.mp3", "the beatles")
    assert group_of("a.mp3", "Beyonce\u0301") == group_of("b.mp3", "BEYONC\u00c9")
    assert group_of("a.mp3", "Low") != group_of("a.mp3", "Lowe")


@pytest.mark.parametrize("artist", [None, "", "  "])
def test_track_without_artist_is_its_own_group(artist):
    assert group_of("a.mp3", artist) != group_of("b.mp3", artist)
    assert group_of("a.mp3", artist) != group_of("b.mp3", "a.mp3")


def test_every_group_has_a_split():
    groups, tag_lists = synthetic_catalog(100, 10, seed=0)
    splits = assign_splits(groups, tag_lists, {})
    assert set(splits) == set(groups)
    assert set(splits.values()) == set(SPLITS)


def test_the_order_of_tracks_does_not_matter():
    groups, tag_lists = synthetic_catalog(100, 10, seed=1)
    known = assign_splits(groups[:40], tag_lists[:40], {})
    order = np.random.default_rng(2).permutation(len(groups))
    shuffled = assign_splits([groups[i] for i in order], [tag_lists[i][::-1] for i in order], known)
    assert shuffled == assign_splits(groups, tag_lists, known)


def test_growing_catalog_keeps_splits_and_shares():
    groups, tag_lists = synthetic_catalog(400, 10, seed=3)
    known = {}
    for end in (7, 100, 101, 500, len(groups)):
        splits = assign_splits(groups[:end], tag_lists[:end], known)
        assert {group: splits[group] for group in known} == known
        known = splits
    np.testing.assert_allclose(shares(groups, known), SHARES, atol=0.02)


def test_known_groups_without_tracks_are_ignored():
    gone = {f"artist:gone {i}": "train" for i in range(1000)}
    assert assign_splits(["a"], [[]], gone) == {"a": "train"}


def test_all_tracks_and_each_tag_are_split_by_the_shares():
    groups, tag_lists = synthetic_catalog(1000, 30, seed=4)
    splits = assign_splits(groups, tag_lists, {})
    np.testing.assert_allclose(shares(groups, splits), SHARES, atol=0.015)
    for tag in {tag for tags in tag_lists for tag in tags}:
        having = [group for group, tags in zip(groups, tag_lists, strict=True) if tag in tags]
        np.testing.assert_allclose(shares(having, splits), SHARES, atol=0.04, err_msg=tag)


def test_rare_tag_reaches_all_splits():
    # By the shares alone, all 3 tracks with a theremin would go to train.
    groups = [f"artist:{i}" for i in range(60)]
    tag_lists = [["guitar", "theremin"] if i < 3 else ["guitar"] for i in range(60)]
    splits = assign_splits(groups, tag_lists, {})
    assert {splits[group] for group in groups[:3]} == set(SPLITS)


def test_rare_tag_reaches_a_missing_split_when_the_catalog_grows():
    known = {"a": "train", "b": "train", "c": "validation"} | {f"other {i}": "test" for i in range(20)}
    groups = [*known, "new"]
    tag_lists = [["theremin"] if len(group) == 1 or group == "new" else [] for group in groups]
    assert assign_splits(groups, tag_lists, known)["new"] == "test"


@pytest.mark.parametrize("seed", range(5))
def test_tag_of_three_artists_reaches_all_splits_in_a_small_catalog(seed):
    groups, tag_lists = synthetic_catalog(40, 10, seed)
    splits = assign_splits(groups, tag_lists, {})
    for tag in {tag for tags in tag_lists for tag in tags}:
        having = {group for group, tags in zip(groups, tag_lists, strict=True) if tag in tags}
        if len(having) >= 3:
            assert {splits[group] for group in having} == set(SPLITS), tag


def test_single_artist_goes_to_train():
    assert assign_splits(["a"] * 9, [["x"], *[[]] * 8], {}) == {"a": "train"}


def test_one_of_two_artists_goes_to_train():
    assert "train" in assign_splits(["a", "b"], [["x", "y"], ["x"]], {}).values()
    assert assign_splits(["a", "b"], [["x"], ["x"]], {"a": "test"})["b"] == "train"


@pytest.mark.parametrize("tags_of", list(itertools.product([[], ["x"], ["x", "y"]], repeat=3)))
def test_three_groups_reach_all_splits(tags_of):
    assert set(assign_splits(["a", "b", "c"], tags_of, {}).values()) == set(SPLITS)


def test_five_tracks_without_artists_reach_all_splits():
    groups = [group_of(f"{i}.mp3", None) for i in range(5)]
    splits = assign_splits(groups, [["x"], ["x"], ["y"], [], ["y"]], {})
    counts = Counter(splits.values())
    assert set(counts) == set(SPLITS)
    assert counts["train"] == max(counts.values())


def test_empty_catalog_has_no_splits():
    assert assign_splits([], [], {}) == {}


def test_unknown_split_is_an_error():
    with pytest.raises(CatalogError, match=r"'dev'.*train, validation, test"):
        assign_splits(["a"], [[]], {"a": "dev"})


def catalog_of(*rows):
    """Return a catalog with rows `(track_id, artist, tags)` or `(track_id, artist, tags, split)`."""
    names = ("track_id", "artist", "tags", "split")
    fields = [dict(zip(names, row, strict=False)) | {"uri": f"{row[0]}.mp3"} for row in rows]
    return pa.Table.from_pylist(fields, validation.SCHEMA)


def labels_of(tracks, digests, splits_uri):
    return tags_by_split(tracks, sample_tables.features(digests), splits_uri)


def artists(n, tags=("x",)):
    return [(f"{artist}-{song}", f"artist {artist}", list(tags)) for artist in range(n) for song in range(2)]


def split_of(labels):
    return {track_id: split for split in SPLITS for track_id in labels.tags[split]}


def test_labels_are_the_tagged_tracks_with_features(tmp_path):
    rows = artists(10)
    labels = labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows), str(tmp_path / "splits"))
    assert set(labels.tags) == set(SPLITS)
    assert all(labels.tags[split] for split in SPLITS)
    assert {track: tags for split in SPLITS for track, tags in labels.tags[split].items()} == {
        track_id: tags for track_id, _, tags in rows
    }
    assert (labels.n_untagged, labels.without_features, labels.orphaned) == (0, TrackCount(0), TrackCount(0))
    assert str(labels).endswith("left out: 0 without tags, 0 tagged but without features")
    splits = split_of(labels)
    assert all(splits[f"{artist}-0"] == splits[f"{artist}-1"] for artist in range(10))


def test_untagged_tracks_and_tracks_without_features_are_counted(tmp_path):
    rows = [*artists(5), ("untagged", "artist 0", []), ("both", "artist 1", [])]
    with_features = {row[0] for row in rows} - {"both", "2-0", "3-1", "3-0"}
    labels = labels_of(catalog_of(*rows), dict.fromkeys(with_features), str(tmp_path / "splits"))
    assert (labels.n_untagged, labels.without_features) == (2, TrackCount(3, ("2-0", "3-0", "3-1")))
    assert set(split_of(labels)) == with_features - {"untagged"}
    assert str(labels).endswith("left out: 2 without tags, 3 (2-0, 3-0, 3-1) tagged but without features")


def test_unlisted_tracks_with_features_are_counted_and_named(tmp_path):
    rows = artists(5)
    elsewhere = {f"old-{n}" for n in range(4)}
    labels = labels_of(catalog_of(*rows), dict.fromkeys({row[0] for row in rows} | elsewhere), str(tmp_path / "splits"))
    assert set(split_of(labels)) == {row[0] for row in rows}
    assert labels.orphaned == TrackCount(4, ("old-0", "old-1", "old-2"))
    assert str(labels).endswith(
        "0 tagged but without features, 4 (old-0, old-1, old-2, \u2026) with features but not in the catalog"
    )


def test_two_jobs_that_assign_splits_at_once_agree(tmp_path, monkeypatch):
    uri, rows = str(tmp_path / "splits"), artists(20)
    few, digests = rows[:12], dict.fromkeys(row[0] for row in rows)
    store = splits._store_splits
    meanwhile = []

    def store_after_another_job(*arguments):
        monkeypatch.setattr(splits, "_store_splits", store)
        meanwhile.append(labels_of(catalog_of(*few), digests, uri))
        store(*arguments)

    monkeypatch.setattr(splits, "_store_splits", store_after_another_job)
    labels = labels_of(catalog_of(*rows), digests, uri)
    stored = tables.read_columns(uri, ("group",))["group"].to_pylist()
    assert sorted(stored) == sorted(f"artist:artist {n}" for n in range(20))  # each once
    assert split_of(*meanwhile).items() <= split_of(labels).items()
    assert split_of(labels_of(catalog_of(*rows), digests, uri)) == split_of(labels)


def test_splits_are_stored_when_the_catalog_grows(tmp_path):
    uri, before = str(tmp_path / "splits"), {}
    for n_artists in (4, 5, 30, 29, 60):
        rows = artists(n_artists)
        now = split_of(labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows), uri))
        assert {track: split for track, split in now.items() if track in before} == {
            track: split for track, split in before.items() if track in now
        }
        before |= now
    groups = tables.read_columns(uri, ("group", "split")).to_pylist()
    assert {row["group"] for row in groups} == {f"artist:artist {artist}" for artist in range(60)}
    assert len(groups) == 60


def test_stored_splits_do_not_depend_on_features(tmp_path):
    rows, uri = artists(10), str(tmp_path / "splits")
    none = labels_of(catalog_of(*rows), {}, uri)
    assert (split_of(none), none.without_features.n) == ({}, 20)
    version = tables.version(uri)
    labels = labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows), uri)
    assert len(split_of(labels)) == 20
    assert tables.version(uri) == version


def test_split_column_overrides_the_stored_split(tmp_path):
    rows, uri = artists(10), str(tmp_path / "splits")
    ids = dict.fromkeys(row[0] for row in rows)
    first = split_of(labels_of(catalog_of(*rows), ids, uri))
    moved = {"train": "test", "validation": "train", "test": "validation"}
    own = [(*row, moved[first[row[0]]]) for row in rows[:6]]
    now = split_of(labels_of(catalog_of(*own, *rows[6:]), ids, uri))
    assert {row[0]: now[row[0]] for row in own} == {row[0]: row[3] for row in own}
    assert {row[0]: now[row[0]] for row in rows[6:]} == {row[0]: first[row[0]] for row in rows[6:]}


def test_split_column_of_one_track_applies_to_its_artist(tmp_path):
    rows = [("a", "Low", ["x"], "test"), ("b", "low", ["x"]), *artists(5)]
    labels = labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows), str(tmp_path / "splits"))
    assert {"a", "b"} <= set(labels.tags["test"])


def test_single_fold_has_the_splits(tmp_path):
    rows = artists(10)
    labels = labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows), str(tmp_path / "splits"))
    assert folds(labels, 1) == [{split: labels.tags[split] for split in ("train", "validation")}]


@pytest.mark.parametrize(("n_asked", "n_folds"), [(2, 2), (5, 5), (100, 7)])
def test_each_track_is_validated_in_one_fold_with_its_artist(tmp_path, n_asked, n_folds):
    rows = [*artists(9), ("without features", "artist 1", ["x"])]
    labels = labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows[:-1]), str(tmp_path / "splits"))
    learned = labels.tags["train"] | labels.tags["validation"]
    assert len(learned) == 14
    parts = folds(labels, n_asked)
    assert len(parts) == n_folds
    for part in parts:
        assert part["train"] | part["validation"] == learned
        groups = [{labels.groups[track] for track in part[split]} for split in ("train", "validation")]
        assert groups[0].isdisjoint(groups[1])
    assert sorted(track for part in parts for track in part["validation"]) == sorted(learned)
    assert folds(labels, n_asked) == parts


def test_folds_without_tracks_are_an_error(tmp_path):
    rows = [("a", "one", ["x"], "train"), ("b", "one", ["x"], "validation"), ("c", "two", ["x"], "test")]
    labels = labels_of(catalog_of(*rows), dict.fromkeys("abc"), str(tmp_path / "splits"))
    with pytest.raises(CatalogError, match=r"3 folds need 2 or more artists, but .* have 1: "):
        folds(labels, 3)
    labels.tags["validation"].clear()
    with pytest.raises(CatalogError, match="no track of the validation split has both tags and features"):
        folds(labels, 1)


GROWING_CATALOGS = st.lists(
    st.lists(st.tuples(st.sampled_from("ABCDEFGHIJ"), st.sets(st.sampled_from("xyz")).map(sorted)), max_size=8),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(GROWING_CATALOGS)
def test_assigned_splits_stay_for_any_growing_catalog(additions):
    groups, tag_lists, known = [], [], {}
    for added in additions:
        groups += [group for group, _ in added]
        tag_lists += [tags for _, tags in added]
        assigned = assign_splits(groups, tag_lists, known)
        assert set(assigned) == set(groups)
        assert {group: assigned[group] for group in known} == known
        known = assigned


@settings(max_examples=10, deadline=None)
@given(GROWING_CATALOGS)
def test_artists_stay_in_one_split_for_any_growing_catalog(additions):
    rows, earlier = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for added in additions:
            rows += [(f"{len(rows) + n}", *row) for n, row in enumerate(added)]
            labels = labels_of(catalog_of(*rows), dict.fromkeys(row[0] for row in rows), f"{folder}/splits")
            artists_of = [{labels.groups[track_id] for track_id in labels.tags[split]} for split in SPLITS]
            assert sum(map(len, artists_of)) == len(set().union(*artists_of))
            assert split_of(labels).items() >= earlier.items()
            earlier = split_of(labels)
