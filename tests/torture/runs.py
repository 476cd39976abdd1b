"""Start jobs as a user does, disturb them, and check the tables after the next run."""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from musictag.jobs import maintenance
from musictag.storage import staging, tables
from processes import is_running

SCRIPTS = Path(__file__).parents[2] / "pipelines"
LIMIT_S = 480.0
"""A run that takes longer hangs."""
ORPHANS_LIMIT_S = 20.0
RAY_AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Agents of Ray: they touch no table, and exit some minutes after their cluster."""
TIMES = frozenset(["featurized_at", "tagged_at", "failed_at"])
FAILURE_COLUMNS = ("track_id", "uri", "stage", "error", "message")


@dataclasses.dataclass(frozen=True)
class Job:
    """A command line and the table that it fills."""

    script: Path
    options: tuple[str, ...]
    uri: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def start(self, log: Path) -> subprocess.Popen[str]:
        """Start the job as the leader of a process group; its output goes to the file `log`."""
        with log.open("w") as stream:
            return subprocess.Popen(
                [sys.executable, str(self.script), *self.options],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[str]]:
        """Start the job; kill what is left of it when the body ends."""
        process = self.start(log)
        try:
            yield process
        finally:
            kill_group(process)

    def run(self, log: Path) -> tuple[int, str]:
        """Run the job; return its exit code and its output."""
        with self.running(log) as process:
            process.wait(LIMIT_S)
        return process.returncode, log.read_text()

    def run_checked(self, log: Path) -> str:
        """Run the job, check that it succeeds, and return its output."""
        code, said = self.run(log)
        assert code == 0, said
        assert "Traceback" not in said, said
        return said

    def begin_with(self, reference: "Reference | None") -> None:
        """Delete the job's tables, or replace them by copies of a reference run's."""
        for kind in ("", "-failures", "-plan"):
            shutil.rmtree(self.uri + kind, ignore_errors=True)
            if reference and Path(reference.uri + kind).exists():
                shutil.copytree(reference.uri + kind, self.uri + kind)

    def n_files(self, pattern: str) -> int:
        """Count the files in the table's folder that match a pattern."""
        return len(list(Path(self.uri).glob(pattern)))

    def n_rows(self) -> int:
        """Count the committed rows."""
        return len(tables.track_ids(self.uri))


@dataclasses.dataclass(frozen=True)
class Reference:
    """The tables and times of an undisturbed run."""

    uri: str
    catalog: str | None
    """Catalog that the table must account for; None if the run read a features table, which lists no failed track."""
    rows: dict[str, dict[str, Any]]
    failures: set[tuple[str, ...]]
    planned_s: float
    """From the start to the end of planning, s."""
    ended_s: float
    n_commits: int
    """Commits of the table after the one that created it."""


def measure(job: Job, catalog: str | None, log: Path) -> Reference:
    """Run a job undisturbed on an empty table."""
    started = time.monotonic()
    with job.running(log) as process:
        wait_until(lambda: "tracks listed" in log.read_text(), process)
        planned = time.monotonic()
        process.wait(LIMIT_S)
    ended = time.monotonic()
    assert process.returncode == 0, log.read_text()
    return Reference(
        job.uri, catalog, content(job.uri), failures(job.uri), planned - started, ended - started,
        tables.version(job.uri),
    )  # fmt: skip


def content(uri: str) -> dict[str, dict[str, Any]]:
    """Read the table without its times, by track_id; check that no track has two rows."""
    columns = [field.name for field in tables.open_table(uri).schema().fields if field.name not in TIMES]
    rows = tables.read_columns(uri, columns).to_pylist()
    found = {row["track_id"]: row for row in rows}
    assert len(found) == len(rows), "a track has two rows"
    return found


def failures(uri: str) -> set[tuple[str, ...]]:
    """Read the failures table without its times."""
    rows = tables.read_columns(tables.companion_uri(uri, "failures"), FAILURE_COLUMNS).to_pylist()
    return {tuple(row[name] for name in FAILURE_COLUMNS) for row in rows}


