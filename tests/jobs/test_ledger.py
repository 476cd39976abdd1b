import datetime

import pyarrow as pa
import pytest

from musictag.catalog.reader import Problem
from musictag.errors import AudioCorruptError, AudioUnreachableError, LedgerError
from musictag.jobs import ledger
from musictag.jobs.ledger import Account
from musictag.jobs.plan import ExistingRow, FailedTrack, Task, delete_obsolete_rows, make_plan, part_name, partition
from musictag.storage import parts, tables

SCHEMA = pa.schema([("track_id", pa.string())])
NOW = datetime.datetime.now(datetime.UTC)
EARLIER = NOW - datetime.timedelta(hours=1)
SIGNED = "https://me:pw@host/a.mp3?id=1&sig={}"
WRITTEN = "https://***@host/a.mp3?id=1&sig=***"


def plan_of(listed, held=None, failed=None, problems=(), max_attempts=3):
    return make_plan(listed, held or {}, "producer", failed or {}, max_attempts, problems)


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
    "held",
    [ExistingRow("a.mp3", "old", "producer"), ExistingRow("old.mp3", "e1", "producer"), ExistingRow("a", "b", "c")],
)
def test_row_of_changed_audio_is_stale(held):
    made = plan_of([("a", "a.mp3", "e1")], {"a": held})
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
    held = {track_id: ExistingRow("a.mp3", "e1", "producer") for track_id in ("a", "changed", "broken", "left")}
    made = plan_of([("a", "a.mp3", "e1"), ("changed", "b.mp3", "e1")], held, problems=[Problem(3, "broken", "", "why")])
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
    failed = {"a": FailedTrack(WRITTEN, "e1", "AudioCorruptError", 2)}
    held = {"a": ExistingRow(WRITTEN, "e0", "producer")}
    made = plan_of([("a", SIGNED.format("today"), "e1"), ("b", "b.mp3", "e2")], held, failed, max_attempts=2)
    assert (made.exhausted, made.stale, made.orphaned) == ({"a"}, {"a"}, frozenset())
    assert [task.track_id for task in made.tasks] == ["b"]
    assert made.n_listed == 2


@pytest.mark.parametrize(("prune", "left"), [(False, {"a", "gone"}), (True, {"a"})])
def test_stale_rows_are_deleted_and_orphaned_ones_with_prune(output, prune, left):
    output.write("a", "changed", "gone")
    held = {track_id: ExistingRow("a.mp3", "e", "producer") for track_id in ("a", "changed", "gone")}
    delete_obsolete_rows(plan_of([("a", "a.mp3", "e"), ("changed", "a.mp3", "new")], held), output.uri, prune=prune)
    assert tables.track_ids(output.uri) == left


def test_problems_count_as_listed():
    assert plan_of([("a", "a.mp3", "e1")], problems=[Problem(3, "b", "", "broken")]).n_listed == 2


@pytest.mark.parametrize(
    ("n_tasks", "n_workers", "sizes"),
    [(7, 1, [2, 2, 3]), (7, 2, [1, 2, 2, 2]), (12, 2, [3, 3, 3, 3]), (2, 4, [1, 1]), (0, 2, [])],
)
def test_partition_keeps_order_and_gives_workers_equally_many_parts(n_tasks, n_workers, sizes):
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


@pytest.mark.parametrize(("error", "stage"), [(AudioUnreachableError, "fetch"), (AudioCorruptError, "decode")])
def test_failure_row_names_stage_error_and_attempt(error, stage):
    row = ledger.failure_row(Task("a", "a.mp3", "e1", 2), error("a.mp3: why"))
    assert list(row) == ledger.FAILURES_SCHEMA.names
    assert tuple(row.values())[:-1] == (
        "a",
        "a.mp3",
        "e1",
        stage,
        error.__name__,
        "a.mp3: why",
        3,
    )


