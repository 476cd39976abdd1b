"""The model artifact: a folder with `weights.safetensors` and `tagger.json`, all that tagging needs.

Reading it runs no code and unpickles nothing, so a model from a stranger is no more dangerous than a picture.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
from torch import Tensor, nn

from musictag.errors import ModelError, UsageError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.storage.checksums import file_sha256

WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "tagger.json"
# Raised whenever a reader of the previous number would misread the folder.
FORMAT = 1
JOINS = ("mean",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerSpec:
    """All of a tagger but its weights; validated when made, `ModelError` names the field."""

    architecture: str
    """A name in `musictag.models.architectures.ARCHITECTURES`."""
    params: dict[str, Any]
    """The architecture's own parameters, as JSON knows them: a tuple becomes a list."""
    feature_config: FeatureConfig
    """The front end that the weights were trained on."""
    vocabulary: tuple[str, ...]
    """The K tags, in the order of the network's outputs."""
    join: str = "mean"
    """How clip scores become a track's: their mean, weighted by the share of each clip that is audio."""
    thresholds: tuple[float, ...]
    """Per tag, the calibrated track score above which the tag is given, 0 to 1; 1 never gives it."""
    calibration: tuple[tuple[float, float], ...]
    """Per tag, (scale, bias) applied to the logit of the joined score (Platt, 1999); (1, 0) changes nothing."""
    provenance: dict[str, str]
    """Where the weights come from: the run, the commit, the catalog; free text by name."""

    def __post_init__(self) -> None:
        n_tags = len(self.vocabulary)
        if not n_tags or not all(map(_is_name, self.vocabulary)) or len(set(self.vocabulary)) < n_tags:
            raise ModelError("TaggerSpec.vocabulary must be distinct, non-empty texts, at least one")
        if self.join not in JOINS:
            raise ModelError(f"TaggerSpec.join is {self.join!r}; known is {', '.join(JOINS)}")
        if not _is_name(self.architecture):
            raise ModelError(f"TaggerSpec.architecture is {self.architecture!r}: it must be a name")
        for name in ("thresholds", "calibration"):
            if len(getattr(self, name)) != n_tags:
                raise ModelError(f"TaggerSpec.{name} has {len(getattr(self, name))} entries for {n_tags} tags")
        if not all(_is_finite(threshold) and 0 <= threshold <= 1 for threshold in self.thresholds):
            raise ModelError("TaggerSpec.thresholds must be numbers from 0 to 1")
        if not all(len(pair) == 2 and all(_is_finite(number) for number in pair) for pair in self.calibration):
            raise ModelError("TaggerSpec.calibration must be a finite (scale, bias) for each tag")
        if not all(isinstance(text, str) for entry in self.provenance.items() for text in entry):
            raise ModelError("TaggerSpec.provenance must be texts by name")
        try:
            plain_params = json.loads(json.dumps(self.params))
        except (TypeError, ValueError) as error:
            raise ModelError(f"TaggerSpec.params cannot be written as JSON: {error}") from error
        if not isinstance(plain_params, dict):
            raise ModelError("TaggerSpec.params must be values by name")
        object.__setattr__(self, "params", plain_params)

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types, with the number of the format."""
        return {"format": FORMAT, **dataclasses.asdict(self), "feature_hash": self.feature_config.feature_hash}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; `ModelError` names the field that is missing, unknown or cannot be read."""
        if (version := fields.get("format")) != FORMAT:
            raise ModelError(
                f"format is {version!r}, this musictag reads {FORMAT}: use the musictag that wrote the model"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        given = set(fields) - {"format", "feature_hash"}
        if wrong := sorted(known ^ given):
            raise ModelError(f"missing or unknown field {', '.join(wrong)}; needed is {', '.join(sorted(known))}")
        try:
            feature_config = FeatureConfig.from_dict(fields["feature_config"])
        except (TypeError, UsageError) as error:
            raise ModelError(f"feature_config: {error}") from error
        if fields.get("feature_hash") != feature_config.feature_hash:
            raise ModelError(
                f"feature_hash is {fields.get('feature_hash')}, this musictag's front end makes "
                f"{feature_config.feature_hash} of the same settings: use the musictag that wrote the model"
            )
        for name, kind in (("vocabulary", list), ("thresholds", list), ("calibration", list), ("provenance", dict)):
            if not isinstance(fields[name], kind):
                raise ModelError(f"{name} must be a {kind.__name__}")
        try:
            calibration = tuple((scale, bias) for scale, bias in fields["calibration"])
        except (TypeError, ValueError) as error:
            raise ModelError("calibration must be a [scale, bias] for each tag") from error
        return cls(
            architecture=fields["architecture"],
            params=fields["params"],
            feature_config=feature_config,
            vocabulary=tuple(fields["vocabulary"]),
            join=fields["join"],
            thresholds=tuple(fields["thresholds"]),
            calibration=calibration,
            provenance=fields["provenance"],
        )


def save_model(folder: Path, model: nn.Module, spec: TaggerSpec) -> None:
    """Write the artifact; `tagger.json` comes last, so a folder that has it is whole.

    Args:
        folder: made if it does not exist; a model that lies there is replaced.
        model: the bare network (not its data-parallel wrapper), on any device.
        spec: what describes it.

    Raises:
        ModelError: the model is not what `spec` describes.
    """
    _check_weights(model.state_dict(), _build(spec), "the model does not fit its spec")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).unlink(missing_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # Not `save_file`, which makes a file that nobody else on the machine may read.
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(weights))
    (folder / SPEC_FILE).write_text(json.dumps(spec.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_notices(source: Path, target: Path) -> None:
    """Have the licences of an artifact's weights lie beside weights that were made of them."""
    for notice in source.glob("LICENSE*"):
        shutil.copyfile(notice, target / notice.name)


def load_model(folder: Path) -> tuple[nn.Module, TaggerSpec]:
    """The network of an artifact, in evaluation mode on the CPU, and its description.

    Raises:
        ModelError: a file is missing or broken, or the weights do not fit; names the file and the field.
    """
    for name in (SPEC_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}: it is not a musictag model, or its writing was cut off")
    spec_path, weights_path = folder / SPEC_FILE, folder / WEIGHTS_FILE
    try:
        fields = json.loads(spec_path.read_text(encoding="utf-8"))
    except ValueError as error:  # Broken JSON, or not UTF-8.
        raise ModelError(f"{spec_path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{spec_path} must hold a JSON object, it holds a {type(fields).__name__}")
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


def _build(spec: TaggerSpec) -> nn.Module:
    """The network that `spec` describes, with fresh weights; `ModelError` if there is none."""
    try:
        return build_model(
            spec.architecture, spec.params, n_mels=spec.feature_config.n_mels, n_tags=len(spec.vocabulary)
        )
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


def _is_name(text: object) -> bool:
    return isinstance(text, str) and bool(text)


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


DIGEST_PREFIX = "sha256."


def file_digests(folder: Path) -> dict[str, str]:
    """What to record of a model artifact: `sha256.NAME`, the hex digest of each of its files."""
    return {f"{DIGEST_PREFIX}{path.name}": file_sha256(path) for path in sorted(folder.iterdir())}


def check_digests(folder: Path, recorded: Mapping[str, str]) -> None:
    """Raise `ModelError` unless an artifact's files are, byte for byte, those of which `recorded` has the digests.

    Other tags are ignored; files without a recorded digest are an error.
    """
    found = file_digests(folder)
    expected = {key: digest for key, digest in recorded.items() if key.startswith(DIGEST_PREFIX)}
    keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if keys:
        names = ", ".join(key.removeprefix(DIGEST_PREFIX) for key in keys)
        raise ModelError(
            f"{folder}: {names} changed since the model was registered: put back what it was, or register it anew"
        )
