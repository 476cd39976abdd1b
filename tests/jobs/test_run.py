import contextlib
import dataclasses
import datetime
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from musictag.catalog.reader import Catalog
from musictag.catalog.validation import SCHEMA as CATALOG_SCHEMA
from musictag.catalog.validation import Problem, problems_table
from musictag.errors import AudioCorruptError, LedgerError, StoreError, UsageError
from musictag.jobs import budget as budgets
from musictag.jobs import committer as committing
from musictag.jobs import run as running
from musictag.jobs.budget import WORK_TO_DO, Budget
from musictag.jobs.committer import Committer
from musictag.jobs.ledger import failure_row
from musictag.jobs.output import Output
from musictag.jobs.plan_files import PlanFiles, Task
from musictag.jobs.report import read_report
from musictag.jobs.run import Process, Run, Workers, execute, plan_only
from musictag.jobs.shards import stage_shard
from musictag.storage import staging, tables
from plans import LISTED_SCHEMA, table_of

SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("audio_etag", pa.string()),
        ("producer", pa.string()),
        ("written_at", pa.timestamp("us", "UTC")),
    ]
)


NO_LIMITS = Budget()


class Job:
    """A job whose engine stages one row per task, except for tracks that fail or get lost."""

    def __init__(self, folder: Path) -> None:
        self.output = Output(str(folder / "rows"), SCHEMA, "written_at", "p")
        self.uri, self.failures_uri = self.output.uri, self.output.failures_uri
        self.processed: list[str] = []
        self.clock_s = 0.0
        """How much the clock of the workers is ahead, s."""
        tables.create_table(self.uri, SCHEMA)

    def uris(self) -> dict[str, str]:
        rows = tables.read_columns(self.uri, ("track_id", "uri")).to_pylist()
        return {row["track_id"]: row["uri"] for row in rows}

    def failed(self) -> dict[str, tuple[str, int]]:
        rows = tables.read_columns(self.failures_uri, ("track_id", "error", "attempts")).to_pylist()
        rows.sort(key=lambda row: row["attempts"])
        return {row["track_id"]: (row["error"], row["attempts"]) for row in rows}

    def load_rows(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        columns = ("track_id", "uri", "audio_etag", "producer", "written_at", "file")
        connection.register("scanned", tables.scan(self.uri, columns))
        connection.execute(
            f"CREATE OR REPLACE TABLE {name} AS SELECT track_id, uri, audio_etag, producer, written_at AS time, "
            "file FROM scanned"
        )

    def process(self, plan: PlanFiles, failing: Collection[str] = (), lost: Collection[str] = ()) -> None:
        def outcomes(tasks: list[Task]) -> Iterator[tuple[Any, Any]]:
            for task in tasks:
                self.processed.append(task.track_id)
                if task.track_id in failing:
                    yield None, failure_row(task, AudioCorruptError("why"))
                elif task.track_id not in lost:
                    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.clock_s)
                    identity = {"track_id": task.track_id, "uri": task.uri, "audio_etag": task.audio_etag}
                    yield {**identity, "producer": "p", "written_at": now}, None

        for shard in range(plan.n_shards):
            list(stage_shard(self.output, plan, shard, outcomes))

    def execute(
        self,
        track_ids: Iterable[str],
        *,
        failing: Collection[str] = (),
        lost: Collection[str] = (),
        etag: str = "e",
        problems: Collection[Problem] = (),
        max_failures: float = 1.0,
        prune: bool = False,
        prune_limit: float = 1.0,
        replace: bool = False,
        folder: str = "",
        process: Process | None = None,
        budget: Budget = NO_LIMITS,
        store_timeout_s: float = 0.0,
        only_plan: bool = False,
    ) -> int:
        """Run the job on the tracks `track_ids`, or only plan it; return the exit code of a plan, else 0."""
        run = Run(
            source="catalog.csv",
            listed=[table_of([(track_id, f"{folder}{track_id}.mp3", etag) for track_id in track_ids], LISTED_SCHEMA)],
            catalog=Catalog("catalog.csv", CATALOG_SCHEMA.empty_table(), problems_table(problems)),
            output=self.output,
            load_rows=self.load_rows,
            copies_rows=False,
            task_bytes=1,
            engine=lambda: contextlib.nullcontext(Workers(1, n_cores=1)),
            max_attempts=2,
            max_failures=max_failures,
            prune=prune,
            prune_limit=prune_limit,
            store_timeout_s=store_timeout_s,
            replace=replace,
            started=datetime.datetime.now(datetime.UTC),
            budget=budget,
            report_uri=f"{self.uri}-report.json",
        )
        self.processed = []
        if only_plan:
            return plan_only(run, purpose="to do")
        execute(
            run,
            process or (lambda plan, committer: self.process(plan, failing, lost)),
            purpose="to do",
        )
        return 0

    def report(self) -> dict[str, Any]:
        """Return the report of the last run."""
        return {key: value for key, value in read_report(f"{self.uri}-report.json").items() if "seconds" not in key}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def equation(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1].partition(" (")[0]


