import pytest

from musictag.jobs.plan import load_listed
from musictag.storage import queries
from musictag.tagging import diff
from plans import LISTED_SCHEMA, table_of

BEFORE = {"a": frozenset({"calm", "jazz"}), "b": frozenset({"jazz"}), "c": frozenset(), "gone": frozenset({"jazz"})}
AFTER = {"a": frozenset({"jazz"}), "b": frozenset({"bells", "calm"}), "c": frozenset(), "new": frozenset({"calm"})}


def test_changes_count_the_tracks_that_are_in_both_tables():
    assert diff.changes(BEFORE, AFTER, ("calm", "jazz", "waltz")).to_pylist() == [
        {"tag": "calm", "now": 1, "gain": 1, "lose": 1, "then": 1},
        {"tag": "bells", "now": 0, "gain": 1, "lose": 0, "then": 1},
        {"tag": "jazz", "now": 2, "gain": 0, "lose": 1, "then": 1},
        {"tag": "waltz", "now": 0, "gain": 0, "lose": 0, "then": 0},
    ]


def test_equal_tags_are_no_changes():
    table = diff.changes(BEFORE, BEFORE, ())
    assert table.select(["gain", "lose"]).to_pylist() == [{"gain": 0, "lose": 0}] * 2
    assert table["now"] == table["then"]
    assert "0 of 4 sampled tracks (0.0%) would change: 0 gain a tag, 0 lose one." in diff.report(
        BEFORE, BEFORE, {"calm", "jazz"}, ("calm", "jazz")
    )


def test_without_tracks_and_tags_the_table_is_empty():
    table = diff.changes({}, {}, ())
    assert (table.num_rows, table.column_names) == (0, ["tag", "now", "gain", "lose", "then"])


def test_the_report_has_changes_totals_and_unknown_tags():
    heading, _, *lines = diff.report(BEFORE, AFTER, {"calm", "jazz", "polka"}, ("bells", "calm", "jazz")).split("\n")
    assert heading.split() == ["tag", "now", "gain", "lose", "then", "changes"]
    assert [line.split() for line in lines[:4]] == [
        ["calm", "1", "1", "1", "1", "66.7%"],
        ["bells", "0", "1", "0", "1", "33.3%"],
        ["jazz", "2", "0", "1", "1", "33.3%"],
        ["polka", "0", "0", "0", "0", "0.0%"],
    ]
    assert lines[4:] == [
        "",
        "2 of 3 sampled tracks (66.7%) would change: 1 gain a tag, 2 lose one.",
        "Tags that only the new model knows (1): bells.",
        "Tags that only the old model knows (1): polka.",
    ]


def test_tags_are_read_from_rows_of_the_table():
    rows = [{"track_id": "a", "tags": [{"tag": "jazz", "score": 0.9}]}, {"track_id": "b", "tags": []}]
    assert diff.tags_by_track(rows) == {"a": {"jazz"}, "b": frozenset()}


def sample(track_ids, n_tracks):
    ids = list(track_ids)
    with queries.connect() as connection:
        load_listed(connection, [table_of([(track_id, f"{track_id}.mp3", None) for track_id in ids], LISTED_SCHEMA)])
        connection.execute("CREATE TABLE tagged AS SELECT track_id FROM listed UNION ALL SELECT 'not listed'")
        found = diff.sample(connection, n_tracks)
    assert all(uri == f"{track_id}.mp3" for track_id, uri, _ in found)
    return [track_id for track_id, *_ in found]


def test_a_sample_depends_only_on_the_track_ids_and_a_larger_one_contains_it():
    tracks = [f"track {n}" for n in range(500)]
    drawn = sample(tracks, 40)
    assert drawn == sample(reversed(tracks), 40)
    assert len(set(drawn)) == 40
    assert sample(tracks, 60)[:40] == drawn
    assert drawn[:3] == ["track 287", "track 291", "track 31"]  # the same on every machine


@pytest.mark.parametrize("n_tracks", [3, 4])
def test_a_sample_larger_than_the_catalog_is_all_tracks(n_tracks):
    assert set(sample(["a", "b", "c"], n_tracks)) == {"a", "b", "c"}


def test_a_growing_catalog_keeps_most_of_its_sample():
    few, many = ([f"track {n}" for n in range(end)] for end in (100, 110))
    assert len({*sample(few, 50)} & {*sample(many, 50)}) >= 40
