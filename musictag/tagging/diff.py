"""What another model would change in a tags table, computed on a sample before anything is written."""

import collections
import hashlib
import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from musictag.errors import LedgerError, UsageError
from musictag.evaluation.report import format_table
from musictag.jobs.plan import Task
from musictag.jobs.progress import bar, echo
from musictag.storage import tables
from musictag.tagging.table import read_existing

TagsByTrack = Mapping[str, frozenset[str]]
"""The tags of each track, by its id."""
COUNTS = ("now", "gain", "lose", "then")


def echo_diff(
    tags_uri: str,
    source: str,
    uris: Mapping[str, str],
    n_tracks: int,
    *,
    producer: str,
    vocabulary: Collection[str],
    vocabulary_of: Callable[[str], Collection[str]],
    score: Callable[[tuple[Task, ...]], Iterable[list[dict[str, Any]]]],
) -> None:
    """Print how many tracks a model would gain and lose each tag on; write nothing.

    Args:
        tags_uri: the tags table to compare with.
        source: the catalog or features table, as messages name it.
        uris: its tracks, track_id to uri.
        n_tracks: size of the sample, which is drawn from tracks that both hold.
        producer: the new model, as `table.producer_of` names it.
        vocabulary: the tags that it knows.
        vocabulary_of: returns the tags that another producer knows.
        score: yields rows of the tags table, some with a `failure`, for tasks; called once.

    Raises:
        UsageError: the tags table is empty, or has no track in common with the source.
        LedgerError: all sampled tracks failed.
    """
    existing = read_existing(tags_uri)
    if not existing:
        raise UsageError(
            f"--diff compares with tags, and {tags_uri} holds none: name another table with --tags, or tag"
        )
    common = uris.keys() & existing.keys()
    if not common:
        raise UsageError(f"{tags_uri} and {source} have no track in common: name what was tagged, or its tags")
    producers = collections.Counter(row.producer for row in existing.values())
    names = ", ".join(f"{name} ({n:,})" for name, n in producers.most_common())
    echo(f"{tags_uri}: {len(existing):,} tracks, tagged by {names}; {len(common):,} of them are in {source}")
    known = {tag for name in producers for tag in vocabulary_of(name)}

    tasks = tuple(Task(track_id, uris[track_id], None) for track_id in sample(common, n_tracks))
    rows: list[dict[str, Any]] = []
    with bar((), "score", len(tasks), "track") as shown:
        for part in score(tasks):
            rows += part
            shown.update(len(part))
    failures = [row["failure"]["message"] for row in rows if row["failure"]]
    if failures:
        echo(f"{len(failures):,} of {len(tasks):,} sampled tracks failed and are left out, such as: {failures[0]}")
    if len(failures) == len(tasks):
        raise LedgerError("all sampled tracks failed, so that nothing can be compared")
    before = tags_by_track(tables.read_rows(tags_uri, ("track_id", "tags"), [task.track_id for task in tasks]))
    after = tags_by_track(row for row in rows if not row["failure"])
    echo(report(before, after, known.union(*before.values()), vocabulary))
    echo(f"compared with what {producer} gives {len(after):,} of these tracks; nothing was written")


def sample(track_ids: Iterable[str], n_tracks: int) -> list[str]:
    """`n_tracks` of the tracks, or all if they are fewer: those of the least SHA-256, on every machine the same.

    A catalog that grows keeps most of its sample.
    """
    return heapq.nsmallest(n_tracks, track_ids, key=lambda track_id: hashlib.sha256(track_id.encode()).digest())


def tags_by_track(rows: Iterable[Mapping[str, Any]]) -> TagsByTrack:
    """The tags of tracks, from rows of a tags table (`tagging.table.TAGS_SCHEMA`)."""
    return {row["track_id"]: frozenset(tag["tag"] for tag in row["tags"]) for row in rows}


def changes(before: TagsByTrack, after: TagsByTrack, vocabulary: Iterable[str]) -> pa.Table:
    """Rows of tag, now, gain, lose, then: how many tracks have a tag, would gain and lose it, and would have it.

    Tracks count that are in both. Every tag of `vocabulary` has a row, and every other that a track has; the tags that
    change most come first, those that change equally by code point.
    """
    both = before.keys() & after.keys()
    rows: list[dict[str, Any]] = []
    for tag in {*vocabulary, *(tag for track in both for tag in before[track] | after[track])}:
        had, has = ({track for track in both if tag in tags[track]} for tags in (before, after))
        rows.append({"tag": tag, "now": len(had), "gain": len(has - had), "lose": len(had - has), "then": len(has)})
    rows.sort(key=lambda row: (-row["gain"] - row["lose"], row["tag"]))
    return pa.Table.from_pylist(rows, pa.schema({"tag": pa.string(), **dict.fromkeys(COUNTS, pa.int64())}))


def report(before: TagsByTrack, after: TagsByTrack, known: Collection[str], known_after: Collection[str]) -> str:
    """The table for the terminal, with the share of tracks that each tag changes on; and what there is to say of all.

    Args:
        before: what the tags table holds.
        after: what the new model gives; at least one track is in both.
        known: the tags that the models of the table know.
        known_after: the tags that the new model knows.
    """
    both = sorted(before.keys() & after.keys())
    table = changes(before, after, {*known, *known_after})
    shares = [f"{(row['gain'] + row['lose']) / len(both):6.1%}" for row in table.to_pylist()]
    n_changed = sum(before[track] != after[track] for track in both)
    lines = [
        f"{n_changed:,} of {len(both):,} sampled tracks ({n_changed / len(both):.1%}) would change: "
        f"{sum(bool(after[track] - before[track]) for track in both):,} gain a tag, "
        f"{sum(bool(before[track] - after[track]) for track in both):,} lose one."
    ]
    for who, only in (("new", {*known_after} - {*known}), ("old", {*known} - {*known_after})):
        if only:
            lines.append(f"Only the {who} model knows {len(only)} tags: {', '.join(sorted(only))}.")
    return "\n".join([format_table(table.append_column("changes", pa.array(shares, pa.string()))), "", *lines])