def assert_nothing_lost(job: Job, reference: Reference) -> None:
    """Check that the tables equal those of the undisturbed run, and that no other file is left after `vacuum`."""
    found = maintenance.verify(job.uri, reference.catalog)
    assert found.problems == ()
    assert_same_rows(content(job.uri), reference.rows)
    assert failures(job.uri) == reference.failures
    for folder in (Path(job.uri, staging.FOLDER), Path(f"{job.uri}-plan")):
        assert not folder.exists() or not list(folder.iterdir())
    for uri in (job.uri, tables.companion_uri(job.uri, "failures")):
        maintenance.vacuum(uri, keep_hours=0)
        needed = {file.path for file in tables.files(uri)}
        assert {path.name for path in Path(uri).iterdir() if not path.name.startswith("_")} == needed
        assert {path.stem for path in Path(uri, "_checksums").glob("*")} == needed
    assert maintenance.verify(job.uri, reference.catalog) == found


def assert_same_rows(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """Check that rows are equal; the last digits of scores depend on the batches and may differ."""
    assert found.keys() == expected.keys()
    for track_id, row in found.items():
        scores, wanted = [r[track_id].get("scores") or [] for r in (found, expected)]
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
        assert _exact(row) == _exact(expected[track_id])


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    exact = {name: value for name, value in row.items() if name not in ("scores", "tags")}
    return exact | {"tags": [tag["tag"] for tag in row.get("tags") or []]}


def wait_until(condition: Any, process: subprocess.Popen[str]) -> bool:
    """Wait until the condition holds; return whether it did before the process ended."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if process.poll() is not None:
            return bool(condition())
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.002)
    return True


def kill_group(process: subprocess.Popen[str]) -> None:
    """Send SIGKILL to a process and its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the descendants of a process."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:  # it has ended
        return []


def names(processes: list[psutil.Process]) -> dict[psutil.Process, str]:
    """Return the names of the processes that still run."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process] = process.name()
    return found


def wait_for_orphans(orphans: Mapping[psutil.Process, str]) -> None:
    """Check that the children of a killed process exit by themselves; `orphans` holds their names."""
    ours = [process for process, name in orphans.items() if not name.startswith(RAY_AGENTS)]
    _, alive = psutil.wait_procs(ours, ORPHANS_LIMIT_S)
    left = [process for process in alive if is_running(process)]
    assert not left, f"still running after {ORPHANS_LIMIT_S:g} s: {left}"


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill a job: `delay_s` after it started, or after its table's folder holds `n_files` matching files."""

    pattern: str
    n_files: int
    delay_s: float

    def wait(self, job: Job, process: subprocess.Popen[str]) -> bool:
        """Wait for the moment; return whether it came before the process ended."""
        came = wait_until(lambda: job.n_files(self.pattern) >= self.n_files, process)
        return came and not _ends_within(process, self.delay_s)

    def __str__(self) -> str:
        since = f"{self.n_files} {self.pattern}" if self.n_files else "its start"
        return f"{self.delay_s:.3f} s after {since}"


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


# Files that a part adds to a table's folder: the data file, then its checksum, a manifest if a worker wrote it, and the
# commit.
PART_FILES = ("part-*.parquet", "_checksums/*", "_staged/*/*/*.json", "_delta_log/*[0-9].json")


def draw(rng: random.Random, number: int, reference: Reference) -> Moment:
    """Draw the moment of kill `number`: of twenty, two are at the start, eight between commits, ten in a commit."""
    if number % 10 == 0:
        return Moment("*", 0, rng.uniform(0, reference.planned_s))
    if number % 2:
        return Moment(rng.choice(PART_FILES), rng.randint(1, reference.n_commits), rng.uniform(0, 0.05))
    # Relative to the last commit, not to the start: the speed of a shared machine varies.
    commit_s = (reference.ended_s - reference.planned_s) / reference.n_commits
    return Moment("_delta_log/*[0-9].json", rng.randint(1, reference.n_commits), rng.uniform(0, commit_s))
