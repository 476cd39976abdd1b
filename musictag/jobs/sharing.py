"""Detect that two catalogs write to the same table: each run would delete the rows of the other."""

import concurrent.futures
import dataclasses

import duckdb

from musictag.errors import AudioEmptyError, AudioError, AudioMissingError, AudioUnreachableError, UsageError
from musictag.storage import fetch, urls
from musictag.storage.checksums import file_sha256

# Tracks whose earlier uri is looked at; of more tracks, these are evenly spread.
MAX_COMPARED = 100
_THREADS = 32


@dataclasses.dataclass(frozen=True)
class Moved:
    """A task whose track has a row with another uri."""

    track_id: str
    uri: str
    earlier: str
    """The uri in the row."""


def moved_tasks(connection: duckdb.DuckDBPyConnection) -> list[Moved]:
    """Return some tasks of the plan whose track has a row with another uri; see `plan` for the connection's tables."""
    found = connection.execute(_MOVED, {"max_compared": MAX_COMPARED}).fetchall()
    # Rows of earlier versions may hold secrets that are redacted now.
    moved = [Moved(track_id, uri, urls.redacted(earlier)) for track_id, uri, earlier in found]
    return [each for each in moved if each.earlier != urls.redacted(each.uri)]


_MOVED = """
SELECT track_id, uri, existing_uri
FROM (
    SELECT *, row_number() OVER (ORDER BY number) - 1 AS position, count(*) OVER () AS total
    FROM plan WHERE state = 'task' AND existing_uri <> stored_uri
)
WHERE position % greatest(1, ceil(total / $max_compared)::BIGINT) = 0
ORDER BY number
"""


def check_not_shared(connection: duckdb.DuckDBPyConnection, source: str, output_uri: str) -> None:
    """Raise `UsageError` if other audio than that of a task is, or may be, still at the earlier uri of its track.

    If the earlier file is gone or has the same bytes, the track was moved, and its row may be replaced.
    """
    compared = moved_tasks(connection)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        for moved, is_other in zip(compared, threads.map(_is_other_audio, compared), strict=True):
            if is_other:
                raise UsageError(
                    f"{output_uri} holds the track {moved.track_id} of {moved.earlier}, which is still there, and "
                    f"{source} lists {moved.uri} under the same id: if two catalogs share the table, name another "
                    "table for one of them; if the tracks of the table are to be replaced, use --replace"
                )


def _is_other_audio(moved: Moved) -> bool:
    """Return whether other audio is at the earlier uri; raise `UsageError` if the earlier audio cannot be read."""
    earlier = moved.earlier
    if "***" in earlier or urls.rejection_reason(earlier):  # a secret that is not stored, or a uri that nobody opens
        return False
    try:
        before = _digest(earlier)
    except (AudioEmptyError, AudioMissingError):
        return False
    except (AudioUnreachableError, OSError) as error:
        raise UsageError(
            f"the track {moved.track_id} of {earlier} is now listed at {moved.uri}, and it is not known whether it "
            f"moved or two catalogs share the table, because the earlier file cannot be read ({error}): make it "
            "readable, or if the tracks of the table are to be replaced, use --replace"
        ) from error
    try:
        return _digest(moved.uri) != before
    except (AudioError, OSError):  # its failure is recorded later
        return False


def _digest(uri: str) -> str:
    with fetch.local_audio(uri) as path:
        return file_sha256(path)
