"""Find rows that may be copied instead of decoding their audio again.

A library that moved, or whose files were touched, has other uris or etags, but the same audio. Workers read each file
and compare its digest with that of the earlier row; if they are equal, they copy the row. The earlier row may be
deleted already: its file stays until the table is vacuumed.
"""

import dataclasses
import datetime
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from musictag.errors import StoreError
from musictag.features.extract import Limits
from musictag.jobs.plan import CopySource, ExistingRow, Plan, Task, size_of
from musictag.jobs.progress import counted, echo
from musictag.storage import tables

Row = dict[str, Any]
FindRow = Callable[[Task, str], Row | None]
"""Returns the row to copy for a task whose audio has the given SHA-256; None if the audio has to be decoded."""

# Reading one row takes time in proportion to the rows of its file: deletes write files with very many rows.
_MAX_FILE_ROWS = 300


def with_copy_sources(plan: Plan, existing: Mapping[str, ExistingRow], producer: str, output_uri: str) -> Plan:
    """Return the plan with the `copy_source` of each task whose audio may be that of a row with the run's producer.

    This is the row of one of these tracks:

    - the same track, if its size is the same or not known;
    - a track that is not among the listed ones, with the same etag, or with the same file name and size.
    """
    # A hidden track is perhaps listed, but its row may be copied as well: only equal audio is.
    unlisted = {
        track_id: existing[track_id]
        for track_id in (*plan.hidden, *plan.orphaned)
        if existing[track_id].producer == producer
    }
    by_etag = {row.audio_etag: track_id for track_id, row in unlisted.items()}
    by_name = {
        (_file_name(row.uri), size): track_id
        for track_id, row in unlisted.items()
        if (size := size_of(row.audio_etag)) is not None
    }
    source_of: dict[str, str] = {}
    for task in plan.tasks:
        row, etag = existing.get(task.track_id), task.audio_etag
        if etag is None:
            continue
        if row is None:
            source = by_etag.get(etag) or by_name.get((_file_name(task.uri), size_of(etag) or -1))
            if source is not None:
                source_of[task.track_id] = source
        elif row.producer == producer and task.track_id in plan.stale and _may_have_one_size(row.audio_etag, etag):
            source_of[task.track_id] = task.track_id
    sources = _read_sources(output_uri, set(source_of.values()))
    tasks = (
        dataclasses.replace(task, copy_source=sources.get(source_of.get(task.track_id, ""))) for task in plan.tasks
    )
    return dataclasses.replace(plan, tasks=tuple(tasks)) if sources else plan


def _file_name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _may_have_one_size(old_etag: str, new_etag: str) -> bool:
    old, new = size_of(old_etag), size_of(new_etag)
    return old is None or new is None or old == new


def _read_sources(output_uri: str, track_ids: set[str]) -> dict[str, CopySource]:
    if not track_ids:
        return {}
    n_rows = tables.files(tables.open_table(output_uri))
    rows = tables.read_columns(output_uri, ("track_id", "audio_sha256", "__filename"))
    rows = rows.filter(pc.is_in(rows["track_id"], pa.array(sorted(track_ids), pa.string())))
    return {
        track_id: CopySource(track_id, sha256, file)
        for track_id, sha256, path in zip(*(column.to_pylist() for column in rows.columns), strict=True)
        if sha256 and n_rows.get(file := sys.intern(path.rpartition("/")[2]), 0) <= _MAX_FILE_ROWS
    }


def echo_known_audio(plan: Plan, output_uri: str) -> None:
    """Print how many tasks of a plan have the audio of the row that they could copy."""
    digests = {task.track_id: task.copy_source.audio_sha256 for task in plan.tasks if task.copy_source}
    if not digests:
        return
    rows = tables.read_columns(output_uri, ("track_id", "audio_sha256"))
    rows = rows.filter(pc.is_in(rows["track_id"], pa.array(sorted(digests), pa.string())))
    found = zip(rows["track_id"].to_pylist(), rows["audio_sha256"].to_pylist(), strict=True)
    if n_known := sum(digests[track_id] == sha256 for track_id, sha256 in found):
        echo(f"with the audio of an earlier row: {counted(n_known, 'track')}")


def find_row(
    task: Task, sha256: str, output_uri: str, schema: pa.Schema, time_column: str, limits: Limits
) -> Row | None:
    """Return the row to copy for a task, as columns of `schema`; None if the audio has to be decoded.

    A row is copied only if its audio has the digest `sha256`, and its damage is known and within the limits. Its
    `time_column` is set to now.
    """
    source = task.copy_source
    if source is None or source.audio_sha256 != sha256:
        return None
    try:
        found = tables.read_file(tables.absolute(output_uri), source.file, schema, {source.track_id})
        row = next((row for rows in found for row in rows.to_pylist()), None)
    except StoreError:  # the file was vacuumed, or is damaged: the audio is there, and is decoded
        return None
    if row is None or row["damaged_s"] is None:
        return None
    duration_s = row.get("duration_s")  # tags rows do not have it
    is_allowed = row["damaged_s"] <= limits.max_damage * duration_s if duration_s else not row["damaged_s"]
    return {**row, time_column: datetime.datetime.now(datetime.UTC)} if is_allowed else None
