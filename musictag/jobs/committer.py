"""Commit what workers have staged: the driver of a job is the only one that writes to the logs of its tables.

Rows that arrive in the driver itself are written and committed in the same rhythm.

Both tables record the last committed part of each shard, so that a commit may be repeated after a crash. Rows are
committed before the failures of the same parts.
"""

import concurrent.futures
import contextlib
import datetime
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from musictag.errors import BrokenManifestError, ConflictError, StoreError
from musictag.jobs.ledger import FAILURES_SCHEMA
from musictag.jobs.progress import echo
from musictag.storage import commits, staging, tables
from musictag.storage.data_files import FILE_BYTES, regrouped, write_batches, write_rows
from musictag.storage.outages import ask_table_store
from musictag.storage.staging import Manifest

POLL_S = 1.0
"""Least pause between two looks at what has been staged, s."""
MAX_POLL_S = 60.0
"""Largest pause between two looks, s."""
COMMIT_S = 10.0
"""Least pause between two commits, s."""
MAX_SHARE = 0.05
"""Share of the time that commits may take, and looks as well: after slow ones, the pause is longer."""
_MAX_CONFLICTS = 10
# Manifests read in parallel: reading waits for the store, not for a core.
_READ_THREADS = 16


class Committer:
    """Commits the staged parts of a run to its output table and its failures table.

    Args:
        output_uri: the output table.
        failures_uri: its failures table.
        schema: columns of the output table.
        producer: hash of the settings that produce the rows; parts of another producer are not committed.
        run: the run whose parts are committed.
        n_cores: number of cores that make the rows that arrive in the driver; parts tell their own time.
        store_timeout_s: how long to wait at the end for a store that does not answer.
        is_taken_over: whether another driver may have committed parts of the run.
    """

    def __init__(
        self,
        output_uri: str,
        failures_uri: str,
        schema: pa.Schema,
        producer: str,
        run: str,
        n_cores: int = 1,
        store_timeout_s: float = 0.0,
        *,
        is_taken_over: bool = False,
    ) -> None:
        self.output_uri, self.failures_uri, self.schema = output_uri, failures_uri, schema
        self.producer, self.run, self.n_cores = producer, run, n_cores
        self.store_timeout_s = store_timeout_s
        self.n_tracks = 0
        """Tracks that workers have finished."""
        self.core_seconds = 0.0
        """Time that these tracks took, on one core each."""
        self.commit_seconds = 0.0
        """Time that commits took."""
        self._seen: set[str] = set()
        self._rows: list[pa.Table] = []
        self._failures: list[dict[str, Any]] = []
        self._last_write = time.monotonic()
        self._next_write = self._last_write + COMMIT_S
        self._staged: dict[int, dict[int, Manifest]] = defaultdict(dict)  # by shard and part, until committed
        # The last committed part of each shard, and the last one whose failures are committed. Asking the tables for
        # them reads their logs for each shard, and is needed only if another driver may have committed some.
        self._asks_tables = is_taken_over
        self._done: dict[int, int] = {}
        self._failures_done: dict[int, int] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Commit in a thread while the body runs, and once more at its end, also if it raises."""
        finished = threading.Event()
        thread = threading.Thread(target=self._commit_until, args=(finished,), name="committer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            ask_table_store(self._commit_all, self.store_timeout_s)

    def _commit_all(self) -> None:
        self.collect()
        self.commit()
        self._write()

    def _commit_until(self, finished: threading.Event) -> None:
        pause_s, next_commit = POLL_S, time.monotonic() + COMMIT_S
        while not finished.wait(pause_s):
            with contextlib.suppress(StoreError):  # the store may answer later; the last commit raises
                started = time.monotonic()
                self.collect()
                collected = time.monotonic()
                pause_s = min(max(POLL_S, (collected - started) / MAX_SHARE), MAX_POLL_S)
                if collected >= next_commit:
                    self.commit()
                    ended = time.monotonic()
                    next_commit = ended + max(COMMIT_S, (ended - collected) / MAX_SHARE)

    def collect(self) -> None:
        """Read the manifests that have arrived; a broken one is deleted, and its part is not committed."""
        new = [path for path in staging.manifest_paths(self.output_uri, self.run) if path not in self._seen]
        with concurrent.futures.ThreadPoolExecutor(_READ_THREADS) as threads:
            for path, manifest in zip(new, threads.map(self._read, new), strict=True):
                self._seen.add(path)
                if manifest is None:
                    continue
                parts = self._staged[manifest.shard]
                # Another worker may have done the part as well: the first one counts.
                if manifest.part in parts or manifest.part <= self._done.get(manifest.shard, -1):
                    continue
                parts[manifest.part] = manifest
                self.n_tracks += manifest.n_tracks
                self.core_seconds += manifest.core_seconds

    def _read(self, path: str) -> Manifest | None:
        try:
            manifest = staging.read_manifest(self.output_uri, path)
        except BrokenManifestError as error:
            echo(f"{error}; its tracks are processed again")
            staging.delete_manifest(self.output_uri, path)
            return None
        return manifest if manifest.producer == self.producer else None

    def commit(self) -> int:
        """Commit the collected parts and return the number of their tracks.

        Parts after one that is missing in their shard are left.

        Raises:
            StoreError: a table cannot be written.
        """
        if not any(self._staged.values()):
            return 0
        started = time.monotonic()
        for attempt in range(_MAX_CONFLICTS):
            try:
                n_tracks = self._commit()
            except ConflictError:  # another run took this one for ended, or the response to a commit was lost
                if attempt == _MAX_CONFLICTS - 1:
                    raise
                self._asks_tables = True
                self._done.clear()
                self._failures_done.clear()
            else:
                break
        self.commit_seconds += time.monotonic() - started
        return n_tracks

    def _commit(self) -> int:
        self._ask_for_done(self.output_uri, self._done)
        ready: dict[int, list[Manifest]] = {}
        for shard, parts in self._staged.items():
            part = self._done[shard] + 1
            ready[shard] = []
            while part in parts:
                ready[shard].append(parts[part])
                part += 1
        files = [file for manifests in ready.values() for manifest in manifests for file in manifest.files]
        last = {
            self._name(shard): manifests[-1].part
            for shard, manifests in ready.items()
            if any(manifest.files for manifest in manifests)
        }
        core_seconds = sum(manifest.core_seconds for manifests in ready.values() for manifest in manifests)
        commits.add_files(self.output_uri, self.schema, files, last, self._info(core_seconds))
        self._done |= {shard: manifests[-1].part for shard, manifests in ready.items() if manifests}
        self._commit_failures()
        for shard, parts in self._staged.items():
            for part in [part for part in parts if part <= self._done[shard]]:
                del parts[part]
        return sum(manifest.n_tracks for manifests in ready.values() for manifest in manifests)

    def _ask_for_done(self, uri: str, done: dict[int, int]) -> None:
        """Add to `done` the last part that the table at `uri` has recorded, of shards that are not in it yet."""
        names = {shard: self._name(shard) for shard, parts in self._staged.items() if parts and shard not in done}
        recorded = commits.recorded_numbers(uri, names.values()) if names and self._asks_tables else {}
        done.update({shard: recorded.get(name, -1) for shard, name in names.items()})
        for shard in self._staged:
            done.setdefault(shard, -1)

    def _info(self, core_seconds: float) -> dict[str, Any]:
        """Return what a commit says of its cost."""
        return {"musictag.run": self.run, "musictag.core_seconds": round(core_seconds, 1)}

    def _name(self, shard: int) -> str:
        """Return the name under which the tables record the last part of a shard."""
        return f"{self.run}/{shard}"

    def _commit_failures(self) -> None:
        """Commit the failures of the parts whose rows are committed."""
        self._ask_for_done(self.failures_uri, self._failures_done)
        now = datetime.datetime.now(datetime.UTC)
        rows, done = [], {}
        for shard, parts in self._staged.items():
            for part in sorted(parts):
                is_new = self._failures_done[shard] < part <= self._done[shard]
                if is_new and parts[part].failures:
                    rows += [{**failure, "failed_at": now} for failure in parts[part].failures]
                    done[shard] = part
        files = write_rows(self.failures_uri, FAILURES_SCHEMA, rows)
        last = {self._name(shard): part for shard, part in done.items()}
        commits.add_files(self.failures_uri, FAILURES_SCHEMA, files, last)
        self._failures_done |= done

    def add(self, rows: pa.Table, failures: Sequence[dict[str, Any]]) -> None:
        """Take rows of the output table and of the failures table (without the time), and commit them soon."""
        self._rows.append(rows)
        self._failures += failures
        self.n_tracks += rows.num_rows + len(failures)
        if time.monotonic() >= self._next_write or sum(table.nbytes for table in self._rows) >= FILE_BYTES:
            ask_table_store(self._write, self.store_timeout_s)

    def _write(self) -> None:
        """Write and commit the rows and failures that were added; what is committed is not repeated after an error."""
        started = time.monotonic()
        if self._rows:
            core_seconds = self.n_cores * (started - self._last_write)
            files = write_batches(self.output_uri, self.schema, regrouped(self._rows))
            commits.add_files(self.output_uri, self.schema, files, info=self._info(core_seconds))
            self._rows, self._last_write = [], started
            self.core_seconds += core_seconds
        now = datetime.datetime.now(datetime.UTC)
        failures = [{**failure, "failed_at": now} for failure in self._failures]
        commits.append_rows(self.failures_uri, FAILURES_SCHEMA, failures)
        self._failures = []
        ended = time.monotonic()
        self.commit_seconds += ended - started
        self._next_write = ended + max(COMMIT_S, (ended - started) / MAX_SHARE)

    def discard(self) -> None:
        """Delete what is staged of the run; the files of parts that were not committed are deleted, too."""
        existing = {file.path for file in tables.files(self.output_uri)}
        left = [file.path for parts in self._staged.values() for part in parts.values() for file in part.files]
        staging.delete_run(self.output_uri, self.run, [path for path in left if path not in existing])
