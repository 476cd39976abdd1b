"""The plan of a batch job: which of the listed tracks it processes, which it skips, and which rows it deletes.

Featurizing and tagging share it. A plan compares what is listed with what the output table holds and with the failures
of earlier runs.
"""

import dataclasses
import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from musictag.catalog.folder import describe_left_out
from musictag.catalog.validation import Problem
from musictag.errors import AudioTooLongError, AudioUnreachableError, CatalogError
from musictag.jobs.progress import counted, echo
from musictag.storage import tables
from musictag.storage.urls import redacted

# Errors worth retrying on unchanged audio: the store may answer, or a limit may have been raised, or a
# catalog row may have been corrected.
RETRYABLE_ERRORS = frozenset(error.__name__ for error in (AudioUnreachableError, AudioTooLongError, CatalogError))


@dataclasses.dataclass(frozen=True, slots=True)
class CopySource:
    """A row of the output table whose audio may be that of a task (see `copy_sources`)."""

    track_id: str
    audio_sha256: str
    file: str
    """The file of the table that holds the row."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One track that a run has to process."""

    track_id: str
    uri: str
    audio_etag: str | None
    """Changes whenever the audio does; None if the store does not tell it."""
    attempts: int = 0
    """Number of earlier runs that failed on the same audio."""
    copy_source: CopySource | None = None
    """A row that is copied if the audio has its digest."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExistingRow:
    """The columns of an output row that determine whether the row is up to date."""

    uri: str
    audio_etag: str
    producer: str
    """Hash of the settings, or name and version of the model, that produced the row."""


@dataclasses.dataclass(frozen=True, slots=True)
class FailedTrack:
    """The columns of a failures row that determine whether to try the track again."""

    uri: str
    audio_etag: str | None
    error: str
    """Name of the error's class."""
    attempts: int

    def is_exhausted(self, max_attempts: int) -> bool:
        """Return whether another attempt is pointless: its etag is known, and decoding failed `max_attempts` times."""
        return self.error not in RETRYABLE_ERRORS and self.audio_etag is not None and self.attempts >= max_attempts


@dataclasses.dataclass(frozen=True)
class Plan:
    """The tracks of a run, by what the run does with them."""

    n_listed: int
    """Number of listed tracks, including catalog rows that cannot be used."""
    tasks: tuple[Task, ...]
    """Tracks that are new, changed, failed before, or whose row has another producer."""
    exhausted: frozenset[str]
    """Tracks that failed `max_attempts` times on the same audio; they count as failed without another attempt."""
    unchanged: frozenset[str]
    stale: frozenset[str]
    """Tracks whose row has another uri or etag; it is deleted first."""
    superseded: frozenset[str]
    """Tasks whose row has another producer; the row stays until the task is committed."""
    orphaned: frozenset[str]
    """Tracks that have a row but are no longer listed."""
    reasons: Mapping[str, int]
    """Why the tasks are processed: the number of tasks by reason, such as "new"."""
    hidden: frozenset[str]
    """Tracks that have a row and may be listed in a folder or catalog row that cannot be read; the row stays."""


def make_plan(
    listed: Iterable[tuple[str, str, str | None]],
    existing: Mapping[str, ExistingRow],
    producer: str,
    failed: Mapping[str, FailedTrack],
    max_attempts: int,
    problems: Collection[Problem] = (),
) -> Plan:
    """Compare the listed tracks with the output table and with the failures of earlier runs.

    A track is unchanged if its row has the same uri, etag and producer. If the etag of a track is unknown, the track is
    tried again and an existing row is kept: the audio may be the same although the store did not answer.

    Args:
        listed: `(track_id, uri, audio_etag)` of each usable catalog row.
        existing: rows of the output table by track_id.
        producer: hash of the settings, or name and version of the model, that produces the rows of this run.
        failed: rows of the failures table by track_id.
        max_attempts: number of runs that may try to decode the same audio.
        problems: catalog rows that cannot be used.
    """
    tasks: list[Task] = []
    exhausted: set[str] = set()
    stale: set[str] = set()
    superseded: set[str] = set()
    unchanged: set[str] = set()
    reasons: Counter[str] = Counter()
    for track_id, uri, audio_etag in listed:
        row = existing.get(track_id)
        if row == ExistingRow(redacted(uri), audio_etag or "", producer):
            unchanged.add(track_id)
            continue
        failure = failed.get(track_id)
        if failure is None or (failure.uri, failure.audio_etag) != (redacted(uri), audio_etag):
            tasks.append(Task(track_id, uri, audio_etag))
            reasons[_reason(row, redacted(uri), audio_etag)] += 1
        elif failure.is_exhausted(max_attempts):
            exhausted.add(track_id)
        else:
            tasks.append(Task(track_id, uri, audio_etag, failure.attempts))
            reasons["failed before"] += 1
        if row is None or audio_etag is None:
            continue
        (superseded if (row.uri, row.audio_etag) == (redacted(uri), audio_etag) else stale).add(track_id)
    n_listed = len(tasks) + len(exhausted) + len(unchanged) + len(problems)
    known = unchanged.union(exhausted, (task.track_id for task in tasks), (problem.track_id for problem in problems))
    unlisted = existing.keys() - known
    hidden = hidden_tracks(unlisted, problems)
    return Plan(
        n_listed=n_listed,
        tasks=tuple(tasks),
        exhausted=frozenset(exhausted),
        unchanged=frozenset(unchanged),
        stale=frozenset(stale),
        superseded=frozenset(superseded),
        orphaned=frozenset(unlisted - hidden),
        reasons=reasons,
        hidden=frozenset(hidden),
    )


