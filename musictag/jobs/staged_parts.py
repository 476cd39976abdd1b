"""Commit the parts that workers have staged.

Both tables record the last committed part of each shard, so that a commit may be repeated after a crash. Rows are
committed before the failures of the same parts.
"""

import concurrent.futures
import datetime
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from musictag.errors import BrokenManifestError, StoreError
from musictag.jobs.ledger import FAILURES_SCHEMA
from musictag.jobs.output import Output
from musictag.jobs.progress import echo
from musictag.storage import commits, staging, tables
from musictag.storage.data_files import write_rows
from musictag.storage.staging import Manifest


class StagedParts:
    """The parts that the workers of a run have staged, and what of them is committed.

    Args:
        output: the output of the run; parts of another producer are not committed.
        run: name of the run.
        is_taken_over: whether another driver may have committed parts of the run.
    """

    def __init__(self, output: Output, run: str, *, is_taken_over: bool = False) -> None:
        self.output, self.run = output, run
        self.n_tracks = 0
        """Tracks of the parts that were collected."""
        self.core_seconds = 0.0
        """Time that these tracks took, on one core each."""
        self._seen: set[str] = set()
        self._staged: dict[int, dict[int, Manifest]] = defaultdict(dict)  # by shard and part, until committed
        # The last committed part of each shard, and the last one whose failures are committed; -1 if there is none.
        self._done: defaultdict[int, int] = defaultdict(lambda: -1)
        self._failures_done: defaultdict[int, int] = defaultdict(lambda: -1)
        # Asking the tables for them reads their logs for each shard: only if another driver may have committed some.
        self._is_shared = is_taken_over
        self._asked: set[int] = set()
        """Shards for which the tables were asked."""

    def collect(self) -> None:
        """Read the manifests that have arrived; a broken one is deleted, and its part is not committed."""
        new = [path for path in staging.manifest_paths(self.output.uri, self.run) if path not in self._seen]
        with concurrent.futures.ThreadPoolExecutor(staging.READ_THREADS) as threads:
            for path, manifest in zip(new, threads.map(self._read, new), strict=True):
                self._seen.add(path)
                if manifest is None:
                    continue
                parts = self._staged[manifest.shard]
                # Another worker may have done the part as well: the first one counts.
                if manifest.part in parts or manifest.part <= self._done[manifest.shard]:
                    continue
                parts[manifest.part] = manifest
                self.n_tracks += manifest.n_tracks
                self.core_seconds += manifest.core_seconds

    def _read(self, path: str) -> Manifest | None:
        try:
            manifest = staging.read_manifest(self.output.uri, path)
        except BrokenManifestError as error:
            echo(f"{error}; its tracks are processed again")
            staging.delete_manifest(self.output.uri, path)
            return None
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # another run has taken the part over
                return None
            raise
        return manifest if manifest.producer == self.output.producer else None

    def commit(self) -> int:
        """Commit the collected parts and return the number of their tracks.

        Parts after one that is missing in their shard are left.

        Raises:
            StoreError: a table cannot be written.
        """
        if not any(self._staged.values()):
            return 0
        # After a conflict, another run took this one for ended, or the response to a commit was lost.
        return commits.repeat_after_conflicts(self._commit, self._ask_again)

    def _ask_again(self) -> None:
        self._is_shared = True
        self._asked.clear()

    def _commit(self) -> int:
        if self._is_shared and (shards := self._staged.keys() - self._asked):
            self._ask_for_done(self.output.uri, shards, self._done)
            self._ask_for_done(self.output.failures_uri, shards, self._failures_done)
            self._asked |= shards
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
        commits.add_files(self.output.uri, self.output.schema, files, last, commit_info(self.run, core_seconds))
        self._done |= {shard: manifests[-1].part for shard, manifests in ready.items() if manifests}
        self._commit_failures()
        for shard, parts in self._staged.items():
            for part in [part for part in parts if part <= self._done[shard]]:
                del parts[part]
        return sum(manifest.n_tracks for manifests in ready.values() for manifest in manifests)

    def _ask_for_done(self, uri: str, shards: Iterable[int], done: dict[int, int]) -> None:
        """Raise the numbers in `done` to those that the table at `uri` has recorded of some shards.

        They may be higher than the recorded ones: of a part without rows or failures, a table records nothing.
        """
        shard_by_name = {self._name(shard): shard for shard in shards}
        for name, part in commits.recorded_numbers(uri, shard_by_name).items():
            done[shard_by_name[name]] = max(part, done[shard_by_name[name]])

    def _name(self, shard: int) -> str:
        """Return the name under which the tables record the last part of a shard."""
        return f"{self.run}/{shard}"

    def _commit_failures(self) -> None:
        """Commit the failures of the parts whose rows are committed."""
        now = datetime.datetime.now(datetime.UTC)
        rows, done = [], {}
        for shard, parts in self._staged.items():
            for part in sorted(parts):
                is_new = self._failures_done[shard] < part <= self._done[shard]
                if is_new and parts[part].failures:
                    rows += [{**failure, "failed_at": now} for failure in parts[part].failures]
                    done[shard] = part
        files = write_rows(self.output.failures_uri, FAILURES_SCHEMA, rows)
        last = {self._name(shard): part for shard, part in done.items()}
        commits.add_files(self.output.failures_uri, FAILURES_SCHEMA, files, last)
        self._failures_done |= done

    def discard(self) -> None:
        """Delete what is staged of the run, and the files of collected parts that were not committed."""
        existing = {file.path for file in tables.files(self.output.uri)}
        left = [file.path for parts in self._staged.values() for part in parts.values() for file in part.files]
        staging.delete_run(self.output.uri, self.run, [path for path in left if path not in existing])


def commit_info(run: str, core_seconds: float) -> dict[str, Any]:
    """Return what the table's history says of a commit of a run."""
    return {"musictag.run": run, "musictag.core_seconds": round(core_seconds, 1)}
