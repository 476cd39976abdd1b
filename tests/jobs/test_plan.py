import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.catalog.validation import Problem
from musictag.errors import LedgerError
from musictag.jobs.plan import RETRYABLE_ERRORS, echo_plan, load_listed, make_plan
from musictag.storage import queries
from plans import BEFORE, ExistingRow, FailedTrack, planned

SIGNED = "https://me:pw@host/a.mp3?id=1&sig={}"
REDACTED = "https://***@host/a.mp3?id=1&sig=***"


def test_new_track_is_a_task():
    failed = {"b": FailedTrack("b.mp3", "e2", "AudioCorruptError", 2)}
    with planned([("a", "a.mp3", "e1"), ("b", "b.mp3", "e2")], failed=failed) as made:
        assert made.tasks == [("a", "a.mp3", "e1", 0), ("b", "b.mp3", "e2", 2)]
        assert (made.plan.n_listed, made.unchanged, made.stale) == (2, set(), set())


def test_track_with_same_uri_etag_and_producer_is_unchanged():
    existing = {"a": ExistingRow("a.mp3", "e1", "producer"), "gone": ExistingRow("g.mp3", "e", "producer")}
    with planned([("a", "a.mp3", "e1")], existing) as made:
        assert made.tasks == []
        assert made.unchanged == {"a"}
        assert made.plan.n_listed == made.plan.n_unchanged == 1


@pytest.mark.parametrize(
    "existing",
    [ExistingRow("a.mp3", "old", "producer"), ExistingRow("old.mp3", "e1", "producer"), ExistingRow("a", "b", "c")],
)
def test_row_of_changed_audio_is_stale(existing):
    with planned([("a", "a.mp3", "e1")], {"a": existing}) as made:
        assert (made.task_ids, made.stale) == (["a"], {"a"})


def test_row_of_another_producer_is_not_stale():
    with planned([("a", "a.mp3", "e1")], {"a": ExistingRow("a.mp3", "e1", "earlier producer")}) as made:
        assert (made.task_ids, made.stale) == (["a"], set())


def test_row_is_kept_when_the_etag_is_unknown():
    with planned([("a", "a.mp3", None)], {"a": ExistingRow("a.mp3", "e1", "producer")}) as made:
        assert made.tasks == [("a", "a.mp3", None, 0)]
        assert made.stale == made.unchanged == set()
        assert made.plan.n_without_etag == 1


def test_unlisted_track_is_orphaned_unless_its_catalog_row_is_broken():
    existing = {track_id: ExistingRow("a.mp3", "e1", "producer") for track_id in ("a", "changed", "broken", "left")}
    listed = [("a", "a.mp3", "e1"), ("changed", "b.mp3", "e1")]
    with planned(listed, existing, problems=[Problem(3, "broken", "", "why")]) as made:
        assert made.orphaned == {"left"}
        assert made.plan.n_orphaned == 1


def test_tracks_of_a_folder_that_cannot_be_listed_are_hidden():
    ids = ("CD1/1", "CD1/a/2", "CD11/3", "CD2/4", "1", "x/CD1/5")
    closed = Problem(None, "CD1/", "/music/CD1", "the folder cannot be listed")
    with planned([], {track_id: ExistingRow("a.mp3", "e", "p") for track_id in ids}, problems=[closed]) as made:
        assert made.hidden == {"CD1/1", "CD1/a/2"}
        assert made.orphaned == set(ids) - made.hidden


def test_row_without_a_readable_id_hides_every_unlisted_track():
    broken = Problem(7, "row 7", "", "not JSON", hides_any_track=True)
    with planned([], {"a": ExistingRow("a.mp3", "e", "p")}, problems=[broken]) as made:
        assert (made.hidden, made.orphaned) == ({"a"}, set())


@pytest.mark.parametrize("ids", [("a", "A"), ("\u00e9", "e\u0301"), ("a", "a "), ("1", "01")])
def test_ids_that_differ_in_case_or_unicode_form_are_different_tracks(ids):
    first, second = ids
    with planned(
        [(first, "1.mp3", "e"), (second, "2.mp3", "e")], {first: ExistingRow("1.mp3", "e", "producer")}
    ) as made:
        assert (made.unchanged, made.task_ids) == ({first}, [second])


@pytest.mark.parametrize(
    ("failed", "attempts"),
    [
        (FailedTrack("a.mp3", "e1", "AudioCorruptError", 2), 2),  # once more
        (FailedTrack("a.mp3", "earlier", "AudioCorruptError", 3), 0),  # other audio
        (FailedTrack("b.mp3", "e1", "AudioCorruptError", 3), 0),  # audio of another place
        (FailedTrack("a.mp3", "e1", "AudioUnreachableError", 9), 9),  # it may be reached now
        (FailedTrack("a.mp3", "e1", "AudioTooLongError", 9), 9),  # a longer one may be allowed now
    ],
)
def test_failed_track_is_retried(failed, attempts):
    with planned([("a", "a.mp3", "e1")], failed={"a": failed}) as made:
        assert made.tasks == [("a", "a.mp3", "e1", attempts)]
        assert made.exhausted == set()


