"""The child process of `decoder_process`: decode the files that its parent names, until the parent ends.

python -m musictag.features.decoder_child CONNECTION FILE TIME_LIMIT_S MEMORY_LIMIT_GIB

CONNECTION and FILE are descriptors that the child inherits: of a connection to the parent, and of the file for clips.
"""

import os
import queue
import resource
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import IO, Any

import psutil
import threadpoolctl

from musictag.audio import mpg123
from musictag.errors import MusictagError
from musictag.features.confinement import confine
from musictag.features.extract import track_clips
from musictag.features.table import encode_clips
from musictag.features.track_errors import decoding_errors
from musictag.storage.fetch import temporary_file_errors

Description = tuple[tuple[int, ...], list[int], float, float]
"""Shape of the clips in the file, and the other fields of `TrackClips`."""

# The parent ends a child that is late; this alarm ends it if there is no parent any more.
_ALARM_MARGIN_S = 5.0


def main(connection: Connection, file: IO[bytes], time_limit_s: float, memory_limit_gib: float) -> None:
    """Answer each request of the parent, the arguments of `track_clips`, by a `Description` or an error."""
    _prepare(memory_limit_gib)
    requests: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    connection.send("ready")
    while True:
        arguments = requests.get()
        signal.setitimer(signal.ITIMER_REAL, time_limit_s + _ALARM_MARGIN_S)
        answer = _answer(file, arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(answer)


def _receive(connection: Connection, requests: "queue.SimpleQueue[tuple[Any, ...]]") -> None:
    """Receive requests, and end this process at once when the parent has ended, also while it decodes."""
    try:
        while True:
            requests.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _prepare(memory_limit_gib: float) -> None:
    """Set one thread and a memory limit, silence standard error, confine this process; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, whatever it does
    threadpoolctl.threadpool_limits(1)
    initial_bytes = psutil.Process().memory_info().data if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_DATA, (initial_bytes + int(memory_limit_gib * 2**30),) * 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write messages there
    mpg123.library()  # finding a library starts a program
    confine()


def _answer(file: IO[bytes], arguments: tuple[Any, ...]) -> Description | MusictagError | MemoryError:
    """Call `track_clips`, write the clips to the file, and return their description, or the error."""
    _, name, *_ = arguments
    try:
        with decoding_errors(name):
            clips, starts, duration_s, damaged_s = track_clips(*arguments)
        with temporary_file_errors():
            file.seek(0)
            file.write(encode_clips(clips))
            file.truncate()
            file.flush()
    except (MusictagError, MemoryError) as error:
        return error
    return clips.shape, starts, duration_s, damaged_s


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "r+b"), *map(float, sys.argv[3:]))
