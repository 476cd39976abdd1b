"""Decode MP3 with the system's libmpg123, if it is installed.

soundfile contains the same decoder, but decodes both channels. libmpg123 can mix them while it decodes, which takes a
fifth less time. No Python package contains the library: it is installed by the system's package manager (Debian and
Ubuntu: libmpg123-0, macOS: `brew install mpg123`). Without it, soundfile decodes MP3.
"""

import contextlib
import ctypes
import ctypes.util
import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musictag.audio.mp3 import Frames, n_preframes
from musictag.errors import AudioDamagedError

# mpg123.h
OK, DONE = 0, -12
FLAGS_PARAMETER, PREFRAMES_PARAMETER = 1, 16
MONO_MIX, QUIET, GAPLESS, FORCE_FLOAT, SKIP_ID3V2, NO_FRANKENSTEIN = 0x4, 0x20, 0x40, 0x400, 0x2000, 0x1000000
# The flags that soundfile sets, so that both decode the same samples; also mix to one channel, and skip ID3v2 tags,
# which may contain large pictures.
FLAGS = MONO_MIX | QUIET | GAPLESS | FORCE_FLOAT | SKIP_ID3V2 | NO_FRANKENSTEIN


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load libmpg123; return None if it is not installed."""
    name = ctypes.util.find_library("mpg123")
    if name is None:
        return None
    mpg123 = ctypes.CDLL(name)
    handle, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    signatures = {
        "mpg123_init": (number,),
        "mpg123_new": (handle, ctypes.c_char_p, ctypes.POINTER(number)),
        "mpg123_param": (number, handle, number, ctypes.c_long, ctypes.c_double),
        "mpg123_open": (number, handle, ctypes.c_char_p),
        "mpg123_getformat": (
            number,
            handle,
            ctypes.POINTER(ctypes.c_long),
            ctypes.POINTER(number),
            ctypes.POINTER(number),
        ),
        "mpg123_index": (number, handle, handle, handle, handle),
        "mpg123_set_index": (number, handle, handle, ctypes.c_long, size),
        "mpg123_seek": (ctypes.c_long, handle, ctypes.c_long, number),
        "mpg123_read": (number, handle, handle, size, ctypes.POINTER(size)),
        "mpg123_strerror": (ctypes.c_char_p, handle),
        "mpg123_delete": (None, handle),
    }
    for function, (result, *arguments) in signatures.items():
        getattr(mpg123, function).restype = result
        getattr(mpg123, function).argtypes = arguments
    return mpg123 if mpg123.mpg123_init() == OK else None


@dataclasses.dataclass(frozen=True)
class MP3:
    """An open MP3 file."""

    library: ctypes.CDLL
    handle: int
    name: str
    """The name of the file in error messages."""
    sample_rate: int
    """Sample rate in Hz."""

    def blocks(self, start: int, stop: float, block_samples: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the samples [start, stop) in blocks (up to `block_samples`,) float32, the mean of the channels.

        They are fewer if the file ends earlier. Raises `AudioDamagedError`.
        """
        self.check(min(OK, self.library.mpg123_seek(self.handle, start, os.SEEK_SET)))
        n_bytes = ctypes.c_size_t()
        while start < stop:
            block = np.empty(int(min(block_samples, stop - start)), np.float32)
            status = self.library.mpg123_read(self.handle, block.ctypes.data, block.nbytes, ctypes.byref(n_bytes))
            self.check(status, f"after {start / self.sample_rate:.2f} s")
            n_samples = n_bytes.value // block.itemsize
            if n_samples:
                yield block[:n_samples]
            if status == DONE:
                return
            start += n_samples

    def first_frame(self) -> int | None:
        """Return the first byte of the frame that libmpg123 counts as the first; None if it found none."""
        begins, step, n_begins = ctypes.POINTER(ctypes.c_long)(), ctypes.c_long(), ctypes.c_size_t()
        self.check(self.library.mpg123_index(self.handle, *map(ctypes.byref, (begins, step, n_begins))))
        return begins[0] if n_begins.value else None

    def check(self, status: int, place: str = "at the beginning") -> None:
        """Raise `AudioDamagedError` if a status is an error; a change of the sample rate is one, as in soundfile."""
        if status not in (OK, DONE):
            reason = self.library.mpg123_strerror(self.handle).decode(errors="replace")
            raise AudioDamagedError(f"{self.name}: decoding failed {place} (libmpg123: {reason})")


@contextlib.contextmanager
def open_mp3(mpg123: ctypes.CDLL, path: Path, name: str, sample_rate: int, frames: Frames) -> Iterator[MP3 | None]:
    """Open a local file with `frames`; `name` is its name in errors. Yield None if it has no frame.

    Raises `AudioDamagedError`.
    """
    handle = mpg123.mpg123_new(None, None)
    try:
        mpg123.mpg123_param(handle, FLAGS_PARAMETER, FLAGS, 0)
        opened = MP3(mpg123, handle, name, sample_rate)
        opened.check(mpg123.mpg123_open(handle, os.fsencode(path)))
        # Without this call, the first read would return a change of format instead of samples.
        rate, channels, encoding = ctypes.c_long(), ctypes.c_int(), ctypes.c_int()
        opened.check(mpg123.mpg123_getformat(handle, *map(ctypes.byref, (rate, channels, encoding))))
        first = opened.first_frame()
        begins = None if first is None else frames.contiguous(first)
        if begins is not None and len(begins):
            # Without an index, libmpg123 would parse every frame before a part, and begin only four frames before it,
            # which is too few for small frames.
            opened.check(mpg123.mpg123_set_index(handle, begins.ctypes.data, 1, len(begins)))
            opened.check(mpg123.mpg123_param(handle, PREFRAMES_PARAMETER, n_preframes(begins), 0))
            yield opened
        else:
            yield None
    finally:
        mpg123.mpg123_delete(handle)
