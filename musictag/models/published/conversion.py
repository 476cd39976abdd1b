"""Convert the published musicnn networks from the wheel of the package `musicnn` to model artifacts.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", 2019. Their ISC licence is
stored with each model. pip downloads the wheel once; it is not part of the repository. Its code is never run, and
TensorFlow is not needed.
"""

import ast
import dataclasses
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from musictag.errors import ModelError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.models.artifact import save_model
from musictag.models.musicnn import Musicnn
from musictag.models.published.pretrained import PACKAGE, PUBLISHED, Published, models_folder
from musictag.models.published.pruning import filter_params, prune
from musictag.models.published.tf_checkpoint import read_checkpoint
from musictag.models.specs import TaggerSpec

WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
LICENSE = "musicnn-0.1.0.dist-info/LICENSE.md"
LICENSE_FILE = "LICENSE.musicnn.md"
TAG_LISTS = "musicnn/configuration.py"
# The axis of a kernel's outputs is first in torch and last in TensorFlow: (time, frequency, in, out), (in, out), and
# (time, in, 1, out) for the midend of musicnn; there, the axis of length 1 is moved to the end and dropped.
KERNEL_AXES = {nn.Conv2d: (3, 2, 0, 1), nn.Linear: (1, 0), nn.Conv1d: (3, 1, 0, 2)}
# Names in torch and in TensorFlow.
KERNEL_VARIABLES = {"weight": "kernel", "bias": "bias"}
NORM_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
THRESHOLD = 0.2
"""No thresholds were published. With this one, a song of Emotify has 2 tags (MSD) or 4 tags (MTT) on average."""


def fetch_wheel(target: Path) -> Path:
    """Download the wheel into the folder `target` with pip, from the index that pip is configured for.

    Raises:
        ModelError: pip failed.
    """
    # Only a wheel: to download a source archive, pip would run its setup code.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(target), PACKAGE]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = sorted(target.glob("musicnn-*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or "it downloaded no wheel").splitlines()[-1]
        raise ModelError(f"pip cannot fetch {PACKAGE}: {reason}; fetch it elsewhere, then `musictag weights WHEEL`")
    return wheels[0]