def test_unreachable_track_is_always_retried():
    failed = {"a": FailedTrack("a.mp3", None, "AudioUnreachableError", 9)}
    with planned([("a", "a.mp3", None)], failed=failed) as made:
        assert made.tasks == [("a", "a.mp3", None, 9)]


@pytest.mark.parametrize(
    ("failed", "is_missing", "is_tried"),
    [
        (FailedTrack("a.mp3", None, "AudioMissingError", 1), True, False),
        (FailedTrack("a.mp3", None, "AudioMissingError", 1), False, True),  # the store did not answer
        (FailedTrack("b.mp3", None, "AudioMissingError", 1), True, True),
        (FailedTrack("a.mp3", "e1", "AudioMissingError", 1), True, True),  # it was there when the run was planned
        (FailedTrack("a.mp3", None, "AudioUnreachableError", 1), True, True),  # the reason has changed
        (None, True, True),
    ],
)
def test_a_file_that_is_missing_again_is_not_tried_again(failed, is_missing, is_tried):
    existing = {"a": ExistingRow("a.mp3", "e0", "producer")}
    failures = {"a": failed} if failed else {}
    with planned([("a", "a.mp3", None)], existing, failures, missing=["a"] if is_missing else []) as made:
        assert (made.task_ids, made.plan.n_missing) == ((["a"], 0) if is_tried else ([], 1))
        assert (made.exhausted, made.stale, made.orphaned) == (set(), set(), set())


def test_track_is_exhausted_after_max_attempts():
    failed = {"a": FailedTrack(REDACTED, "e1", "AudioCorruptError", 2)}
    existing = {"a": ExistingRow(REDACTED, "e0", "producer")}
    listed = [("a", SIGNED.format("today"), "e1"), ("b", "b.mp3", "e2")]
    with planned(listed, existing, failed, max_attempts=2) as made:
        assert (made.exhausted, made.stale, made.orphaned) == ({"a"}, {"a"}, set())
        assert made.task_ids == ["b"]
        assert made.plan.n_listed == 2


def test_problems_count_as_listed():
    with planned([("a", "a.mp3", "e1")], problems=[Problem(3, "b", "", "broken")]) as made:
        assert (made.plan.n_listed, made.plan.n_problems) == (2, 1)


def test_the_newest_of_several_rows_of_a_track_counts():
    with planned([("a", "a.mp3", "e1")], {"a": ExistingRow("a.mp3", "e0", "producer")}) as made:
        made.connection.execute(
            "INSERT INTO rows_before VALUES ('a', 'a.mp3', 'e1', 'producer', TIMESTAMPTZ '2026-11-02 00:00:00+00', 'f')"
        )
        assert make_plan(made.connection, "producer", 3).n_unchanged == 1


def test_of_several_features_rows_of_a_track_the_newest_is_listed():
    names = ("track_id", "uri", "audio_etag", "features_file", "featurized_at")
    rows = [("a", "a.mp3", etag, file, BEFORE + datetime.timedelta(hours=n)) for n, etag, file in
            ((2, "e2", "f2"), (1, "e1", "f1"))]  # fmt: skip
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    with queries.connect() as connection:
        load_listed(connection, [table])
        assert connection.sql("SELECT audio_etag, features_file FROM listed").fetchall() == [("e2", "f2")]


def test_new_signature_in_uri_leaves_track_unchanged():
    existing = {"a": ExistingRow(REDACTED, "e1", "producer")}
    with planned([("a", SIGNED.format("today"), "e1")], existing) as made:
        assert made.unchanged == {"a"}
    with planned([("a", SIGNED.format("today"), "e2")], existing) as made:
        assert made.tasks == [("a", SIGNED.format("today"), "e2", 0)]


@pytest.mark.parametrize(
    ("unlisted", "left_out", "second"),
    [
        ((), {}, ""),
        (("x",), {}, "not listed any more: 1 track, kept\n"),
        (("x", "y"), {".jpg": 2}, "left out: 2 .jpg\nnot listed any more: 2 tracks, kept\n"),
    ],
)
def test_orphaned_tracks_are_printed(capsys, unlisted, left_out, second):
    existing = {name: ExistingRow("", "", "") for name in ("a", *unlisted)}
    with planned([("a", "a", "e"), ("b", "b", "e")], existing) as made:
        echo_plan("my/catalog.csv", made.plan, "to do", unlisted="kept", left_out=left_out)
    assert capsys.readouterr().out == "my/catalog.csv: 2 tracks listed, 2 to do: 1 with another uri, 1 new\n" + second