def test_new_signature_in_uri_leaves_track_unchanged():
    held = {"a": ExistingRow(WRITTEN, "e1", "producer")}
    assert plan_of([("a", SIGNED.format("today"), "e1")], held).unchanged == {"a"}
    assert plan_of([("a", SIGNED.format("today"), "e2")], held).tasks == (Task("a", SIGNED.format("today"), "e2"),)


def test_failures_hold_no_secret(output):
    uri = SIGNED.format("secret")
    row = ledger.failure_row(Task("a", uri, None), AudioUnreachableError(f"{uri}: cannot be read: 403, url={uri!r}"))
    ledger.record_problems(output.failures, [Problem(1, "b", uri, f"uri {uri} is bad")], {})
    written = str([row, *tables.read_columns(output.failures, ledger.FAILURES_SCHEMA.names).to_pylist()])
    assert WRITTEN in written
    assert "secret" not in written
    assert "pw" not in written


class Output:
    """A table of tracks and its failures."""

    def __init__(self, folder):
        self.uri, self.failures = str(folder / "tracks"), str(folder / "tracks-failures")
        tables.create_table(self.uri, SCHEMA)
        tables.create_table(self.failures, ledger.FAILURES_SCHEMA)

    def write(self, *track_ids):
        part = f"w{tables.version(self.uri)}"
        parts.write(self.uri, part, SCHEMA, [{"track_id": track_id} for track_id in track_ids])

    def fail(self, failed_at, *track_ids, stage="decode", attempts=1):
        rows = [
            {
                "track_id": track_id,
                "uri": f"{track_id}.mp3",
                "audio_etag": "e",
                "stage": stage,
                "error": "AudioCorruptError",
                "attempts": attempts,
                "failed_at": failed_at,
            }
            for track_id in track_ids
        ]
        parts.write(self.failures, f"f{tables.version(self.failures)}", ledger.FAILURES_SCHEMA, rows)

    def attempts(self):
        return {track_id: failed.attempts for track_id, failed in ledger.read_failed(self.failures).items()}

    def reconcile(self, listed, held=None, problems=(), **options):
        made = plan_of(listed, held, ledger.read_failed(self.failures), problems)
        return ledger.reconcile(made, problems, tables.track_ids(self.uri), self.failures, NOW, **options)


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path)


def listed(*track_ids):
    return [(track_id, f"{track_id}.mp3", "e") for track_id in track_ids]


def test_account_adds_up(output):
    output.write("new 1", "new 2", "held")
    output.fail(NOW, "bad")
    problem = Problem(9, "broken", "", "why")
    ledger.record_problems(output.failures, [problem], {"broken": FailedTrack("", None, "CatalogError", 1)})
    held = {"held": ExistingRow("held.mp3", "e", "producer")}
    account = output.reconcile(listed("new 1", "new 2", "bad", "held"), held, [problem])
    assert account == Account(listed=5, written=2, unchanged=1, failed=2)
    assert account.listed == account.written + account.unchanged + account.failed
    assert str(account) == "5 listed = 2 written + 1 unchanged + 2 failed"
    assert output.attempts() == {"bad": 1, "broken": 2}


def test_missing_track_is_named(output):
    output.write("a")
    with pytest.raises(LedgerError, match="1 of 2 tracks are neither written nor failed, such as lost"):
        output.reconcile(listed("a", "lost"))


def test_failure_of_an_earlier_run_does_not_count(output):
    output.fail(EARLIER, "a")
    with pytest.raises(LedgerError, match="such as a"):
        output.reconcile(listed("a"))


def test_failed_track_with_an_old_row_counts_as_failed(output):
    output.write("a")
    output.fail(NOW, "a")
    account = output.reconcile([("a", "a.mp3", None)], {"a": ExistingRow("a.mp3", "e", "producer")})
    assert account == Account(listed=1, written=0, unchanged=0, failed=1)


