"""Decode audio in a child process, so that a decoder that crashes or hangs costs one track only.

Files come from anywhere, and decoders are written in C: a damaged file may crash the process that decodes it.

Clips are returned in an unnamed temporary file that both processes have open. A pipe would hold six copies of them.
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
from musictag.features.extract import DEFAULT_LIMITS, Limits, TrackClips, track_clips
from musictag.features.table import CELL_DTYPE, encode_clips

_Description = tuple[tuple[int, ...], list[int], float, float]
"""Shape of the clips in the file, and the other fields of `TrackClips`."""

# An hour of audio needs a few seconds and about 200 MB.
_TIME_LIMIT_S, _MEMORY_LIMIT_GIB = 300.0, 4.0


class DecoderProcess:
    """A child process that decodes on one core; it is started on first use and restarted after a crash."""

    def __init__(self, time_limit_s: float = _TIME_LIMIT_S, memory_limit_gib: float = _MEMORY_LIMIT_GIB) -> None:
        self.time_limit_s, self.memory_limit_gib = time_limit_s, memory_limit_gib
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 # `close` closes it
        self._pool = self._new_pool()
        self._lock = threading.Lock()  # one track at a time: a crash fails everything queued in the pool

    def track_clips(
        self,
        path: Path,
        name: str,
        config: FeatureConfig,
        clips_per_track: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> TrackClips:
        """Call `features.extract.track_clips` in the child process; threads that call it wait for each other.

        Raises:
            AudioError: the errors of `track_clips`.
            AudioCrashError: the child process crashed or reached its memory limit.
            AudioTimeoutError: decoding reached its time limit.
            StoreError: the folder for temporary files is full.
        """
        try:
            with self._lock:
                shape, starts, duration_s, damaged_s = self._schedule(
                    path, name, config, clips_per_track, limits
                ).result()
                self._file.seek(0)
                clips = np.fromfile(self._file, CELL_DTYPE, math.prod(shape)).reshape(shape)
                return TrackClips(clips, starts, duration_s, damaged_s)
        except concurrent.futures.TimeoutError as error:
            raise AudioTimeoutError(f"{name}: not decoded within {self.time_limit_s:g} s") from error
        except pebble.ProcessExpired as error:
            raise AudioCrashError(f"{name}: the decoder crashed (exit code {error.exitcode})") from error
        except MemoryError as error:
            message = f"{name}: decoding needs more than {self.memory_limit_gib:g} GiB of memory"
            raise AudioCrashError(message) from error
        except concurrent.futures.BrokenExecutor as error:
            raise AudioCrashError(f"{name}: the decoder's process ended when it started") from error

    def _schedule(self, *arguments: object) -> "concurrent.futures.Future[_Description]":
        try:
            return self._pool.schedule(_track_clips, args=arguments, timeout=self.time_limit_s)
        except RuntimeError:  # the process ended while it was idle, and the pool with it
            self._pool = self._new_pool()
            return self._pool.schedule(_track_clips, args=arguments, timeout=self.time_limit_s)

    def _new_pool(self) -> pebble.ProcessPool:
        # Not forked: a fork would hold locks of threads that it does not have.
        context = multiprocessing.get_context("spawn")
        arguments = [self.memory_limit_gib, _InheritedFile(self._file)]
        return pebble.ProcessPool(1, initializer=_prepare, initargs=arguments, context=context)

    def close(self) -> None:
        """End the child process."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@functools.cache
def shared_process() -> DecoderProcess:
    """Return the instance that this process shares. It is never closed: engines do not tell workers when they end."""
    return DecoderProcess()


class _InheritedFile:
    """Pickles an open file as its descriptor, for a process that is being spawned."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., IO[bytes]], tuple[object]]:
        return _open_descriptor, (reduction.DupFd(self.file.fileno()),)


def _open_descriptor(descriptor: Any) -> IO[bytes]:
    return os.fdopen(descriptor.detach(), "r+b")


def _prepare(memory_limit_gib: float, file: IO[bytes]) -> None:
    """Prepare the child process: one thread, a memory limit, no messages of decoders on standard error."""
    global _file  # pebble passes no state from here to the functions that it calls
    _file = file
    threadpoolctl.threadpool_limits(1)
    initial_bytes = psutil.Process().memory_info().data if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_DATA, (initial_bytes + int(memory_limit_gib * 2**30),) * 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


_file: IO[bytes]


def _track_clips(*arguments: Any) -> _Description:
    """Call `track_clips` in the child process, write the clips to the file, and return their description."""
    clips, starts, duration_s, damaged_s = track_clips(*arguments)
    try:
        _file.seek(0)
        _file.write(encode_clips(clips))
        _file.truncate()
        _file.flush()
    except OSError as error:
        raise StoreError(f"{tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR to another folder") from error
    return clips.shape, starts, duration_s, damaged_s
