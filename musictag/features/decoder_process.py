"""Decode audio in a child process, so that a decoder that crashes or hangs costs one track only.

Files come from anywhere, and decoders are written in C: a damaged file may crash the process that decodes it.

Clips are returned in an unnamed temporary file that both processes have open. A pipe would hold six copies of them.
"""

import atexit
import contextlib
import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Self

import numpy as np

from musictag.errors import AudioCrashError, AudioTimeoutError, WorkerLostError
from musictag.features.config import FeatureConfig
from musictag.features.extract import TrackClips
from musictag.features.limits import DEFAULT_LIMITS, Limits
from musictag.features.table import CELL_DTYPE

CHILD_MODULE = "musictag.features.decoder_child"

# An hour of audio needs a few seconds and about 200 MB.
_TIME_LIMIT_S, _MEMORY_LIMIT_GIB = 300.0, 4.0
# A child needs half a second to start, on a machine that is busy some seconds.
_START_LIMIT_S, _STARTS = 120.0, 3
# Variables of the system's loader, of Python and of numerical libraries.
_CHILD_VARIABLES = re.compile(r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|LD_\w+|PYTHON\w*|\w+_NUM_THREADS|OPENBLAS_\w+|OMP_\w+")


@dataclasses.dataclass(frozen=True)
class _Child:
    """A child process that waits for requests, and our end of the connection to it."""

    process: "subprocess.Popen[bytes]"
    connection: Connection

    def end(self) -> int:
        """Kill the process if it still runs, and return its exit code, negative if a signal ended it."""
        self.process.kill()
        self.connection.close()
        return self.process.wait()


class DecoderProcess:
    """A child process that decodes on one core; it is started on first use and restarted after a crash.

    It is started by `subprocess`: the library `multiprocessing` refuses children of a daemonic process, and such are
    the workers of some engines.
    """

    def __init__(self, time_limit_s: float = _TIME_LIMIT_S, memory_limit_gib: float = _MEMORY_LIMIT_GIB) -> None:
        self.time_limit_s, self.memory_limit_gib = time_limit_s, memory_limit_gib
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 # `close` closes it
        self._child: _Child | None = None
        self._lock = threading.Lock()  # one track at a time

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
            AudioError: the errors of `track_clips`, and those that `decoding_errors` makes of others.
            AudioCrashError: the child process crashed or reached its memory limit.
            AudioTimeoutError: decoding reached its time limit.
            StoreError: the folder for temporary files is full.
            WorkerLostError: the child process cannot be started.
        """
        with self._lock:
            answer = self._ask(name, (path, name, config, clips_per_track, limits))
            if isinstance(answer, MemoryError):
                message = f"{name}: decoding needs more than {self.memory_limit_gib:g} GiB of memory"
                raise AudioCrashError(message) from answer
            if isinstance(answer, Exception):
                raise answer
            shape, starts, duration_s, damaged_s = answer
            self._file.seek(0)
            clips = np.fromfile(self._file, CELL_DTYPE, math.prod(shape)).reshape(shape)
            return TrackClips(clips, starts, duration_s, damaged_s)

    def _ask(self, name: str, request: tuple[object, ...]) -> Any:
        """Send a request and return the answer of the child process."""
        child = self._running_child()
        try:
            child.connection.send(request)
            if child.connection.poll(self.time_limit_s):
                return child.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise AudioCrashError(f"{name}: the decoder crashed (exit code {self._end_child(child)})") from error
        except BaseException:  # for example Ctrl-C: the next request must not get this answer
            self._end_child(child)
            raise
        self._end_child(child)
        raise AudioTimeoutError(f"{name}: not decoded within {self.time_limit_s:g} s")

    def _running_child(self) -> _Child:
        """Return the child process; start one if there is none, or if it ended while it was idle."""
        if self._child and self._child.process.poll() is not None:
            self._end_child(self._child)
        if not self._child:
            self._child = self._start()
        return self._child

    def _start(self) -> _Child:
        """Start a child process and wait until it is ready."""
        for _ in range(_STARTS):
            try:
                child = self._spawn()
            except OSError as error:
                reason = str(error)
                continue
            with contextlib.suppress(EOFError, ConnectionError):
                if child.connection.poll(_START_LIMIT_S):
                    child.connection.recv()
                    return child
            reason = f"exit code {child.end()}"
        raise WorkerLostError(
            f"the process that decodes audio does not start ({reason}): is there memory left, and does "
            f"`{sys.executable} -m {CHILD_MODULE}` find musictag?"
        )

    def _spawn(self) -> _Child:
        ours, theirs = Pipe()
        # The child finds modules where this process does. "-P" keeps its working folder out of that.
        modules = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # noqa: PTH109 # as sys.path means ""
        with theirs:
            descriptors = theirs.fileno(), self._file.fileno()
            limits = self.time_limit_s, self.memory_limit_gib
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD_MODULE, *map(str, (*descriptors, *limits))],
                env={**_child_environment(), "PYTHONPATH": modules},
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        return _Child(process, ours)

    def _end_child(self, child: _Child) -> int:
        self._child = None
        return child.end()

    def close(self) -> None:
        """End the child process."""
        if self._child:
            self._end_child(self._child)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _child_environment() -> dict[str, str]:
    """Return the variables that the child needs: a decoder that a file has taken over must not find credentials."""
    return {name: value for name, value in os.environ.items() if _CHILD_VARIABLES.fullmatch(name)}


@functools.cache
def shared_process() -> DecoderProcess:
    """Return the instance that this process shares; it is closed when the process ends."""
    process = DecoderProcess()
    atexit.register(process.close)
    return process
