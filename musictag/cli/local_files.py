"""Music files of this machine: found, and decoded while the network is still busy with those before."""

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
# Files decoded ahead of the network: some more than there are threads, and no more however many files there are.
DECODED_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Track:
    """A file as the network sees it."""

    clips: npt.NDArray[np.float16]
    """(C, T, M)."""
    start_s: list[float]
    """Where each clip starts (C,), s."""
    duration_s: float


def find(arguments: Iterable[Path]) -> list[Path]:
    """The files that are named, and those that a folder catalog of each named folder would list, in its order.

    A folder without any stands for itself, so that reading it says so.
    """
    local = fsspec.filesystem("file")
    files: list[Path] = []
    for path in arguments:
        is_folder = os.path.isdir(path)  # noqa: PTH112 # of a path that may not be asked, pathlib raises
        within = audio_files(local, os.path.abspath(path)) if is_folder else []  # noqa: PTH100 # it follows no links
        files += [path / relative for relative in within] or [path]
    return files


def printable(path: Path) -> str:
    """A path as text that any stream can take: bytes that are not UTF-8 are written as backslash, x and two digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read(path: Path, config: FeatureConfig, clips_per_track: int | None = None) -> Track:
    """Decode a local file and cut its clips. Raises an `AudioError` that says what is wrong with it."""
    name = printable(path)
    if name != str(path):
        raise AudioUnreachableError(f"{name}: the file name is not UTF-8; rename it")
    try:  # not `fetching.local_audio`: to that, a file's name may read like a url
        is_empty = not fetch.has_content(path)
    except IsADirectoryError as error:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        raise AudioUnreachableError(f"{name}: the folder holds no audio file ({suffixes})") from error
    except OSError as error:
        raise AudioUnreachableError(f"{name}: cannot be read: {error.strerror}") from error
    if is_empty:
        raise AudioEmptyError(f"{name}: the file is empty (0 bytes)")
    clips, starts, duration_s = extract.track_clips(path, name, config, clips_per_track)
    return Track(clips, [start * config.hop_length / config.sample_rate for start in starts], duration_s)


def read_ahead(
    paths: Iterable[Path], config: FeatureConfig, clips_per_track: int | None
) -> Iterator[tuple[Path, Track | AudioError]]:
    """Each path, in order, with its track or what is wrong with it; the next few are read meanwhile."""

    def outcome(path: Path) -> Track | AudioError:
        try:
            return read(path, config, clips_per_track)
        except AudioError as error:
            return error

    waiting: collections.deque[tuple[Path, concurrent.futures.Future[Track | AudioError]]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(DECODE_THREADS)
    try:
        for path in paths:
            waiting.append((path, pool.submit(outcome, path)))
            if len(waiting) > DECODED_AHEAD:
                first, reading = waiting.popleft()
                yield first, reading.result()
        while waiting:
            first, reading = waiting.popleft()
            yield first, reading.result()
    finally:
        pool.shutdown(cancel_futures=True)
