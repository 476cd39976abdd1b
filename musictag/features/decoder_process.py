"""Decoding in a process of its own, kept alive: a decoder that crashes or hangs costs the one track that it did so on.

Files come from anywhere, and decoders are C: what makes one of them read where it should not ends its process, and with
it, were it ours, every track that the process had at hand.

Clips come back in a nameless file that both processes have open: through a pipe they would be there six times at once.
"""

import concurrent.futures
import functools
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import reduction
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pebble
import psutil
import threadpoolctl

from musictag.errors import AudioCrashError, AudioTimeoutError, StoreError
from musictag.features.config import FeatureConfig
from musictag.features.extract import MAX_HOURS, TrackClips, track_clips
from musictag.features.table import CELL_DTYPE, encode_clips

ClipsElsewhere = tuple[tuple[int, ...], list[int], float]

# An hour of audio takes some seconds, and some 200 MB.
TIME_LIMIT_S, MEMORY_LIMIT_GIB = 300.0, 4.0


class DecoderProcess:
    """A process that decodes, on one core; started on first use, and anew where it was lost."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S, memory_limit_gib: float = MEMORY_LIMIT_GIB) -> None:
        self.time_limit_s, self.memory_limit_gib = time_limit_s, memory_limit_gib
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 # `close` closes it
        self._pool = self._new_pool()
        self._one_at_a_time = threading.Lock()  # a process that is lost takes with it what waits for it

    def track_clips(
        self,
        path: Path,
        name: str,
        config: FeatureConfig,
        clips_per_track: int | None = None,
        max_hours: float = MAX_HOURS,
    ) -> TrackClips:
        """As `features.track_clips`, elsewhere; one track at a time, whatever the threads that ask.

        Raises what that raises, `AudioCrashError` where the process was lost or its memory was not enough,
        `AudioTimeoutError`, or `StoreError` where the folder for temporary files is full.
        """
        try:
            with self._one_at_a_time:
                shape, starts, duration_s = self._schedule(path, name, config, clips_per_track, max_hours).result()
                self._file.seek(0)
                return np.fromfile(self._file, CELL_DTYPE, math.prod(shape)).reshape(shape), starts, duration_s
        except concurrent.futures.TimeoutError as error:
            raise AudioTimeoutError(f"{name}: not decoded within {self.time_limit_s:g} s") from error
        except pebble.ProcessExpired as error:
            raise AudioCrashError(f"{name}: the decoder crashed (exit code {error.exitcode})") from error
        except MemoryError as error:
            raise AudioCrashError(
                f"{name}: decoding takes more than {self.memory_limit_gib:g} GiB of memory"
            ) from error
        except concurrent.futures.BrokenExecutor as error:
            raise AudioCrashError(f"{name}: the decoder's process was lost as it began") from error

    def _schedule(self, *arguments: object) -> "concurrent.futures.Future[ClipsElsewhere]":
        try:
            return self._pool.schedule(_track_clips, args=arguments, timeout=self.time_limit_s)
        except RuntimeError:  # the process was lost while it had nothing to do, and the pool with it
            self._pool = self._new_pool()
            return self._pool.schedule(_track_clips, args=arguments, timeout=self.time_limit_s)

    def _new_pool(self) -> pebble.ProcessPool:
        # Spawned: a copy of this process would hold locks of threads that it has not.
        context = multiprocessing.get_context("spawn")
        prepared_with = [self.memory_limit_gib, _Handed(self._file)]
        return pebble.ProcessPool(1, initializer=_prepare, initargs=prepared_with, context=context)

    def close(self) -> None:
        """End the process."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@functools.cache
def shared_process() -> DecoderProcess:
    """The one of this process, for workers of engines that do not say when they end."""
    return DecoderProcess()


class _Handed:
    """An open file on its way into a process that is being spawned."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., IO[bytes]], tuple[object]]:
        return _taken, (reduction.DupFd(self.file.fileno()),)


def _taken(descriptor: Any) -> IO[bytes]:
    return os.fdopen(descriptor.detach(), "r+b")


def _prepare(memory_limit_gib: float, file: IO[bytes]) -> None:
    """Leave one core to each process, bound its memory, and have decoders' messages of damaged files go nowhere."""
    global _file  # of the process: pebble hands nothing from here to what it calls
    _file = file
    threadpoolctl.threadpool_limits(1)
    begun_with = psutil.Process().memory_info().data if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_DATA, (begun_with + int(memory_limit_gib * 2**30),) * 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


_file: IO[bytes]


def _track_clips(*arguments: Any) -> ClipsElsewhere:
    """`features.track_clips` with the clips in the file, and their shape in their place."""
    clips, starts, duration_s = track_clips(*arguments)
    try:
        _file.seek(0)
        _file.write(encode_clips(clips))
        _file.truncate()
        _file.flush()
    except OSError as error:
        raise StoreError(f"{tempfile.gettempdir()}: {error.strerror}; name another by TMPDIR") from error
    return clips.shape, starts, duration_s
