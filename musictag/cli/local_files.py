"""Find music files on this machine, and decode them while the network scores earlier ones."""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import numpy.typing as npt

from musictag.catalog.reader import AUDIO_SUFFIXES, audio_files
from musictag.errors import AudioEmptyError, AudioError, AudioUnreachableError
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.storage import fetch

DECODE_THREADS = 2
# Bounds the memory: files that are decoded, or being decoded, before the network needs them.
DECODED_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class DecodedTrack:
    """The clips of a file, and where they begin."""

    clips: npt.NDArray[np.float16]
    """(C, T, M)."""
    start_s: list[float]
    """Start of each clip (C,), s."""
    duration_s: float


def find(arguments: Iterable[Path]) -> list[Path]:
    """Return the files among `arguments`, and the files in the folders among them, in the order of a folder catalog.

    A folder without audio files is returned itself: `read` then raises an error that says so.
    """
    local = fsspec.filesystem("file")
    files: list[Path] = []
    for path in arguments:
        is_folder = os.path.isdir(path)  # noqa: PTH112 # pathlib raises if access is denied
        relatives = audio_files(local, os.path.abspath(path)) if is_folder else []  # noqa: PTH100 # does not resolve links
        files += [path / relative for relative in relatives] or [path]
    return files


def printable(path: Path) -> str:
    """Return a path as text that can be encoded; bytes that are not UTF-8 become a backslash, x and two hex digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read(path: Path, config: FeatureConfig, clips_per_track: int | None = None) -> DecodedTrack:
    """Decode a local file and return its clips. Raises an `AudioError` if the file cannot be used."""
    name = printable(path)
    if name != str(path):
        raise AudioUnreachableError(f"{name}: the file name is not UTF-8; rename it")
    try:  # not `fetch.local_audio`, which would read some file names as URLs
        is_empty = not fetch.has_content(path)
    except IsADirectoryError as error:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        raise AudioUnreachableError(f"{name}: the folder holds no audio file ({suffixes})") from error
    except OSError as error:
        raise AudioUnreachableError(f"{name}: cannot be read: {error.strerror or error}") from error
    if is_empty:
        raise AudioEmptyError(f"{name}: the file is empty (0 bytes)")
    clips, starts, duration_s = extract.track_clips(path, name, config, clips_per_track)
    return DecodedTrack(clips, [start * config.hop_length / config.sample_rate for start in starts], duration_s)


def read_ahead(
    paths: Iterable[Path], config: FeatureConfig, clips_per_track: int | None
) -> Iterator[tuple[Path, DecodedTrack | AudioError]]:
    """Yield each path in order with its track or error, while threads decode the next few."""

    def read_or_error(path: Path) -> DecodedTrack | AudioError:
        try:
            return read(path, config, clips_per_track)
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
