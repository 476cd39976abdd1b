"""SHA-256 of files: recorded when they are written, compared when they are read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from musictag.errors import ModelError

PREFIX = "sha256."


def of_file(path: Path) -> str:
    """Hex digest of a local file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_model(folder: Path) -> dict[str, str]:
    """What to record of a model artifact: `sha256.NAME`, the hex digest of each of its files."""
    return {f"{PREFIX}{path.name}": of_file(path) for path in sorted(folder.iterdir())}


def check_model(folder: Path, recorded: Mapping[str, str]) -> None:
    """Raise `ModelError` unless an artifact's files are, byte for byte, those of which `recorded` has the digests.

    What else is recorded does not count. Where nothing is, every file is one too many.
    """
    found = of_model(folder)
    expected = {key: digest for key, digest in recorded.items() if key.startswith(PREFIX)}
    keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if keys:
        names = ", ".join(key.removeprefix(PREFIX) for key in keys)
        raise ModelError(
            f"{folder}: {names} changed since the model was registered: put back what it was, or register it anew"
        )
