"""Recognize audio that the output table knows under another uri, time or id, so that it is not decoded again.

A library that moved, or whose files were touched, has other uris or etags, but the same audio. Workers read each file
and compare its digest with that of the row; if they are equal, they copy the row.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from musictag.errors import StoreError
from musictag.jobs.plan import ExistingRow, KnownAudio, Plan, Task, size_of
from musictag.jobs.progress import counted, echo
from musictag.storage import tables

Row = dict[str, Any]
FindRow = Callable[[Task, str], Row | None]
"""Returns the row to copy for a task whose audio has the given SHA-256; None if the audio has to be decoded."""


def recognize(plan: Plan, existing: Mapping[str, ExistingRow], producer: str, output_uri: str) -> Plan:
    """Return the plan with `known` set for each task whose audio may be that of a row with the producer of the run.

    This is the row of the same track, unless the size has changed, or the row of a track that is not listed any more,
    if its etag, or its file name and size, are those of a new track.
    """
    orphans = {track_id: existing[track_id] for track_id in plan.orphaned if existing[track_id].producer == producer}
    by_etag = {row.audio_etag: track_id for track_id, row in orphans.items()}
    by_name = {_name_and_size(row.uri, row.audio_etag): track_id for track_id, row in orphans.items()}
    rows: dict[str, str] = {}  # task to track of the row
    for task in plan.tasks:
        row = existing.get(task.track_id)
        if row is None and task.audio_etag is not None:
            earlier = by_etag.get(task.audio_etag) or by_name.get(_name_and_size(task.uri, task.audio_etag))
            if earlier is not None:
                rows[task.track_id] = earlier
        elif row is not None and row.producer == producer and task.track_id in plan.stale:
            sizes = {size_of(row.audio_etag), size_of(task.audio_etag or "")} - {None}
            if len(sizes) < 2:
                rows[task.track_id] = task.track_id
    known = _read_known(output_uri, set(rows.values()))
    rows = {track_id: earlier for track_id, earlier in rows.items() if earlier in known}
    recognizable = frozenset(track_id for track_id, earlier in rows.items() if track_id == earlier)
    tasks = (
        dataclasses.replace(task, known=known[rows[task.track_id]]) if task.track_id in rows else task
        for task in plan.tasks
    )
    return dataclasses.replace(plan, tasks=tuple(tasks), stale=plan.stale - recognizable, recognizable=recognizable)


def _name_and_size(uri: str, audio_etag: str) -> tuple[str, int] | None:
    size = size_of(audio_etag)
    return None if size is None else (uri.rpartition("/")[2], size)


def _read_known(output_uri: str, track_ids: set[str]) -> dict[str, KnownAudio]:
    if not track_ids:
        return {}
    rows = tables.read_columns(output_uri, ("track_id", "audio_sha256", "__filename"))
    rows = rows.filter(pc.is_in(rows["track_id"], pa.array(sorted(track_ids), pa.string())))
    return {
        track_id: KnownAudio(track_id, sha256, path.rpartition("/")[2])
        for track_id, sha256, path in zip(*(column.to_pylist() for column in rows.columns), strict=True)
        if sha256
    }


def echo_copied(plan: Plan, output_uri: str) -> None:
    """Print how many tasks of a plan were not decoded, because their audio was known."""
    known = {task.track_id: task.known.audio_sha256 for task in plan.tasks if task.known}
    if not known:
        return
    rows = tables.read_columns(output_uri, ("track_id", "audio_sha256"))
    rows = rows.filter(pc.is_in(rows["track_id"], pa.array(sorted(known), pa.string())))
    digests = zip(rows["track_id"].to_pylist(), rows["audio_sha256"].to_pylist(), strict=True)
    if n_copied := sum(known[track_id] == sha256 for track_id, sha256 in digests):
        echo(f"not decoded, because their audio is known: {counted(n_copied, 'track')}")


def find_no_row(_task: Task, _sha256: str) -> None:
    """Return None: every track is decoded. It is a `FindRow`."""


def find_row(task: Task, sha256: str, output_uri: str, schema: pa.Schema) -> Row | None:
    """Return the row that is known for a task, as columns of `schema`, if its audio has this digest; else None."""
    if task.known is None or task.known.audio_sha256 != sha256:
        return None
    try:
        rows = tables.read_file(output_uri, task.known.file, schema, {task.known.track_id})
        return next((row for some in rows for row in some.to_pylist()), None)
    except StoreError:  # vacuumed meanwhile, or damaged: the audio is there, and is decoded
        return None
