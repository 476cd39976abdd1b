"""What a run has to do, and whether its account adds up: `listed = written + unchanged + failed`.

Featurizing and tagging share it. A plan comes from what is listed and what the table holds; the account after the run
is read back from the tables, not from counters, so that it holds on every engine and after every crash.
"""

import dataclasses
import datetime
import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from musictag.catalog.reader import Problem
from musictag.errors import AudioError, AudioTooLongError, AudioUnreachableError, CatalogError, LedgerError
from musictag.storage import parts, tables
from musictag.storage.urls import redacted

FAILURES_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("audio_etag", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("failed_at", pa.timestamp("us", "UTC")),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """One track that a run has to do."""

    track_id: str
    uri: str
    key: str | None
    """What the result depends on, such as the audio's etag; None where it could not be found out."""
    attempts: int = 0
    """Earlier runs that failed on the same audio."""


# What another try may end differently in, with the same audio: a store may answer, a limit may have been raised.
MAY_PASS = frozenset(error.__name__ for error in (AudioUnreachableError, AudioTooLongError, CatalogError))


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """What the failures table has of one track."""

    uri: str
    key: str | None
    error: str
    attempts: int

    def is_final(self, max_attempts: int) -> bool:
        """Whether there is no sense in another try: audio that is there, and that no decoder could make use of."""
        return self.error not in MAY_PASS and self.key is not None and self.attempts >= max_attempts


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a table already has of one track."""

    uri: str
    key: str
    made_by: str
    """Hash of the settings or version of the model that made the row."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run does, decided before it starts."""

    listed: int
    works: tuple[Work, ...]
    """New, changed and failed tracks, and those that another maker made."""
    given_up: frozenset[str]
    """Tracks that failed on the same audio as often as is allowed: failed, without another try."""
    unchanged: frozenset[str]
    stale: frozenset[str]
    """Tracks of which the table holds a row of other audio: wrong, and removed first."""
    superseded: frozenset[str]
    """Works of which the table holds a row by another maker: of use until the new one stands."""
    unlisted: frozenset[str]
    """Tracks that the table holds and nobody lists any more."""


@dataclasses.dataclass(frozen=True)
class Account:
    """How a run ended, for every listed track."""

    listed: int
    written: int
    unchanged: int
    failed: int

    def __str__(self) -> str:
        return (
            f"{self.listed:,} listed = {self.written:,} written + {self.unchanged:,} unchanged + {self.failed:,} failed"
        )


def make_plan(
    listed: Iterable[tuple[str, str, str | None]],
    held: Mapping[str, Held],
    made_by: str,
    failed: Mapping[str, Failed],
    max_attempts: int,
    problems: Collection[Problem] = (),
) -> Plan:
    """Compare `listed` (track_id, uri, key) with what the table has, and with what failed.

    A track is unchanged if uri, key and maker are equal. Where the key of a held track is unknown, the track is tried
    yet its row stays: a store that does not answer today has not changed the audio.
    """
    works: list[Work] = []
    given_up: set[str] = set()
    stale: set[str] = set()
    superseded: set[str] = set()
    unchanged: set[str] = set()
    for track_id, uri, key in listed:
        row = held.get(track_id)
        if row == Held(redacted(uri), key or "", made_by):
            unchanged.add(track_id)
            continue
        before = failed.get(track_id)
        if before is None or (before.uri, before.key) != (redacted(uri), key):
            works.append(Work(track_id, uri, key))
        elif before.is_final(max_attempts):
            given_up.add(track_id)
        else:
            works.append(Work(track_id, uri, key, before.attempts))
        if row is None or key is None:
            continue
        (superseded if (row.uri, row.key) == (redacted(uri), key) else stale).add(track_id)
    n_listed = len(works) + len(given_up) + len(unchanged) + len(problems)
    known = unchanged.union(given_up, (work.track_id for work in works), (problem.track_id for problem in problems))
    return Plan(
        listed=n_listed,
        works=tuple(works),
        given_up=frozenset(given_up),
        unchanged=frozenset(unchanged),
        stale=frozenset(stale),
        superseded=frozenset(superseded),
        unlisted=frozenset(held.keys() - known),
    )


def clear(plan: Plan, uri: str, *, prune: bool) -> None:
    """Remove the rows that are wrong before others are written, and with `prune` those of tracks that nobody lists."""
    tables.delete_tracks(uri, plan.stale | plan.unlisted if prune else plan.stale)


def into_parts(works: Sequence[Work], most: int, n_workers: int) -> list[tuple[Work, ...]]:
    """The plan's works in parts of at most `most`, as equal as can be, and as many for each of so many workers."""
    n_parts = min(n_workers * math.ceil(len(works) / (n_workers * most)), len(works))
    ends = [len(works) * n // n_parts for n in range(1, n_parts + 1)]
    return [tuple(works[begin:end]) for begin, end in itertools.pairwise([0, *ends])]


def part_name(works: Iterable[Work], made_by: str) -> str:
    """A name that derives from what the part holds and what makes it, equal on every try."""
    digest = hashlib.sha256(made_by.encode())
    for work in works:
        digest.update(repr((work.track_id, work.uri, work.key)).encode())
    return digest.hexdigest()[:24]


def failure(work: Work, error: AudioError) -> dict[str, Any]:
    """The row of the failures table that says what is wrong with one track."""
    return {
        "track_id": work.track_id,
        "uri": redacted(work.uri),
        "audio_etag": work.key,
        "stage": "fetch" if isinstance(error, AudioUnreachableError) else "decode",
        "error": type(error).__name__,
        "message": redacted(str(error)),
        "attempts": work.attempts + 1,
        "failed_at": datetime.datetime.now(datetime.UTC),
    }


def read_failed(failures_uri: str) -> dict[str, Failed]:
    """What the failures table has of each track; of several rows that which counts most attempts."""
    columns = ("track_id", "uri", "audio_etag", "error", "attempts")
    failed: dict[str, Failed] = {}
    for row in tables.read_columns(failures_uri, columns).to_pylist():
        before = failed.get(row["track_id"])
        if before is None or row["attempts"] > before.attempts:
            failed[row["track_id"]] = Failed(row["uri"], row["audio_etag"], row["error"], row["attempts"])
    return failed


def record_failures(failures_uri: str, part: str, rows: Sequence[Mapping[str, Any]], since_version: int) -> None:
    """Commit failures as one part, unless a try before this one has."""
    table = pa.Table.from_pylist(list(rows), FAILURES_SCHEMA)
    parts.write_table(failures_uri, part, FAILURES_SCHEMA, table, since_version)


def settle(
    plan: Plan,
    problems: Sequence[Problem],
    written: Collection[str],
    failures_uri: str,
    started: datetime.datetime,
    *,
    prune: bool = False,
) -> Account:
    """The account of a run that began at `started`, read from its tables; failures that are past are removed.

    With `prune`, those of tracks that nobody lists any more are as well.
    `written` are the tracks of which the table now holds a row by the run's own maker. Raises `LedgerError` naming
    tracks that are neither among them nor among the failures.
    """
    recent = tables.read_columns(failures_uri, ("track_id", "failed_at"))
    failed_now = {
        track_id
        for track_id, failed_at in zip(recent["track_id"].to_pylist(), recent["failed_at"].to_pylist(), strict=True)
        if failed_at >= started
    }
    recorded = set(recent["track_id"].to_pylist())
    works = {work.track_id for work in plan.works}
    failed = works & failed_now
    missing = (works - failed - set(written)) | (plan.given_up - recorded)
    if missing:
        raise LedgerError(
            f"{len(missing)} of {plan.listed} tracks are neither written nor failed, such as "
            f"{', '.join(sorted(missing)[:5])}: run again; if they stay missing, report it (failures: {failures_uri})"
        )
    past = f"failed_at < {tables.timestamp(started)}"
    if recorded and not prune:
        tables.delete_rows(failures_uri, f"{past} AND stage = 'catalog'")
    tables.delete_tracks(failures_uri, recorded - plan.given_up if prune else recorded & (works | plan.unchanged), past)
    tables.seal_rests(failures_uri)
    n_failed = len(failed) + len(plan.given_up) + len(problems)
    return Account(plan.listed, len(works) - len(failed), len(plan.unchanged), n_failed)


def check_failures(account: Account, max_failures: float, failures_uri: str) -> None:
    """Raise `LedgerError` if a larger share of the listed tracks failed than `max_failures` (0 to 1)."""
    if account.failed > max_failures * account.listed:
        raise LedgerError(
            f"{account.failed} of {account.listed} tracks failed, more than --max-failures {max_failures} allows: "
            f"see the reasons in {failures_uri}; everything else is written"
        )


def record_problems(failures_uri: str, problems: Sequence[Problem], failed: Mapping[str, Failed]) -> None:
    """Commit the catalog rows that cannot be used as failures of this run."""
    now = datetime.datetime.now(datetime.UTC)
    rows = [
        {
            "track_id": problem.track_id,
            "uri": redacted(problem.uri),
            "stage": "catalog",
            "error": "CatalogError",
            "message": redacted(f"row {problem.row}: {problem.message}"),
            "attempts": failed[problem.track_id].attempts + 1 if problem.track_id in failed else 1,
            "failed_at": now,
        }
        for problem in problems
    ]
    part = f"catalog-{now:%Y%m%dT%H%M%S%f}"
    parts.write_table(failures_uri, part, FAILURES_SCHEMA, pa.Table.from_pylist(rows, FAILURES_SCHEMA))
