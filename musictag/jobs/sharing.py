"""Detect that two catalogs write to the same table: each run would delete the rows of the other."""

import concurrent.futures
from collections.abc import Sequence

from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError, UsageError
from musictag.jobs.plan import ExistingRow, Plan, Task
from musictag.storage import fetch, urls
from musictag.storage.checksums import file_sha256

# Tracks whose earlier uri is looked at; of more tracks, these are evenly spread.
MAX_COMPARED = 100

Moved = tuple[Task, str]
"""A task, and the uri in the row of its track."""


def moved_tasks(plan: Plan, existing: dict[str, ExistingRow]) -> list[Moved]:
    """Return the tasks whose track has a row with another uri."""
    rows = ((task, existing.get(task.track_id)) for task in plan.tasks)
    # Rows of earlier versions may hold secrets that are redacted now.
    pairs = ((task, urls.redacted(row.uri)) for task, row in rows if row)
    return [(task, earlier) for task, earlier in pairs if earlier != urls.redacted(task.uri)]


def check_not_shared(moved: Sequence[Moved], source: str, output_uri: str) -> None:
    """Raise `UsageError` if other audio than that of a task is, or may be, still at the earlier uri of its track.

    If the earlier file is gone or has the same bytes, the track was moved, and its row may be replaced.
    """
    step = max(1, -(-len(moved) // MAX_COMPARED))
    with concurrent.futures.ThreadPoolExecutor(fetch.ETAG_THREADS) as threads:
        compared = moved[::step]
        for (task, earlier), is_other in zip(compared, threads.map(_is_other_audio, compared), strict=True):
            if is_other:
                raise UsageError(
                    f"{output_uri} holds the track {task.track_id} of {earlier}, which is still there, and {source} "
                    f"lists {task.uri} under the same id: if two catalogs share the table, name another table for one "
                    "of them; if the tracks of the table are to be replaced, use --replace"
                )


def _is_other_audio(moved: Moved) -> bool:
    """Return whether other audio is at the earlier uri; raise `UsageError` if the earlier audio cannot be read."""
    task, earlier = moved
    if "***" in earlier or urls.rejection_reason(earlier):  # a secret that is not stored, or a uri that nobody opens
        return False
    try:
        before = _digest(earlier)
    except AudioEmptyError:
        return False
    except (AudioUnreachableError, OSError) as error:
        if isinstance(error, AudioUnreachableError) and fetch.is_missing(error):
            return False
        raise UsageError(
            f"the track {task.track_id} of {earlier} is now listed at {task.uri}, and it is not known whether it moved "
            f"or two catalogs share the table, because the earlier file cannot be read ({error}): make it readable, or "
            "if the tracks of the table are to be replaced, use --replace"
        ) from error
    try:
        return _digest(task.uri) != before
    except (AudioError, OSError):  # its failure is recorded later
        return False


def _digest(uri: str) -> str:
    with fetch.local_audio(uri) as path:
        return file_sha256(path)
