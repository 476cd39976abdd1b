"""Errors of one file, which cost its track and no other: each becomes an `AudioError`."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from musictag.errors import AudioDecoderBugError, AudioError, AudioUnreachableError, MusictagError
from musictag.storage import fetch


@contextlib.contextmanager
def decoding_errors(name: str) -> Iterator[None]:
    """Raise each error of parsers and decoders in the body as an `AudioError` of the track `name`.

    `OSError` is raised as `AudioUnreachableError`, and what no decoder should raise as `AudioDecoderBugError`. Errors
    of `musictag.errors` and `MemoryError` stay as they are.
    """
    try:
        yield
    except (MusictagError, MemoryError):
        raise
    except OSError as error:
        raise AudioUnreachableError(f"{name}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        *_, frame = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        raise AudioDecoderBugError(
            f"{name}: a bug of a decoder, or a file made to find one: {type(error).__name__}: {error} ({place}); "
            "please report it with the file"
        ) from error


@contextlib.contextmanager
def vanished_files(path: Path, name: str) -> Iterator[None]:
    """Raise `AudioUnreachableError` for an `AudioError` in the body if the file cannot be read any more.

    Decoders find other reasons in a file that vanishes while they read it.
    """
    try:
        yield
    except AudioError:
        with fetch.unreachable_errors(name):
            fetch.has_content(path)
        raise
