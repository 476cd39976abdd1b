import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.catalog.validation import Problem
from musictag.jobs.ledger import make_account
from musictag.jobs.plan import (
    ExistingRow,
    FailedTrack,
    Task,
    delete_obsolete_rows,
    echo_plan,
    make_plan,
    part_name,
    partition,
)
from musictag.storage import parts, tables

SIGNED = "https://me:pw@host/a.mp3?id=1&sig={}"
REDACTED = "https://***@host/a.mp3?id=1&sig=***"


def plan_of(listed, existing=None, failed=None, problems=(), max_attempts=3):
    return make_plan(listed, existing or {}, "producer", failed or {}, max_attempts, problems)


def test_new_track_is_a_task():
    failed = {"b": FailedTrack("b.mp3", "e2", "AudioCorruptError", 2)}
    made = plan_of([("a", "a.mp3", "e1"), ("b", "b.mp3", "e2")], failed=failed)
    assert made.tasks == (Task("a", "a.mp3", "e1", 0), Task("b", "b.mp3", "e2", 2))
    assert (made.n_listed, made.unchanged, made.stale, made.superseded) == (2, frozenset(), frozenset(), frozenset())


def test_track_with_same_uri_etag_and_producer_is_unchanged():
    made = plan_of(
        [("a", "a.mp3", "e1")],
        {"a": ExistingRow("a.mp3", "e1", "producer"), "gone": ExistingRow("g.mp3", "e", "producer")},
    )
    assert made.tasks == ()
    assert made.unchanged == {"a"}
    assert made.n_listed == 1


@pytest.mark.parametrize(
    "existing",
    [ExistingRow("a.mp3", "old", "producer"), ExistingRow("old.mp3", "e1", "producer"), ExistingRow("a", "b", "c")],
)
def test_row_of_changed_audio_is_stale(existing):
    made = plan_of([("a", "a.mp3", "e1")], {"a": existing})
    assert [task.track_id for task in made.tasks] == ["a"]
    assert made.stale == {"a"}
    assert made.superseded == frozenset()


def test_row_of_another_producer_is_superseded():
    made = plan_of([("a", "a.mp3", "e1")], {"a": ExistingRow("a.mp3", "e1", "earlier producer")})
    assert [task.track_id for task in made.tasks] == ["a"]
    assert made.superseded == {"a"}
    assert made.stale == frozenset()


def test_row_is_kept_when_the_etag_is_unknown():
    made = plan_of([("a", "a.mp3", None)], {"a": ExistingRow("a.mp3", "e1", "producer")})
    assert made.tasks == (Task("a", "a.mp3", None),)
    assert made.stale == made.superseded == made.unchanged == frozenset()


def test_unlisted_track_is_orphaned_unless_its_catalog_row_is_broken():
    existing = {track_id: ExistingRow("a.mp3", "e1", "producer") for track_id in ("a", "changed", "broken", "left")}
    made = plan_of(
        [("a", "a.mp3", "e1"), ("changed", "b.mp3", "e1")], existing, problems=[Problem(3, "broken", "", "why")]
    )
    assert made.orphaned == {"left"}


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
    made = plan_of([("a", "a.mp3", "e1")], failed={"a": failed})
    assert made.tasks == (Task("a", "a.mp3", "e1", attempts),)
    assert made.exhausted == frozenset()


def test_unreachable_track_is_always_retried():
    made = plan_of([("a", "a.mp3", None)], failed={"a": FailedTrack("a.mp3", None, "AudioUnreachableError", 9)})
    assert made.tasks == (Task("a", "a.mp3", None, 9),)


def test_track_is_exhausted_after_max_attempts():
    failed = {"a": FailedTrack(REDACTED, "e1", "AudioCorruptError", 2)}
    existing = {"a": ExistingRow(REDACTED, "e0", "producer")}
    made = plan_of([("a", SIGNED.format("today"), "e1"), ("b", "b.mp3", "e2")], existing, failed, max_attempts=2)
    assert (made.exhausted, made.stale, made.orphaned) == ({"a"}, {"a"}, frozenset())
    assert [task.track_id for task in made.tasks] == ["b"]
    assert made.n_listed == 2


@pytest.mark.parametrize(("prune", "left"), [(False, {"a", "gone"}), (True, {"a"})])
def test_stale_rows_are_deleted_and_orphaned_ones_with_prune(tmp_path, prune, left):
    uri, schema = str(tmp_path / "tracks"), pa.schema([("track_id", pa.string())])
    tables.create_table(uri, schema)
    existing = {track_id: ExistingRow("a.mp3", "e", "producer") for track_id in ("a", "changed", "gone")}
    parts.write_rows(uri, "p", schema, [{"track_id": track_id} for track_id in existing])
    delete_obsolete_rows(plan_of([("a", "a.mp3", "e"), ("changed", "a.mp3", "new")], existing), uri, prune=prune)
    assert tables.track_ids(uri) == left


def test_problems_count_as_listed():
    assert plan_of([("a", "a.mp3", "e1")], problems=[Problem(3, "b", "", "broken")]).n_listed == 2


@pytest.mark.parametrize(
    ("n_tasks", "n_workers", "sizes"),
    [(7, 1, [2, 2, 3]), (7, 2, [1, 2, 2, 2]), (12, 2, [3, 3, 3, 3]), (2, 4, [1, 1]), (0, 2, [])],
)
def test_partition_keeps_the_order_and_balances_workers(n_tasks, n_workers, sizes):
    tasks = [Task(str(number), "", None) for number in range(n_tasks)]
    made = partition(tasks, 3, n_workers)
    assert [len(part) for part in made] == sizes
    assert [task for part in made for task in part] == tasks


