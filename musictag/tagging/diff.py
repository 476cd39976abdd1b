"""What another model would change in a tags table, told on a sample before anything is written."""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from musictag.evaluation.report import format_table

Given = Mapping[str, frozenset[str]]
"""The tags of each track, by its id."""
COUNTS = ("now", "gain", "lose", "then")


def sample(track_ids: Iterable[str], n_tracks: int) -> list[str]:
    """`n_tracks` of the tracks, or all if they are fewer: those of the least SHA-256, on every machine the same.

    A catalog that grows keeps most of its sample.
    """
    return heapq.nsmallest(n_tracks, track_ids, key=lambda track_id: hashlib.sha256(track_id.encode()).digest())


def given(rows: Iterable[Mapping[str, Any]]) -> Given:
    """The tags of tracks, from rows of a tags table (`musictag.tagging.tagger.TAGS_SCHEMA`)."""
    return {row["track_id"]: frozenset(tag["tag"] for tag in row["tags"]) for row in rows}


def changes(before: Given, after: Given, vocabulary: Iterable[str]) -> pa.Table:
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


def report(before: Given, after: Given, known: Collection[str], known_after: Collection[str]) -> str:
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
