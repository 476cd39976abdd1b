"""The model artifact: a folder with `weights.safetensors` and `tagger.json`, everything that tagging needs.

Reading it runs no code and unpickles nothing, so a model from an untrusted source cannot execute anything.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from musictag.errors import ModelError, UsageError
from musictag.models.specs import TaggerSpec
from musictag.storage.checksums import file_sha256

WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "tagger.json"
_DIGEST_PREFIX = "sha256."


def save_model(folder: Path, model: nn.Module, spec: TaggerSpec) -> None:
    """Write the artifact. `tagger.json` is written last, so a folder that has this file is complete.

    Args:
        folder: created if it does not exist; a model in it is replaced.
        model: the network itself (not its data-parallel wrapper), on any device.
        spec: the description of `model`.

    Raises:
        ModelError: the weights do not have the names and shapes that `spec` implies.
    """
    _check_weights(model.state_dict(), _build(spec), "the model does not fit its spec")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).unlink(missing_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # `save_file` is not used because only the owner may read the files that it creates.
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(weights))
    (folder / SPEC_FILE).write_text(json.dumps(spec.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_notices(source: Path, target: Path) -> None:
    """Copy the licence files of an artifact into the folder of weights that were derived from it."""
    for notice in source.glob("LICENSE*"):
        shutil.copyfile(notice, target / notice.name)


def load_model(folder: Path) -> tuple[nn.Module, TaggerSpec]:
    """Return the network of an artifact, in evaluation mode on the CPU, and its spec.

    Raises:
        ModelError: a file is missing or broken, or the weights do not fit; the message names the file and the field.
    """
    for name in (SPEC_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}: it is not a musictag model, or writing it was interrupted")
    spec_path, weights_path = folder / SPEC_FILE, folder / WEIGHTS_FILE
    try:
        fields = json.loads(spec_path.read_text(encoding="utf-8"))
    except ValueError as error:  # Broken JSON, or not UTF-8.
        raise ModelError(f"{spec_path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{spec_path} must hold a JSON object, not a {type(fields).__name__}")
    try:
        spec = TaggerSpec.from_dict(fields)
        model = _build(spec)
    except ModelError as error:
        raise ModelError(f"{spec_path}: {error}") from error
    try:
        weights = safetensors.torch.load_file(weights_path)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{weights_path} cannot be read: {error}; fetch the model again") from error
    _check_weights(weights, model, f"{weights_path} does not fit {SPEC_FILE}")
    model.load_state_dict(weights)
    return model.eval(), spec


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


def _build(spec: TaggerSpec) -> nn.Module:
    """Build the network of `spec` with fresh weights; raise `ModelError` if that is impossible."""
    try:
        return spec.build_network()
    except UsageError as error:
        raise ModelError(f"architecture, params: {error}") from error


def _check_weights(weights: dict[str, Tensor], model: nn.Module, complaint: str) -> None:
    """Raise `ModelError` on the first weight that is missing, unexpected or of another shape."""
    expected = model.state_dict()
    for name in sorted(weights.keys() | expected.keys()):
        if name not in weights:
            raise ModelError(f"{complaint}: {name} is missing")
        if name not in expected:
            raise ModelError(f"{complaint}: {name} is unexpected")
        if weights[name].shape != expected[name].shape:
            raise ModelError(
                f"{complaint}: {name} has shape {tuple(weights[name].shape)}, {tuple(expected[name].shape)} is needed"
            )