def fail_if_called(plan: PlanFiles, committer: Committer) -> None:
    raise AssertionError(plan)


def test_account_adds_up_over_several_runs(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.execute("abc", failing="b", problems=[Problem(9, "broken", "", "why")])
    assert equation(capsys) == "4 listed = 2 written + 0 unchanged + 2 failed"
    assert set(job.failed()) == {"b", "broken"}
    job.execute("abcd", failing="b")
    assert job.processed == ["b", "d"]
    assert equation(capsys) == "4 listed = 1 written + 2 unchanged + 1 failed"
    job.execute("abcd")  # `b` is exhausted
    assert equation(capsys) == "4 listed = 0 written + 3 unchanged + 1 failed"
    job.execute("abcd", etag="new")
    assert equation(capsys) == "4 listed = 4 written + 0 unchanged + 0 failed"
    assert tables.track_ids(job.uri) == set("abcd")
    assert job.failed() == {}


def test_process_is_not_called_without_tasks(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.execute("ab")
    job.execute("ab", process=fail_if_called)
    assert equation(capsys) == "2 listed = 0 written + 2 unchanged + 0 failed"
    job.execute("", process=fail_if_called)
    assert equation(capsys) == "0 listed = 0 written + 0 unchanged + 0 failed"


def test_stale_row_is_deleted_if_its_track_fails(job: Job) -> None:
    job.execute("ab")
    job.execute("ab", failing="b", etag="new")
    assert tables.track_ids(job.uri) == {"a"}


@pytest.mark.parametrize(("prune", "rows", "failed"), [(False, {"a", "x"}, {"b", "y"}), (True, {"a"}, {"b"})])
def test_prune_deletes_rows_and_failures_of_unlisted_tracks(
    job: Job, prune: bool, rows: set[str], failed: set[str]
) -> None:
    job.execute("abxy", failing="by")
    job.execute("ab", failing="b", prune=prune)
    assert tables.track_ids(job.uri) == rows
    assert set(job.failed()) == failed


def test_prune_above_the_limit_deletes_nothing_and_fails_the_run(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.execute("abcdefghij")
    message = r"catalog.csv: 2 of the 10 tracks in .*rows are not listed any more, more than --prune-limit 0\.1 allows"
    with pytest.raises(LedgerError, match=message):
        job.execute("abcdefghx", prune=True, prune_limit=0.1)
    assert "2 tracks, kept, because they are more than --prune-limit 0.1 allows\n" in capsys.readouterr().out
    assert tables.track_ids(job.uri) == set("abcdefghijx")
    job.execute("abcdefghijx", prune=True, prune_limit=0.1)
    job.execute("abcdefghix", prune=True, prune_limit=0.1)
    assert tables.track_ids(job.uri) == set("abcdefghix")


def test_rows_of_a_folder_that_cannot_be_listed_are_never_pruned(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.execute(["CD1/1", "CD1/a/2", "CD11/3", "CD2/4"], failing=["CD1/a/2"])
    closed = Problem(None, "CD1/", "/music/CD1", "the folder cannot be listed: Permission denied")
    job.execute(["CD2/4"], prune=True, problems=[closed])
    assert "perhaps listed in folders or rows that cannot be read: 1 track, kept" in capsys.readouterr().out
    assert tables.track_ids(job.uri) == {"CD1/1", "CD2/4"}
    failed = job.failed()
    assert failed["CD1/"][0] == "CatalogError"
    assert failed["CD1/a/2"][1] == 1  # as before


def test_no_row_is_pruned_if_a_catalog_row_has_no_readable_id(job: Job) -> None:
    job.execute("ab")
    job.execute("a", prune=True, problems=[Problem(7, "row 7", "", "not JSON", hides_any_track=True)])
    assert tables.track_ids(job.uri) == {"a", "b"}


def make_folder(folder: Path, **contents: str) -> str:
    """Make a folder with a file for each track; return its path with a slash."""
    folder.mkdir()
    for track_id, content in contents.items():
        (folder / f"{track_id}.mp3").write_text(content)
    return f"{folder}/"


def test_two_catalogs_with_one_table_are_an_error_that_names_both(job: Job, tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "1", a="one", b="two"), make_folder(tmp_path / "2", a="another", c="three")
    job.execute("ab", folder=first)
    with pytest.raises(UsageError, match=f"holds the track a of {first}a.mp3, .* lists {second}a.mp3 .* --replace"):
        job.execute("ac", folder=second, prune=True)
    assert tables.track_ids(job.uri) == {"a", "b"}
    job.execute("ac", folder=second, replace=True)
    assert tables.track_ids(job.uri) == {"a", "b", "c"}
    assert job.uris()["a"] == f"{second}a.mp3"


@pytest.mark.parametrize("is_gone", [True, False])
def test_library_that_moved_is_no_second_catalog(job: Job, tmp_path: Path, is_gone: bool, capsys) -> None:
    job.execute("ab", folder=make_folder(tmp_path / "1", a="one", b="two"))
    if is_gone:
        shutil.rmtree(tmp_path / "1")
    job.execute("ab", folder=make_folder(tmp_path / "2", a="one", b="two"))
    assert "2 to do: 2 with another uri" in capsys.readouterr().out
    assert set(job.uris().values()) == {f"{tmp_path}/2/{name}.mp3" for name in "ab"}


def test_earlier_audio_that_cannot_be_read_ends_the_run_before_rows_are_replaced(job: Job, tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "1", a="one"), make_folder(tmp_path / "2", a="another")
    job.execute("a", folder=first)
    (tmp_path / "1/a.mp3").unlink()
    (tmp_path / "1/a.mp3").symlink_to("a.mp3")  # it cannot be opened, not even by root
    message = f"a of {first}a.mp3 is now listed at {second}a.mp3, .*cannot be read: .*symbolic links.*--replace"
    with pytest.raises(UsageError, match=message):
        job.execute("a", folder=second)
    assert job.uris()["a"] == f"{first}a.mp3"
    job.execute("a", folder=second, replace=True)
    assert job.uris()["a"] == f"{second}a.mp3"


def test_lost_track_is_an_error_and_is_processed_again(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LedgerError, match="1 of 3 tracks are neither written nor failed, such as c"):
        job.execute("abc", lost="c")
    job.execute("abc")
    assert job.processed == ["c"]
    assert equation(capsys) == "3 listed = 1 written + 2 unchanged + 0 failed"


def test_too_many_failures_are_an_error_after_everything_is_written(job: Job) -> None:
    with pytest.raises(LedgerError, match=r"1 of 4 tracks failed, more than --max-failures 0\.2"):
        job.execute("abcd", failing="d", max_failures=0.2)
    assert tables.track_ids(job.uri) == {"a", "b", "c"}
    job.execute("abcd", failing="d", max_failures=0.25)


def test_rows_of_two_simultaneous_runs_are_deduplicated(job: Job) -> None:
    def process_within_another_run(plan: PlanFiles, committer: Committer) -> None:
        job.execute("ab")
        job.process(plan)

    job.execute("ab", process=process_within_another_run)
    assert sorted(tables.read_columns(job.uri, ("track_id",))["track_id"].to_pylist()) == ["a", "b"]


def test_error_of_process_is_raised_and_its_rows_are_kept(job: Job) -> None:
    def crash(plan: PlanFiles, committer: Committer) -> None:
        job.process(plan, lost="b")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job.execute("ab", process=crash)
    job.execute("ab")
    assert job.processed == ["b"]


def test_a_row_of_a_worker_whose_clock_is_behind_replaces_the_earlier_one(job: Job) -> None:
    job.execute("a")
    job.clock_s = -3600
    job.execute("a", etag="new")
    rows = tables.read_columns(job.uri, ("track_id", "audio_etag")).to_pylist()
    assert rows == [{"track_id": "a", "audio_etag": "new"}]


def test_the_plan_of_a_run_that_staged_nothing_is_deleted_by_the_next(job: Job) -> None:
    def interrupt(plan: PlanFiles, committer: Committer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.execute("a", process=interrupt)
    assert list(Path(f"{job.uri}-plan").iterdir())
    job.execute("a")
    assert not list(Path(f"{job.uri}-plan").iterdir())


def test_a_new_row_replaces_an_earlier_one_at_the_end_of_the_run(job: Job) -> None:
    job.execute("ab")
    seen = []

    def process(plan: PlanFiles, committer: Committer) -> None:
        job.process(plan)
        committer.staged.collect()
        committer.staged.commit()
        seen.extend(tables.read_columns(job.uri, ("track_id",))["track_id"].to_pylist())

    job.execute("ab", etag="new", process=process)
    assert sorted(seen) == ["a", "a", "b", "b"]  # readers take the newer one
    assert sorted(tables.read_columns(job.uri, ("track_id",))["track_id"].to_pylist()) == ["a", "b"]


def leave_staged(job: Job, *, is_committed: bool = False) -> None:
    """Execute a run that ends as if it was killed, after the rows of `a` and the failure of `b` were staged."""

    def process(plan: PlanFiles, committer: Committer) -> None:
        job.process(plan, failing="b", lost="c")
        if not is_committed:
            committer.staged.collect = committer.staged.commit = lambda: 0  # type: ignore[method-assign]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.execute("abc", process=process)


@pytest.mark.parametrize("is_committed", [True, False])
def test_what_a_killed_run_has_staged_is_taken_over(job: Job, capsys, is_committed: bool) -> None:
    leave_staged(job, is_committed=is_committed)
    assert tables.track_ids(job.uri) == (set("a") if is_committed else set())
    job.execute("abc")
    assert job.processed == ["b", "c"]
    assert equation(capsys) == "3 listed = 2 written + 1 unchanged + 0 failed"
    assert not list(Path(job.uri, staging.FOLDER).iterdir())
    assert not list(Path(f"{job.uri}-plan").iterdir())


def test_failures_that_a_killed_run_has_staged_count_as_attempts(job: Job, capsys) -> None:
    leave_staged(job)
    leave_staged(job)
    job.execute("abc")
    assert job.processed == ["c"]
    assert equation(capsys) == "3 listed = 1 written + 1 unchanged + 1 failed"
    assert job.failed() == {"b": ("AudioCorruptError", 2)}


def test_parts_of_other_settings_are_not_taken_over(job: Job) -> None:
    leave_staged(job)
    for path in Path(job.uri, staging.FOLDER).rglob("*.json"):
        path.write_text(path.read_text().replace('"producer": "p"', '"producer": "another"'))
    job.execute("abc")
    assert job.processed == ["a", "b", "c"]


@pytest.mark.parametrize("damage", ["cut", "file is missing"])
def test_a_broken_manifest_costs_only_repeated_work(job: Job, capsys, damage: str) -> None:
    leave_staged(job)
    (manifest,) = (path for path in Path(job.uri, staging.FOLDER).rglob("*.json") if '"path"' in path.read_text())
    if damage == "cut":
        manifest.write_text(manifest.read_text()[:-9])
    else:
        for path in Path(job.uri).glob("part-*.parquet"):
            path.unlink()
    job.execute("abc")
    assert manifest.name in capsys.readouterr().out
    assert job.processed == ["a", "b", "c"]
    assert tables.track_ids(job.uri) == set("abc")


def test_a_worker_that_wakes_up_after_its_part_was_committed_changes_nothing(job: Job) -> None:
    def process(plan: PlanFiles, committer: Committer) -> None:
        job.process(plan)
        committer.staged.collect()
        committer.staged.commit()
        for path in Path(job.uri, staging.FOLDER).rglob("*.json"):
            path.with_name(f"{path.stem}0.json").write_text(path.read_text())  # the manifest of the same part again
        committer.staged.collect()
        committer.staged.commit()

    job.execute("ab", process=process)
    assert sorted(tables.read_columns(job.uri, ("track_id",))["track_id"].to_pylist()) == ["a", "b"]


def test_a_run_that_is_still_running_is_left_alone(job: Job, monkeypatch) -> None:
    monkeypatch.setattr(committing, "COMMIT_S", 1e9)

    def process(plan: PlanFiles, committer: Committer) -> None:
        job.process(plan)
        staged = {path.name for path in Path(job.uri, staging.FOLDER).rglob("*.json")}
        job.execute("c")  # another run meanwhile
        assert staged == {path.name for path in Path(job.uri, staging.FOLDER).rglob("*.json")}

    job.execute("ab", process=process)
    assert tables.track_ids(job.uri) == set("abc")


def test_joining_small_files_is_suggested_when_there_are_many(job: Job, capsys, monkeypatch) -> None:
    job.execute("a")
    assert "compact" not in capsys.readouterr().out
    monkeypatch.setattr(running, "MANY_FILES", 2)
    job.execute("ab")
    assert f"2 of the 2 files are small; to join them: musictag compact {job.uri}\n" in capsys.readouterr().out


def set_producer(job: Job, producer: str) -> None:
    job.output = dataclasses.replace(job.output, producer=producer)


def test_limit_of_tracks_defers_the_backfill_and_counts_the_runs_left(job: Job, capsys) -> None:
    job.execute(["a", "b", "c", "d"])
    set_producer(job, "q")  # a new champion
    job.execute(["a", "b", "c", "d", "new"], budget=Budget(max_tracks=2))
    assert job.processed == ["new", "a"]
    assert equation(capsys) == "5 listed = 2 written + 0 unchanged + 0 failed + 3 deferred"
    assert {key: job.report()[key] for key in ("written", "deferred", "runs_left")} == {
        "written": 2, "deferred": 3, "runs_left": 2,
    }  # fmt: skip
    assert set(job.uris()) == {"a", "b", "c", "d", "new"}  # the old rows stay


def test_limit_of_no_track_starts_no_engine(job: Job, capsys) -> None:
    job.execute(["a"], budget=Budget(max_tracks=0), process=fail_if_called)
    out = capsys.readouterr().out
    assert "1 deferred: the limit of this run was reached; runs left at this rate: unknown" in out
    assert job.report()["runs_left"] is None


def test_row_of_changed_audio_stays_until_its_track_is_processed(job: Job) -> None:
    job.execute(["a", "b"])
    job.execute(["a", "b"], etag="changed", budget=Budget(max_tracks=1))
    assert job.processed == ["a"]
    assert set(job.uris()) == {"a", "b"}
    job.execute(["a", "b"], etag="changed")
    assert job.processed == ["b"]


def test_deadline_that_has_passed_defers_everything(job: Job, capsys) -> None:
    over = Budget(deadline=datetime.datetime.now(datetime.UTC))
    job.execute(["a", "b"], budget=over, process=fail_if_called)
    assert equation(capsys) == "2 listed = 0 written + 0 unchanged + 0 failed + 2 deferred"


def test_deadline_in_the_middle_ends_the_run_after_the_parts_in_progress(job: Job, capsys, monkeypatch) -> None:
    monkeypatch.setattr(budgets, "_POLL_S", 0.02)
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)

    def process(plan: PlanFiles, committer: Committer) -> None:
        def outcomes(tasks: list[Task]) -> Iterator[tuple[Any, Any]]:
            while any(task.track_id == "2" for task in tasks) and not plan.is_stopped():
                time.sleep(0.02)
            now = datetime.datetime.now(datetime.UTC)
            for task in tasks:
                identity = {"track_id": task.track_id, "uri": task.uri, "audio_etag": task.audio_etag}
                yield {**identity, "producer": "p", "written_at": now}, None

        for shard in range(plan.n_shards):
            list(stage_shard(job.output, plan, shard, outcomes))

    tracks = [str(n) for n in range(6)]
    job.execute(tracks, process=process, budget=Budget(deadline=deadline))
    written = len(job.uris())
    assert 1 <= written < 6
    assert "2" in job.uris()  # its part was in progress
    assert equation(capsys) == f"6 listed = {written} written + 0 unchanged + 0 failed + {6 - written} deferred"
    job.execute(tracks)
    assert set(job.uris()) == set(tracks)


def test_plan_says_by_its_exit_code_and_report_whether_there_is_work(job: Job, capsys) -> None:
    assert job.execute(["a"], only_plan=True) == WORK_TO_DO
    assert (job.report()["has_work"], job.report()["reasons"]) == (True, {"new": 1})
    assert job.uris() == {}
    job.execute(["a"])
    assert job.execute(["a"], only_plan=True) == 0
    assert job.report() == {
        "has_work": False, "listed": 1, "tasks": 0, "unchanged": 1, "failed": 0, "reasons": {},
    }  # fmt: skip
    assert job.execute([], only_plan=True, prune=True) == WORK_TO_DO
    leave_staged(job)
    assert job.execute(["a"], only_plan=True) == WORK_TO_DO
    assert "may be running, or has left what the next run takes over" in capsys.readouterr().out


def test_report_counts_failures_by_error(job: Job) -> None:
    job.execute(["a", "b", "c"], failing=["a", "b"], problems=[Problem(3, "x", "x.mp3", "why")])
    report = job.report()
    assert report["failed_by_error"] == {"AudioCorruptError": 2, "CatalogError": 1}
    assert (report["listed"], report["written"], report["failed"]) == (4, 1, 3)
    job.execute(["a", "b", "c"], failing=["a", "b"])
    job.execute(["a", "b", "c"], failing=["a", "b"])  # now the tracks are exhausted
    assert job.processed == []
    assert job.report()["failed_by_error"] == {"AudioCorruptError": 2}


@pytest.mark.parametrize("step", ["create_table", "load_earlier_failures", "delete_plan", "remove_obsolete_rows"])
def test_a_store_that_is_unavailable_for_a_moment_is_waited_for(job: Job, step: str, monkeypatch: pytest.MonkeyPatch):
    home = running.tables if step == "create_table" else running
    real = getattr(home, step)
    answers: list[str] = []

    def unavailable_once(*arguments: Any, **options: Any) -> Any:
        answers.append(step)
        if len(answers) == 1:
            reason = "AWS Error UNKNOWN (HTTP status 503) during PutObject operation: No response body."
            raise StoreError(f"table: {reason}") from OSError(reason)
        return real(*arguments, **options)

    monkeypatch.setattr(home, step, unavailable_once)
    job.execute("ab", store_timeout_s=60.0)
    assert len(answers) > 1
    assert job.uris().keys() == {"a", "b"}