def install(wheel: Path | None = None) -> list[Path]:
    """Convert all models of the wheel into `models_folder()` and return their folders; without `wheel`, fetch it first.

    Raises:
        ModelError: see `fetch_wheel` and `convert`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return convert(wheel or fetch_wheel(Path(temporary)), models_folder())


def convert(wheel: Path, target: Path) -> list[Path]:
    """Write the artifact of each published model, with the licence of its weights, to `target/NAME`.

    Existing models are replaced. Returns the folders.

    Raises:
        ModelError: the file is not the wheel of `PACKAGE`, or `target` cannot be written.
    """
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise ModelError(f"{wheel} cannot be read: {error.strerror or error}") from error
    if (digest := hashlib.sha256(content).hexdigest()) != WHEEL_SHA256:
        raise ModelError(f"{wheel} is not the wheel of {PACKAGE}: its SHA-256 is {digest}, not {WHEEL_SHA256}")
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        for name, published in PUBLISHED.items():
            model, spec = read_model(files, published)
            if isinstance(model, Musicnn):
                model = prune(model, spec.feature_config.n_mels)
                spec = dataclasses.replace(spec, params=filter_params(model))
            notice = _member(files, LICENSE)
            try:
                (target / name).mkdir(parents=True, exist_ok=True)
                (target / name / LICENSE_FILE).write_bytes(notice)
                save_model(target / name, model, spec)
            except OSError as error:
                raise ModelError(f"{target / name} cannot be written: {error.strerror or error}") from error
    return [target / name for name in PUBLISHED]


def read_model(files: zipfile.ZipFile, published: Published) -> tuple[nn.Module, TaggerSpec]:
    """Read one network and its spec from the wheel.

    Raises:
        ModelError: a file in the wheel is missing or cannot be read.
    """
    vocabulary = _tag_list(_member(files, TAG_LISTS), published.tag_list)
    config = FeatureConfig()
    model = build_model(published.architecture, {}, n_mels=config.n_mels, n_tags=len(vocabulary))
    checkpoint = f"musicnn/{published.checkpoint}"
    index, data = (_member(files, f"{checkpoint}/{name}") for name in (".index", ".data-00000-of-00001"))
    try:
        copy_weights(read_checkpoint(index, data), model)
    except ModelError as error:
        raise ModelError(f"{checkpoint} of the wheel: {error}") from error
    spec = TaggerSpec(
        architecture=published.architecture,
        params={},
        feature_config=config,
        vocabulary=vocabulary,
        thresholds=(THRESHOLD,) * len(vocabulary),
        calibration=((1.0, 0.0),) * len(vocabulary),
        provenance={
            "source": f"{published.checkpoint} of the package {PACKAGE}, wheel SHA-256 {WHEEL_SHA256}",
            "authors": "Jordi Pons and Xavier Serra, Music Technology Group, Universitat Pompeu Fabra, 2019",
            "trained_on": published.trained_on,
            "license": f"ISC, see {LICENSE_FILE}",
            "thresholds": "not fitted: one for all tags",
        },
    )
    return model, spec


def copy_weights(variables: dict[str, npt.NDArray[np.float32]], model: nn.Module) -> None:
    """Copy a checkpoint's variables into the layers of the same kind, in the order in which both were created.

    TensorFlow numbers unnamed layers (`conv2d`, `conv2d_1`, ...); the convolutions of vgg are named `1CNN` to `5CNN`.

    Raises:
        ModelError: a variable is missing or has another shape.
    """
    convolutions, norms, denses = (
        [layer for layer in model.modules() if isinstance(layer, kind)]
        for kind in ((nn.Conv1d, nn.Conv2d), (nn.BatchNorm1d, nn.BatchNorm2d), nn.Linear)
    )
    for n, layer in enumerate(convolutions):
        name = f"{n + 1}CNN" if "1CNN/kernel" in variables else _numbered("conv2d", n)
        _copy_layer(variables, name, layer, KERNEL_VARIABLES)
    for n, layer in enumerate(denses):
        _copy_layer(variables, _numbered("dense", n), layer, KERNEL_VARIABLES)
    for n, layer in enumerate(norms):
        _copy_layer(variables, _numbered("batch_normalization", n), layer, NORM_VARIABLES)


@torch.no_grad()
def _copy_layer(
    variables: dict[str, npt.NDArray[np.float32]], layer_name: str, layer: nn.Module, names: dict[str, str]
) -> None:
    """Copy the variables of one layer; `names` maps names of tensors in torch to names of variables in TensorFlow."""
    for tensor_name, variable in names.items():
        name, tensor = f"{layer_name}/{variable}", getattr(layer, tensor_name)
        if name not in variables:
            raise ModelError(f"the checkpoint has no variable {name}")
        values = variables[name]
        axes = KERNEL_AXES[type(layer)] if variable == "kernel" else (0,)
        torch_shape = (*tensor.shape, 1)[: len(axes)]
        needed = tuple(torch_shape[axes.index(axis)] for axis in range(len(axes)))
        if values.shape != needed:
            raise ModelError(f"the checkpoint's {name} has shape {values.shape}, not {needed}")
        tensor.copy_(torch.tensor(values.transpose(axes)).reshape(tensor.shape))


def _member(files: zipfile.ZipFile, name: str) -> bytes:
    try:
        return files.read(name)
    except KeyError as error:
        raise ModelError(f"the wheel has no {name}") from error
    except zipfile.BadZipFile as error:
        raise ModelError(f"{name} of the wheel cannot be read: {error}") from error


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _tag_list(source: bytes, name: str) -> tuple[str, ...]:
    """Return the list of strings that a module's source assigns to `name`; the source is parsed, not run."""
    try:
        assigned = [statement.value for statement in ast.parse(source).body
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name]  # fmt: skip
        tags = [ast.literal_eval(value) for value in assigned]
    except (SyntaxError, TypeError, ValueError) as error:
        raise ModelError(f"{TAG_LISTS} of the wheel cannot be read: {error}") from error
    if len(tags) != 1:
        raise ModelError(f"{TAG_LISTS} of the wheel has no {name}, or more than one")
    if not isinstance(tags[0], list) or not tags[0] or not all(isinstance(tag, str) for tag in tags[0]):
        raise ModelError(f"{TAG_LISTS} of the wheel: {name} is not a list of strings")
    return tuple(tags[0])
