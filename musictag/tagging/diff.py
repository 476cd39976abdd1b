"""Compare a tags table with the tags of another model on a sample of tracks, without writing anything."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from musictag.errors import LedgerError, UsageError
from musictag.evaluation.report import format_table
from musictag.jobs.plan import load_listed
from musictag.jobs.plan_files import Task
from musictag.jobs.progress import bar, echo
from musictag.storage import queries, tables
from musictag.tagging.table import ModelIdentity

TagsByTrack = Mapping[str, frozenset[str]]
"""The tags of each track, by track_id."""
Score = Callable[[Sequence[Task]], Iterable[pa.Table]]
"""Scores tasks: yields rows of the tags table, each with a `failure` or null."""
COUNTS = ("now", "gain", "lose", "then")


def echo_diff(
    tags_uri: str,
    source: str,
    tracks: Iterable[pa.RecordBatch],
    n_tracks: int,
    *,
    model: ModelIdentity,
    vocabulary: Collection[str],
    vocabulary_of: Callable[[str, str], Collection[str]],
    score: Score,
) -> None:
    """Print for each tag how many sampled tracks would gain and lose it with a new model.

    Args:
        tags_uri: the tags table to compare with.
        source: the catalog or features table, as messages name it.
        tracks: the tracks of the source, as `plan.load_listed` takes them.
        n_tracks: size of the sample, which is drawn from the tracks that are in the source and in the tags table.
        model: the new model.
        vocabulary: the tags of the new model.
        vocabulary_of: returns the tags of another model, from its name and version.
        score: scores tasks with the new model; called once.

    Raises:
        UsageError: the tags table is empty, or has no track in common with the source.
        LedgerError: all sampled tracks failed.
    """
    with queries.connect() as connection:
        queries.load(connection, "tagged", tables.scan(tags_uri, ("track_id", "model", "model_version")))
        models = connection.execute(_MODELS).fetchall()
        if not models:
            raise UsageError(
                f"--diff compares with tags, and {tags_uri} holds none: name another table with --tags, or run without "
                "--diff first"
            )
        load_listed(connection, tracks)
        (n_common,) = connection.execute(f"SELECT count(*) FROM ({_COMMON})").fetchall()[0]
        tasks = [Task(track_id, uri, None, features_file=file) for track_id, uri, file in sample(connection, n_tracks)]
    if not tasks:
        raise UsageError(
            f"{tags_uri} and {source} have no track in common: name the catalog or features that were "
            "tagged, or another table with --tags"
        )
    names = ", ".join(f"{name} {version} ({n:,})" for name, version, n in models)
    n_tagged = sum(n for *_, n in models)
    echo(f"{tags_uri}: {n_tagged:,} tracks, tagged by {names}; {n_common:,} of them are in {source}")
    known = {tag for name, version, _ in models for tag in vocabulary_of(name, version)}

    rows = tables.read_rows(tags_uri, ("track_id", "tags", "tagged_at"), [task.track_id for task in tasks])
    before = tags_by_track(sorted(rows, key=lambda row: row["tagged_at"]))  # of two rows of a track, the newer one
    after = tags_by_track(_score_sample(tasks, score))
    echo(report(before, after, known.union(*before.values()), vocabulary))
    echo(f"compared with the tags that {model} gives to {len(after):,} of these tracks; nothing was written")


_MODELS = "SELECT model, model_version, count(*) AS n FROM tagged GROUP BY model, model_version ORDER BY n DESC"
_COMMON = "SELECT track_id, uri, features_file FROM listed SEMI JOIN tagged USING (track_id)"


def sample(connection: duckdb.DuckDBPyConnection, n_tracks: int) -> list[tuple[str, str, str | None]]:
    """Return id, uri and features file of the `n_tracks` tracks whose id has the lowest SHA-256, or of all tracks.

    The sample is the same on every machine, and a growing catalog keeps most of it. The tracks are those of the
    connection's table `listed` that are also in its table `tagged`.
    """
    return connection.execute(f"{_COMMON} ORDER BY sha256(track_id) LIMIT $n", {"n": n_tracks}).fetchall()


def _score_sample(tasks: Sequence[Task], score: Score) -> list[dict[str, Any]]:
    """Return the rows of the tracks that did not fail; raise `LedgerError` if all of them failed."""
    rows: list[dict[str, Any]] = []
    with bar((), "score", len(tasks), "track") as progress_bar:
        for part in score(tasks):
            rows += part.to_pylist()
            progress_bar.update(len(part))
    failures = [row["failure"]["message"] for row in rows if row["failure"]]
    if failures:
        echo(f"{len(failures):,} of {len(tasks):,} sampled tracks failed and are left out, such as: {failures[0]}")
    if len(failures) == len(tasks):
        raise LedgerError("all sampled tracks failed, so that nothing can be compared")
    return [row for row in rows if not row["failure"]]


def tags_by_track(rows: Iterable[Mapping[str, Any]]) -> TagsByTrack:
    """Return the tags of tracks from rows of a tags table (`tagging.table.TAGS_SCHEMA`)."""
    return {row["track_id"]: frozenset(tag["tag"] for tag in row["tags"]) for row in rows}


def changes(before: TagsByTrack, after: TagsByTrack, vocabulary: Iterable[str]) -> pa.Table:
    """Count for each tag the tracks that have it (now), would gain it, would lose it, and would have it (then).

    Only tracks in both `before` and `after` are counted. There is a row for every tag of `vocabulary` and of a track,
    sorted by the number of changes, largest first, then by the name of the tag.
    """
    both = before.keys() & after.keys()
    rows: list[dict[str, Any]] = []
    for tag in {*vocabulary, *(tag for track in both for tag in before[track] | after[track])}:
        had, has = ({track for track in both if tag in tags[track]} for tags in (before, after))
        rows.append({"tag": tag, "now": len(had), "gain": len(has - had), "lose": len(had - has), "then": len(has)})
    rows.sort(key=lambda row: (-row["gain"] - row["lose"], row["tag"]))
    return pa.Table.from_pylist(rows, pa.schema({"tag": pa.string(), **dict.fromkeys(COUNTS, pa.int64())}))


def report(before: TagsByTrack, after: TagsByTrack, known: Collection[str], known_after: Collection[str]) -> str:
    """Format the table of `changes`, with the fraction of tracks that change, and totals, for the terminal.

    Args:
        before: the tags in the tags table.
        after: the tags of the new model; at least one track is in both.
        known: the tags that the models of the tags table know.
        known_after: the tags that the new model knows.
    """
    both = sorted(before.keys() & after.keys())
    table = changes(before, after, {*known, *known_after})
    fractions = [f"{(row['gain'] + row['lose']) / len(both):6.1%}" for row in table.to_pylist()]
    n_changed = sum(before[track] != after[track] for track in both)
    lines = [
        f"{n_changed:,} of {len(both):,} sampled tracks ({n_changed / len(both):.1%}) would change: "
        f"{sum(bool(after[track] - before[track]) for track in both):,} gain a tag, "
        f"{sum(bool(before[track] - after[track]) for track in both):,} lose one."
    ]
    for model, tags in (("new", {*known_after} - {*known}), ("old", {*known} - {*known_after})):
        if tags:
            lines.append(f"Tags that only the {model} model knows ({len(tags)}): {', '.join(sorted(tags))}.")
    return "\n".join([format_table(table.append_column("changes", pa.array(fractions, pa.string()))), "", *lines])