def _reason(row: ExistingRow | None, uri: str, audio_etag: str | None) -> str:
    """Return why a track that did not fail before is processed."""
    if row is None:
        return "new"
    if row.uri != uri:
        return "with another uri"
    if audio_etag is None:
        return "without an etag"
    if row.audio_etag == audio_etag:
        return "by another model" if row.producer else "by a deleted model"
    size, new_size = size_of(row.audio_etag), size_of(audio_etag)
    if size is None or new_size is None:
        return "with another etag"
    return "with another time" if size == new_size else "with another size"


def size_of(audio_etag: str) -> int | None:
    """Return the size in an etag of size and time, bytes; None for other etags."""
    size, _, time = audio_etag.partition("-")
    return int(size) if size.isdecimal() and time else None


def hidden_tracks(track_ids: Collection[str], problems: Collection[Problem]) -> set[str]:
    """Return the tracks that may be listed in what could not be read: a folder, or a row without a readable id."""
    if any(problem.hides_any_track for problem in problems):
        return set(track_ids)
    folders = {problem.track_id for problem in problems if problem.row is None}
    return {track_id for track_id in track_ids if folders and not folders.isdisjoint(_folders_of(track_id))}


def _folders_of(track_id: str) -> Iterator[str]:
    """Yield the folders of a relative path, such as `a/` and `a/b/` of `a/b/c.mp3`."""
    for slash in re.finditer("/", track_id):
        yield track_id[: slash.end()]


def delete_obsolete_rows(plan: Plan, uri: str, *, prune: bool) -> None:
    """Delete stale rows from the table at `uri`, and with `prune` the rows of tracks that are no longer listed."""
    tables.delete_tracks(uri, plan.stale | plan.orphaned if prune else plan.stale)


def partition(tasks: Sequence[Task], max_size: int, n_workers: int) -> list[tuple[Task, ...]]:
    """Divide tasks into parts of nearly equal size, at most `max_size`.

    The number of parts is a multiple of `n_workers`, if there are enough tasks.
    """
    n_parts = min(n_workers * math.ceil(len(tasks) / (n_workers * max_size)), len(tasks))
    ends = [len(tasks) * n // n_parts for n in range(1, n_parts + 1)]
    return [tuple(tasks[begin:end]) for begin, end in itertools.pairwise([0, *ends])]


def part_name(tasks: Iterable[Task], producer: str) -> str:
    """Return the name of a part, a hash of its tasks and the producer: another attempt has the same name."""
    digest = hashlib.sha256(producer.encode())
    for task in tasks:
        digest.update(repr((task.track_id, task.uri, task.audio_etag)).encode())
    return digest.hexdigest()[:24]


def echo_plan(source: str, plan: Plan, purpose: str, *, prune: bool, left_out: Mapping[str, int]) -> None:
    """Print what a run will do with the tracks of `source`, a catalog or a features table.

    `left_out` counts the files of a folder that are not listed (see `catalog.folder.FolderListing`).
    """
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(plan.reasons.items(), key=lambda item: -item[1]))
    echo(
        f"{source}: {counted(plan.n_listed, 'track')} listed, {len(plan.tasks):,} {purpose}{reasons and f': {reasons}'}"
    )
    if left_out:
        echo(f"left out: {describe_left_out(left_out)}")
    if n_unknown := sum(task.audio_etag is None for task in plan.tasks):
        tracks = counted(n_unknown, "track")
        echo(f"read again, because the store does not tell whether the audio has changed: {tracks}")
    if plan.exhausted:
        n_exhausted = counted(len(plan.exhausted), "listed track")
        echo(f"not tried again, failed --max-attempts times on the same audio: {n_exhausted}")
    if plan.orphaned:
        end = "removed" if prune else "kept (--prune removes them)"
        echo(f"not listed any more: {counted(len(plan.orphaned), 'track')}, {end}")
    if plan.hidden:
        echo(f"perhaps listed in folders or rows that cannot be read: {counted(len(plan.hidden), 'track')}, kept")