def test_part_name_depends_on_tasks_and_producer():
    name = part_name([Task("a", "a.mp3", "e1"), Task("b", "b.mp3", "e2")], "producer")
    assert name == part_name([Task("a", "a.mp3", "e1", 3), Task("b", "b.mp3", "e2", 1)], "producer")
    others = [
        part_name([Task("a", "a.mp3", "e1"), Task("b", "b.mp3", "e2")], "other producer"),
        part_name([Task("a", "a.mp3", "changed"), Task("b", "b.mp3", "e2")], "producer"),
        part_name([Task("a", "moved.mp3", "e1"), Task("b", "b.mp3", "e2")], "producer"),
        part_name([Task("a", "a.mp3", "e1")], "producer"),
        part_name([Task("a", "a.mp3", None)], "producer"),
        part_name([Task("a", "a.mp3", "None")], "producer"),
    ]
    assert len({name, *others}) == 7
    assert name.isalnum()


def test_new_signature_in_uri_leaves_track_unchanged():
    existing = {"a": ExistingRow(REDACTED, "e1", "producer")}
    assert plan_of([("a", SIGNED.format("today"), "e1")], existing).unchanged == {"a"}
    assert plan_of([("a", SIGNED.format("today"), "e2")], existing).tasks == (Task("a", SIGNED.format("today"), "e2"),)


@pytest.mark.parametrize(
    ("unlisted", "prune", "second"),
    [
        ((), False, ""),
        (("x",), False, "not listed any more: 1 track, kept (--prune removes them)\n"),
        (("x", "y"), False, "not listed any more: 2 tracks, kept (--prune removes them)\n"),
        (("x", "y"), True, "left out: 2 .jpg\nnot listed any more: 2 tracks, removed\n"),
    ],
)
def test_orphaned_tracks_are_printed(capsys, unlisted, prune, second):
    existing = {name: ExistingRow("", "", "") for name in ("a", *unlisted)}
    plan = make_plan([("a", "a", "e"), ("b", "b", "e")], existing, "m", {}, 3)
    echo_plan("my/catalog.csv", plan, "to do", prune=prune, left_out={".jpg": 2} if prune else {})
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
    assert plan_of([("a", *listed)], {"a": row} if row else {}).reasons == {reason: 1}


def test_plan_counts_tracks_that_failed_before():
    assert plan_of([("a", "a", "e")], failed={"a": FailedTrack("a", "e", "X", 1)}).reasons == {"failed before": 1}


def test_exhausted_tracks_are_printed(capsys):
    failed = {"a": FailedTrack("a", "e", "AudioCorruptError", 3)}
    echo_plan(
        "c.csv", make_plan([("a", "a", "e"), ("b", "b", "e")], {}, "m", failed, 3), "to do", prune=False, left_out={}
    )
    first, second = capsys.readouterr().out.splitlines()
    assert first == "c.csv: 2 tracks listed, 1 to do: 1 new"
    assert second == "not tried again, failed --max-attempts times on the same audio: 1 listed track"


TRACK_IDS = st.sampled_from("abcdefgh")
URIS = st.sampled_from(["1.mp3", "2.mp3", SIGNED.format("today")])
ETAGS = st.sampled_from(["e1", "e2", None])
ROWS = st.builds(
    ExistingRow, st.sampled_from(["1.mp3", REDACTED]), st.sampled_from(["e1", ""]), st.sampled_from(["producer", "old"])
)
FAILURES = st.builds(
    FailedTrack,
    st.sampled_from(["1.mp3", REDACTED]),
    ETAGS,
    st.sampled_from(["AudioCorruptError", "AudioUnreachableError"]),
    st.integers(1, 4),
)


@settings(max_examples=100, deadline=None)
@given(
    catalog=st.dictionaries(TRACK_IDS, st.none() | st.tuples(URIS, ETAGS)),  # None is a row that cannot be used
    existing=st.dictionaries(TRACK_IDS, ROWS),
    failed=st.dictionaries(TRACK_IDS, FAILURES),
    failing=st.sets(TRACK_IDS),
)
def test_account_adds_up_for_any_catalog_table_and_failures(catalog, existing, failed, failing):
    listed = [(track_id, *row) for track_id, row in catalog.items() if row]
    problems = [Problem(n, track_id, "", "why") for n, track_id in enumerate(catalog) if not catalog[track_id]]
    plan = make_plan(listed, existing, "producer", failed, 3, problems)

    task_ids = [task.track_id for task in plan.tasks]
    outcomes = [*task_ids, *plan.exhausted, *plan.unchanged, *(problem.track_id for problem in problems)]
    assert sorted(outcomes) == sorted(catalog)  # every listed track once
    assert plan.orphaned == set(existing) - set(catalog)
    assert plan.stale.isdisjoint(plan.superseded)
    assert plan.stale | plan.superseded <= existing.keys() & {*task_ids, *plan.exhausted}

    n_failed = len(failing.intersection(task_ids))
    account = make_account(plan, len(problems), failing)
    assert account.listed == len(catalog) == account.written + account.unchanged + account.failed
    assert account.written == len(task_ids) - n_failed
    assert account.unchanged == len(plan.unchanged)


@settings(max_examples=100, deadline=None)
@given(n_tasks=st.integers(0, 60), max_size=st.integers(1, 9), n_workers=st.integers(1, 7))
def test_partition_is_balanced_for_any_number_of_tasks(n_tasks, max_size, n_workers):
    tasks = [Task(str(number), "", None) for number in range(n_tasks)]
    sizes = [len(part) for part in partition(tasks, max_size, n_workers)]
    assert sum(sizes) == n_tasks
    assert max(sizes, default=0) <= max_size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(sizes) == n_tasks or len(sizes) % n_workers == 0
