"""Jobs as a user starts them, to be disturbed, and what must hold once they were run again."""

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
from musictag.storage import tables
from processes import is_running

SCRIPTS = Path(__file__).parents[2] / "pipelines"
LIMIT_S = 480.0
"""No run takes this long: one that does hangs."""
ORPHANS_LIMIT_S = 20.0
RAY_AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Ray's own, which touch no table, and which notice some minutes late that their Ray is gone."""
TIMES = frozenset(["featurized_at", "tagged_at", "failed_at"])
FAILURE_COLUMNS = ("track_id", "uri", "stage", "error", "message")


@dataclasses.dataclass(frozen=True)
class Job:
    """One command line, and the table that it fills."""

    script: Path
    options: tuple[str, ...]
    uri: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def start(self, log: Path) -> subprocess.Popen[str]:
        """Start it as the leader of a process group; what it says goes into the file `log`."""
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
        """As `start`; nothing of it is left once the body is done."""
        process = self.start(log)
        try:
            yield process
        finally:
            kill_group(process)

    def run(self, log: Path) -> tuple[int, str]:
        """Exit code, and what it said."""
        with self.running(log) as process:
            process.wait(LIMIT_S)
        return process.returncode, log.read_text()

    def done(self, log: Path) -> str:
        """What it said; it must have ended well."""
        code, said = self.run(log)
        assert code == 0, said
        assert "Traceback" not in said, said
        return said

    def begin_with(self, reference: "Reference | None") -> None:
        """Leave of its tables nothing, or a copy of what another job made."""
        for kind in ("", "-failures"):
            shutil.rmtree(self.uri + kind, ignore_errors=True)
            if reference:
                shutil.copytree(reference.uri + kind, self.uri + kind)

    def n_files(self, pattern: str) -> int:
        """Files of a kind in its table's folder."""
        return len(list(Path(self.uri).glob(pattern)))

    def n_rows(self) -> int:
        """Rows that are committed so far."""
        return len(tables.track_ids(self.uri))


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a run that nobody disturbed made of the catalog, and when it did what."""

    uri: str
    catalog: str | None
    """What the table must account for; None where it was made of a table, which lists no track that failed."""
    rows: dict[str, dict[str, Any]]
    failures: set[tuple[str, ...]]
    planned_s: float
    """From its start until it knew what to do."""
    ended_s: float
    n_parts: int


def measure(job: Job, catalog: str | None, log: Path) -> Reference:
    """Run a job undisturbed, on an empty table."""
    started = time.monotonic()
    with job.running(log) as process:
        wait_until(lambda: "tracks listed" in log.read_text(), process)
        planned = time.monotonic()
        process.wait(LIMIT_S)
    ended = time.monotonic()
    assert process.returncode == 0, log.read_text()
    n_parts = len(tables.files(tables.open_table(job.uri)))
    return Reference(job.uri, catalog, content(job.uri), failures(job.uri), planned - started, ended - started, n_parts)


def content(uri: str) -> dict[str, dict[str, Any]]:
    """All that the table holds of each track, but for the times; no track may be there twice."""
    columns = [field.name for field in tables.open_table(uri).schema().fields if field.name not in TIMES]
    rows = tables.read_columns(uri, columns).to_pylist()
    found = {row["track_id"]: row for row in rows}
    assert len(found) == len(rows), "a track is there twice"
    return found


def failures(uri: str) -> set[tuple[str, ...]]:
    """Which tracks failed, and why."""
    rows = tables.read_columns(tables.companion_uri(uri, "failures"), FAILURE_COLUMNS).to_pylist()
    return {tuple(row[name] for name in FAILURE_COLUMNS) for row in rows}


def assert_nothing_lost(job: Job, reference: Reference) -> None:
    """The tables hold what those of the undisturbed run hold, and `vacuum` leaves nothing that they do not."""
    found = maintenance.verify(job.uri, reference.catalog)
    assert found.problems == ()
    assert_same_rows(content(job.uri), reference.rows)
    assert failures(job.uri) == reference.failures
    for uri in (job.uri, tables.companion_uri(job.uri, "failures")):
        maintenance.vacuum(uri, keep_hours=0)
        needed = set(tables.files(tables.open_table(uri)))
        assert {path.name for path in Path(uri).iterdir() if not path.name.startswith("_")} == needed
        assert {path.stem for path in Path(uri, "_checksums").glob("*")} == needed
    assert maintenance.verify(job.uri, reference.catalog) == found


def assert_same_rows(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """Equal but for scores, whose last digits depend on which tracks the network saw together."""
    assert found.keys() == expected.keys()
    for track_id, row in found.items():
        scores, wanted = [r[track_id].get("scores") or [] for r in (found, expected)]
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
        assert _exact(row) == _exact(expected[track_id])


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    exact = {name: value for name, value in row.items() if name not in ("scores", "tags")}
    return exact | {"tags": [tag["tag"] for tag in row.get("tags") or []]}


def wait_until(condition: Any, process: subprocess.Popen[str]) -> bool:
    """Wait for something that a process does; whether it came before the process ended."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if process.poll() is not None:
            return bool(condition())
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
    return True


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL for a process and all that it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a process has started, and theirs."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:  # it has ended
        return []


def names(processes: list[psutil.Process]) -> dict[psutil.Process, str]:
    """Of those that are still there, what they are called."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process] = process.name()
    return found


def wait_for_orphans(orphans: Mapping[psutil.Process, str]) -> None:
    """Those that a killed process left, by their names, must end by themselves."""
    ours = [process for process, name in orphans.items() if not name.startswith(RAY_AGENTS)]
    _, alive = psutil.wait_procs(ours, ORPHANS_LIMIT_S)
    left = [process for process in alive if is_running(process)]
    assert not left, f"still there after {ORPHANS_LIMIT_S:g} s: {left}"


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill: some time after the job started, or after so many files of a kind are in its table's folder."""

    pattern: str
    n_files: int
    delay_s: float

    def wait(self, job: Job, process: subprocess.Popen[str]) -> bool:
        """Wait for it; whether it came before the process ended."""
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


# What a part leaves in a table's folder: its file as it is begun, its digest as it is whole, its commit.
TRACES = ("part-*.parquet", "_checksums/*", "_delta_log/*[0-9].json")


def draw(rng: random.Random, number: int, reference: Reference) -> Moment:
    """The moment of kill `number`: two of twenty as the job starts, eight as it works, ten as it writes a part."""
    if number % 10 == 0:
        return Moment("*", 0, rng.uniform(0, reference.planned_s))
    if number % 2:
        return Moment(rng.choice(TRACES), rng.randint(1, reference.n_parts), rng.uniform(0, 0.05))
    # Counted from the last part, not from the start: a machine that others use is not as fast each time.
    of_a_part = (reference.ended_s - reference.planned_s) / reference.n_parts
    return Moment("_delta_log/*[0-9].json", rng.randint(1, reference.n_parts), rng.uniform(0, of_a_part))