def test_resolved_failures_are_deleted(output):
    output.write("mended", "back as it was")
    output.fail(EARLIER, "mended", "still bad", "back as it was", "of another catalog")
    output.fail(EARLIER, "row 7", stage="catalog")
    output.fail(NOW, "still bad", attempts=2)
    held = {"back as it was": ExistingRow("back as it was.mp3", "e", "producer")}
    output.reconcile(listed("mended", "still bad", "back as it was"), held)
    assert output.attempts() == {"still bad": 2, "of another catalog": 1}
    assert tables.read_columns(output.failures, ("track_id",)).num_rows == 2


def test_prune_deletes_failures_of_unlisted_tracks(output):
    output.write("a")
    output.fail(EARLIER, "a", "gone")
    output.fail(NOW, "bad")
    output.reconcile(listed("a", "bad"), prune=True)
    assert output.attempts() == {"bad": 1}


def test_failures_of_a_part_are_recorded_once(output):
    rows = [ledger.failure_row(Task("a", "a.mp3", None), AudioCorruptError("why"))]
    for _ in range(2):
        ledger.record_failures(output.failures, "p", rows, 0)
    assert tables.read_columns(output.failures, ("track_id",)).num_rows == 1
    ledger.record_failures(output.failures, "q", [], 0)
    assert tables.version(output.failures) == 1
    since = tables.version(output.failures)
    ledger.record_failures(output.failures, "p", rows, since)
    assert tables.version(output.failures) == 2


@pytest.mark.parametrize("prune", [False, True])
def test_exhausted_track_counts_as_failed_and_keeps_its_failure(output, prune):
    output.write("a")
    output.fail(EARLIER, "bad", attempts=3)
    account = output.reconcile(listed("a", "bad"), prune=prune)
    assert account == Account(listed=2, written=1, unchanged=0, failed=1)
    assert output.attempts() == {"bad": 3}


def test_exhausted_track_without_failure_is_missing(output):
    made = plan_of(listed("bad"), failed={"bad": FailedTrack("bad.mp3", "e", "AudioCorruptError", 3)})
    with pytest.raises(LedgerError, match="such as bad"):
        ledger.reconcile(made, (), (), output.failures, NOW)


def test_failure_with_most_attempts_counts(output):
    output.fail(EARLIER, "a", attempts=3)
    output.fail(EARLIER, "a", "b", attempts=1)
    assert ledger.read_failed(output.failures) == {
        "a": FailedTrack("a.mp3", "e", "AudioCorruptError", 3),
        "b": FailedTrack("b.mp3", "e", "AudioCorruptError", 1),
    }


def test_without_a_table_nothing_failed(tmp_path):
    assert ledger.read_failed(str(tmp_path / "none")) == {}


def test_catalog_problem_is_recorded_with_its_row(output):
    ledger.record_problems(output.failures, [Problem(4, "a", "a.mp3", "unknown split")], {})
    [row] = tables.read_columns(output.failures, ledger.FAILURES_SCHEMA.names).to_pylist()
    assert (row["stage"], row["error"], row["message"]) == ("catalog", "CatalogError", "row 4: unknown split")


@pytest.mark.parametrize(("failed", "allowed"), [(0, 0.0), (10, 0.1), (100, 1.0)])
def test_as_many_failures_as_allowed_pass(failed, allowed):
    ledger.check_failures(Account(100, 100 - failed, 0, failed), allowed, "failures")


@pytest.mark.parametrize(("failed", "allowed"), [(1, 0.0), (11, 0.1)])
def test_more_failures_than_allowed_are_refused(failed, allowed):
    with pytest.raises(
        LedgerError, match=f"{failed} of 100 tracks failed, more than --max-failures {allowed}.*t-failures"
    ):
        ledger.check_failures(Account(100, 100 - failed, 0, failed), allowed, "t-failures")


def test_empty_catalog_has_no_failure():
    ledger.check_failures(Account(0, 0, 0, 0), 0.0, "failures")
