"""The files of a model artifact: a folder with `weights.safetensors` and `tagger.json`, everything that tagging needs.

Reading it runs no code and unpickles nothing, so a model from an untrusted source cannot execute anything. This module
reads everything except the weights, without torch.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from musictag.errors import ModelError
from musictag.models.specs import TaggerSpec
from musictag.storage.checksums import file_sha256

WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "tagger.json"
_DIGEST_PREFIX = "sha256."


def read_spec(folder: Path) -> TaggerSpec:
    """Read the spec of an artifact.

    Raises:
        ModelError: a file is missing, or the spec is broken; the message names the file and the field.
    """
    for name in (SPEC_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}: it is not a musictag model, or writing it was interrupted")
    path = folder / SPEC_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # Broken JSON, or not UTF-8.
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path} must hold a JSON object, not a {type(fields).__name__}")
    try:
        return TaggerSpec.from_dict(fields)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def copy_notices(source: Path, target: Path) -> None:
    """Copy the licence files of an artifact into the folder of weights that were derived from it."""
    for notice in source.glob("LICENSE*"):
        shutil.copyfile(notice, target / notice.name)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 hex digest of each file of an artifact, by tag name `sha256.FILE`."""
    return {f"{_DIGEST_PREFIX}{path.name}": file_sha256(path) for path in sorted(folder.iterdir())}


def model_digest(digests: Mapping[str, str]) -> str:
    """Return one SHA-256 hex digest of a model, from the digests of its files by tag name; other tags are ignored."""
    of_files = {key: digest for key, digest in digests.items() if key.startswith(_DIGEST_PREFIX)}
    return hashlib.sha256(json.dumps(of_files, sort_keys=True).encode()).hexdigest()


def check_digests(folder: Path, recorded: Mapping[str, str]) -> None:
    """Raise `ModelError` if the files of an artifact differ from the digests in `recorded`.

    Other tags are ignored; files without a recorded digest are an error.
    """
    found = file_digests(folder)
    expected = {key: digest for key, digest in recorded.items() if key.startswith(_DIGEST_PREFIX)}
    keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if keys:
        names = ", ".join(key.removeprefix(_DIGEST_PREFIX) for key in keys)
        raise ModelError(
            f"{folder}: {names} changed since the model was registered: restore them, or register the model again"
        )
