"""Find music files on this machine, and decode them while the network scores earlier ones."""

import collections
import concurrent.futures
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import numpy.typing as npt

from musictag.catalog.folder import AUDIO_SUFFIXES, FolderListing, list_folder
from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.limits import DEFAULT_LIMITS, Limits
from musictag.storage import fetch

DECODE_THREADS = 2
# Bounds the memory: files that are decoded, or being decoded, before the network needs them.
DECODED_AHEAD = 4
NO_FOLDER = FolderListing((), {}, {})


@dataclasses.dataclass(frozen=True)
class DecodedTrack:
    """The clips of a file, and where they begin."""

    clips: npt.NDArray[np.float16]
    """(C, T, M)."""
    start_s: list[float]
    """Start of each clip (C,), s."""
    duration_s: float
    damaged_s: float
    """Seconds that are lost by damage of the file."""


def find(arguments: Iterable[Path], *, follow_links: bool = True) -> tuple[list[Path], Counter[str]]:
    """Return the files among `arguments` and in the folders among them, and the numbers of files that are left out.

    The files of a folder are in the order of a folder catalog; `catalog.folder.FolderListing` describes the numbers.
    A folder that has no audio files or cannot be listed is returned itself: `read` then raises an error that says so.
    """
    local = fsspec.filesystem("file")
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in arguments:
        try:
            is_folder = os.path.isdir(path)  # noqa: PTH112 # pathlib raises if access is denied
            listing = list_folder(local, str(path), follow_links=follow_links) if is_folder else NO_FOLDER
        except OSError:
            listing = NO_FOLDER
        files += [path / relative for relative in (*listing.audio, *sorted(listing.unlistable))] or [path]
        left_out.update(listing.left_out)
    return files, left_out


def path_text(path: Path) -> str:
    """Return a path as text that can be encoded; bytes that are not UTF-8 become a backslash, x and two hex digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read(
    path: Path,
    config: FeatureConfig,
    clips_per_track: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> DecodedTrack:
    """Decode a local file and return its clips. Raises an `AudioError` if the file cannot be used."""
    name = path_text(path)
    if name != str(path):
        raise AudioUnreachableError(f"{name}: the file name is not UTF-8; rename it")
    try:  # not `fetch.local_audio`, which would read some file names as URLs
        is_empty = not fetch.has_content(path)
    except IsADirectoryError as error:
        raise AudioUnreachableError(f"{name}: {_folder_reason(path)}") from error
    except OSError as error:
        raise AudioUnreachableError(f"{name}: cannot be read: {error.strerror or error}") from error
    if is_empty:
        raise AudioEmptyError(f"{name}: the file is empty (0 bytes)")
    track = extract.track_clips(path, name, config, clips_per_track, limits)
    start_s = [start * config.hop_length / config.sample_rate for start in track.starts]
    return DecodedTrack(track.clips, start_s, track.duration_s, track.damaged_s)


def _folder_reason(folder: Path) -> str:
    """Return why a folder has no tags."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f"the folder cannot be listed: {error.strerror or error}"
    return f"the folder holds no audio file ({' '.join(sorted(AUDIO_SUFFIXES))})"


def read_ahead(
    paths: Iterable[Path],
    config: FeatureConfig,
    clips_per_track: int | None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[tuple[Path, DecodedTrack | AudioError]]:
    """Yield each path in order with its track or error, while threads decode the next few."""

    def read_or_error(path: Path) -> DecodedTrack | AudioError:
        try:
            return read(path, config, clips_per_track, limits)
        except AudioError as error:
            return error

    waiting: collections.deque[tuple[Path, concurrent.futures.Future[DecodedTrack | AudioError]]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(DECODE_THREADS)
    try:
        for path in paths:
            waiting.append((path, pool.submit(read_or_error, path)))
            if len(waiting) > DECODED_AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
