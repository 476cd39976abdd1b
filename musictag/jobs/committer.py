"""Commit the rows of a run while it runs: those that workers have staged, and those that arrive in the driver.

The driver of a run is the only one that writes to the logs of its tables: a commit reads the table's log, so that
commits by each worker would take quadratic time.
"""

import contextlib
import datetime
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from musictag.jobs.ledger import FAILURES_SCHEMA
from musictag.jobs.output import Output
from musictag.jobs.staged_parts import StagedParts, commit_info
from musictag.storage import commits
from musictag.storage.data_files import FILE_BYTES, regrouped, write_batches
from musictag.storage.outages import ask_table_store
from musictag.storage.repeating import repeating

POLL_S = 1.0
"""Least pause between two listings of staged parts, s."""
MAX_POLL_S = 60.0
"""Largest pause between two listings, s."""
COMMIT_S = 10.0
"""Least pause between two commits, s."""
MAX_SHARE = 0.05
"""Largest share of the time that commits may take, and listing staged parts: after slow ones, the pause is longer."""


class Committer:
    """Commits the rows and failures of a run.

    Args:
        output: the output of the run.
        run: name of the run.
        n_cores: number of cores that make the rows that arrive in the driver; staged parts tell their own time.
        store_timeout_s: how long to wait for a store that does not answer.
    """

    def __init__(self, output: Output, run: str, n_cores: int = 1, store_timeout_s: float = 0.0) -> None:
        self.output, self.n_cores, self.store_timeout_s = output, n_cores, store_timeout_s
        self.commit_seconds = 0.0
        """Time that commits took."""
        self.staged = StagedParts(output, run)
        """The parts that workers have staged."""
        self._rows: list[pa.Table] = []
        self._failures: list[dict[str, Any]] = []
        self._n_added, self._core_seconds = 0, 0.0
        self._last_write = time.monotonic()
        self._next_write = self._next_commit = self._last_write + COMMIT_S

    @property
    def n_tracks(self) -> int:
        """Tracks that have a row or a failure."""
        return self.staged.n_tracks + self._n_added

    @property
    def core_seconds(self) -> float:
        """Time that these tracks took, on one core each."""
        return self.staged.core_seconds + self._core_seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Commit what is staged in a thread while the body runs, and everything at its end, also if it raises."""
        try:
            with repeating(self._poll, POLL_S, "committer"):
                yield
        finally:
            ask_table_store(self._commit_all, self.store_timeout_s)

    def _poll(self) -> float:
        """Collect what has been staged, commit it if it is time, and return the pause until the next listing, s."""
        started = time.monotonic()
        self.staged.collect()
        collected = time.monotonic()
        if collected >= self._next_commit:
            self._commit_staged()
            ended = time.monotonic()
            self._next_commit = ended + max(COMMIT_S, (ended - collected) / MAX_SHARE)
        return min(max(POLL_S, (collected - started) / MAX_SHARE), MAX_POLL_S)

    def _commit_all(self) -> None:
        self.staged.collect()
        self._commit_staged()
        self._write()

    def _commit_staged(self) -> None:
        started = time.monotonic()
        self.staged.commit()
        self.commit_seconds += time.monotonic() - started

    def add(self, rows: pa.Table, failures: Sequence[dict[str, Any]]) -> None:
        """Take rows of the output table and of the failures table (without the time), and commit them soon."""
        self._rows.append(rows)
        self._failures += failures
        self._n_added += rows.num_rows + len(failures)
        if time.monotonic() >= self._next_write or sum(table.nbytes for table in self._rows) >= FILE_BYTES:
            ask_table_store(self._write, self.store_timeout_s)

    def _write(self) -> None:
        """Write and commit the rows and failures that were added; what is committed is not repeated after an error."""
        started = time.monotonic()
        if self._rows:
            core_seconds = self.n_cores * (started - self._last_write)
            files = write_batches(self.output.uri, self.output.schema, regrouped(self._rows))
            info = commit_info(self.staged.run, core_seconds)
            commits.add_files(self.output.uri, self.output.schema, files, info=info)
            self._rows, self._last_write = [], started
            self._core_seconds += core_seconds
        now = datetime.datetime.now(datetime.UTC)
        failures = [{**failure, "failed_at": now} for failure in self._failures]
        commits.append_rows(self.output.failures_uri, FAILURES_SCHEMA, failures)
        self._failures = []
        ended = time.monotonic()
        self.commit_seconds += ended - started
        self._next_write = ended + max(COMMIT_S, (ended - started) / MAX_SHARE)