@pytest.mark.parametrize(
    ("row", "listed", "reason"),
    [
        (None, ("a.mp3", "5-1.0"), "new"),
        (ExistingRow("b.mp3", "5-1.0", "producer"), ("a.mp3", "5-1.0"), "with another uri"),
        (ExistingRow("a.mp3", "5-1.0", "producer"), ("a.mp3", "5-2.0"), "with another time"),
        (ExistingRow("a.mp3", "5-1.0", "producer"), ("a.mp3", "6-2.0"), "with another size"),
        (ExistingRow("a.mp3", "abc", "producer"), ("a.mp3", "def-2"), "with another etag"),
        (ExistingRow("a.mp3", "5-1.0", "producer"), ("a.mp3", None), "without an etag"),
        (ExistingRow("a.mp3", "5-1.0", "older"), ("a.mp3", "5-1.0"), "by another model"),
        (ExistingRow("a.mp3", "5-1.0", ""), ("a.mp3", "5-1.0"), "by a deleted model"),
    ],
)
def test_plan_says_why_a_track_is_processed(row, listed, reason):
    with planned([("a", *listed)], {"a": row} if row else {}) as made:
        assert made.plan.reasons == {reason: 1}


def test_plan_counts_tracks_that_failed_before():
    with planned([("a", "a", "e")], failed={"a": FailedTrack("a", "e", "X", 1)}) as made:
        assert made.plan.reasons == {"failed before": 1}


def test_exhausted_tracks_are_printed(capsys):
    failed = {"a": FailedTrack("a", "e", "AudioCorruptError", 3)}
    with planned([("a", "a", "e"), ("b", "b", "e")], failed=failed) as made:
        echo_plan("c.csv", made.plan, "to do", unlisted="kept", left_out={})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "c.csv: 2 tracks listed, 1 to do: 1 new"
    assert second == "not tried again, failed --max-attempts times on the same audio: 1 listed track"


TRACK_IDS = st.sampled_from("abcdefgh")
URIS = st.sampled_from(["1.mp3", "2.mp3", SIGNED.format("today")])
ETAGS = st.sampled_from(["e1", "e2", None])
ROWS = st.builds(
    ExistingRow,
    st.sampled_from(["1.mp3", REDACTED]),
    st.sampled_from(["e1", "e3"]),
    st.sampled_from(["producer", "old"]),
)
FAILURES = st.builds(
    FailedTrack,
    st.sampled_from(["1.mp3", REDACTED]),
    ETAGS,
    st.sampled_from(["AudioCorruptError", "AudioUnreachableError", "AudioMissingError"]),
    st.integers(1, 4),
)


def expected_state(uri, etag, is_missing, row, failure):
    """Return the state of a listed track, its attempts, and whether its row is stale, as the rules say."""
    uri = REDACTED if "://" in uri else uri
    is_stale = row is not None and etag is not None and (row.uri, row.audio_etag) != (uri, etag)
    if row == ExistingRow(uri, etag, "producer"):
        return "unchanged", is_stale
    if failure is None or (failure.uri, failure.audio_etag) != (uri, etag):
        return "task", is_stale
    if failure.error == "AudioMissingError" and is_missing:
        return "missing", is_stale
    is_final = failure.error not in RETRYABLE_ERRORS and etag is not None and failure.attempts >= 3
    return "exhausted" if is_final else "task", is_stale


@settings(max_examples=100, deadline=None)
@given(
    catalog=st.dictionaries(TRACK_IDS, st.none() | st.tuples(URIS, ETAGS)),  # None is a row that cannot be used
    existing=st.dictionaries(TRACK_IDS, ROWS),
    failed=st.dictionaries(TRACK_IDS, FAILURES),
    missing=st.sets(TRACK_IDS),
)
def test_every_listed_track_has_the_state_that_the_rules_say(catalog, existing, failed, missing):
    listed = [(track_id, *row) for track_id, row in catalog.items() if row]
    problems = [Problem(n, track_id, "", "why") for n, track_id in enumerate(catalog) if not catalog[track_id]]
    with planned(listed, existing, failed, problems, missing=missing) as made:
        states = made.connection.sql("SELECT track_id, state, is_stale FROM plan ORDER BY number").fetchall()
        assert states == [
            (track_id, *expected_state(uri, etag, track_id in missing, existing.get(track_id), failed.get(track_id)))
            for track_id, uri, etag in listed
        ]
        assert made.orphaned == set(existing) - set(catalog)
        plan = made.plan
        n_failed = plan.n_exhausted + plan.n_missing + plan.n_problems
        assert plan.n_listed == len(catalog) == plan.n_tasks + plan.n_unchanged + n_failed
        assert sum(plan.reasons.values()) == plan.n_tasks


def test_a_track_that_is_listed_twice_is_an_error():
    with (
        pytest.raises(LedgerError, match="1 tracks are listed twice"),
        planned([("a", "1.mp3", "e"), ("a", "2.mp3", "e")]),
    ):
        pass
