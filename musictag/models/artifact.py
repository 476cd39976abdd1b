"""Write and read the network of a model artifact; see `musictag.models.artifact_files`."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from musictag.errors import ModelError, UsageError
from musictag.models.architectures import build_network
from musictag.models.artifact_files import SPEC_FILE, WEIGHTS_FILE, read_spec
from musictag.models.specs import TaggerSpec


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


def load_model(folder: Path) -> tuple[nn.Module, TaggerSpec]:
    """Return the network of an artifact, in evaluation mode on the CPU, and its spec.

    Raises:
        ModelError: a file is missing or broken, or the weights do not fit; the message names the file and the field.
    """
    spec = read_spec(folder)
    weights_path = folder / WEIGHTS_FILE
    try:
        model = _build(spec)
    except ModelError as error:
        raise ModelError(f"{folder / SPEC_FILE}: {error}") from error
    try:
        weights = safetensors.torch.load_file(weights_path)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{weights_path} cannot be read: {error}; fetch the model again") from error
    _check_weights(weights, model, f"{weights_path} does not fit {SPEC_FILE}")
    model.load_state_dict(weights)
    return model.eval(), spec


def _build(spec: TaggerSpec) -> nn.Module:
    """Build the network of `spec` with fresh weights; raise `ModelError` if that is impossible."""
    try:
        return build_network(spec)
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
