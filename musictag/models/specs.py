"""The descriptions of networks and of taggers: everything about a model except its weights."""

import dataclasses
import json
import math
from typing import Any, Self

from musictag.errors import FeatureMismatchError, ModelError, UsageError
from musictag.features.config import FeatureConfig

# Increase it when older versions of musictag would misread the folder.
FORMAT = 1
# The field `join` of tagger.json: a track's scores are the mean of its clips' scores, weighted by the fraction of each
# clip that is audio. It is the only method; the field stays, so that a future one cannot be mistaken for it.
JOIN = "mean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Everything that is needed to build a network with fresh weights.

    Raises:
        ModelError: a field is invalid; the message names it.
    """

    architecture: str
    """A name in `musictag.models.architectures.ARCHITECTURES`."""
    params: dict[str, Any]
    """The architecture's own parameters, as JSON types: a tuple becomes a list."""
    feature_config: FeatureConfig
    """The front end that makes the network's input."""
    vocabulary: tuple[str, ...]
    """The K tags, in the order of the network's outputs."""

    def __post_init__(self) -> None:
        n_tags = len(self.vocabulary)
        if not n_tags or not all(map(_is_name, self.vocabulary)) or len(set(self.vocabulary)) < n_tags:
            raise ModelError("vocabulary must be a list of distinct, non-empty strings, with at least one entry")
        if not _is_name(self.architecture):
            raise ModelError(f"architecture is {self.architecture!r}: it must be a non-empty string")
        try:
            plain_params = json.loads(json.dumps(self.params))
        except (TypeError, ValueError) as error:
            raise ModelError(f"params cannot be written as JSON: {error}") from error
        if not isinstance(plain_params, dict):
            raise ModelError("params must be an object")
        object.__setattr__(self, "params", plain_params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerSpec(NetworkSpec):
    """Everything that describes a tagger except its weights.

    Raises:
        ModelError: a field is invalid; the message names it.
    """

    thresholds: tuple[float, ...]
    """Per tag, a number from 0 to 1: a track gets the tag if its calibrated score is higher. 1 never gives the tag."""
    calibration: tuple[tuple[float, float], ...]
    """Per tag, (scale, bias) applied to the logit of the track score (Platt, 1999); (1, 0) changes nothing."""
    provenance: dict[str, str]
    """Where the weights come from (run, commit, catalog, ...): free text by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        n_tags = len(self.vocabulary)
        for name in ("thresholds", "calibration"):
            if len(getattr(self, name)) != n_tags:
                raise ModelError(f"{name} has {len(getattr(self, name))} entries for {n_tags} tags")
        if not all(_is_finite(threshold) and 0 <= threshold <= 1 for threshold in self.thresholds):
            raise ModelError("thresholds must be numbers from 0 to 1")
        if not all(len(pair) == 2 and all(_is_finite(number) for number in pair) for pair in self.calibration):
            raise ModelError("calibration must be a finite (scale, bias) for each tag")
        if not all(isinstance(text, str) for entry in self.provenance.items() for text in entry):
            raise ModelError("provenance must be an object of strings")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of `tagger.json` as JSON types, in the order in which they are written."""
        fields = dataclasses.asdict(self)
        network = {field.name: fields.pop(field.name) for field in dataclasses.fields(NetworkSpec)}
        return {
            "format": FORMAT,
            **network,
            "join": JOIN,
            **fields,
            "feature_hash": self.feature_config.feature_hash,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build a spec from the result of `to_dict`.

        Raises:
            ModelError: a field is missing, unknown or invalid; the message names it.
        """
        _check_fields(fields, {field.name for field in dataclasses.fields(cls)} | {"join"})
        return cls(
            architecture=fields["architecture"],
            params=fields["params"],
            feature_config=_read_feature_config(fields),
            vocabulary=tuple(fields["vocabulary"]),
            thresholds=tuple(fields["thresholds"]),
            calibration=_read_calibration(fields),
            provenance=fields["provenance"],
        )


def check_features(spec: TaggerSpec, feature_hash: str) -> None:
    """Raise `FeatureMismatchError` unless `feature_hash` is the hash of the features that the model was trained on."""
    needed = spec.feature_config.feature_hash
    if feature_hash != needed:
        raise FeatureMismatchError(
            f"the features have hash {feature_hash}, the model needs {needed}, of the settings "
            f"{spec.feature_config.to_dict()}: name a table that was made with them by --features, or a model that was "
            "trained on these features"
        )


def _check_fields(fields: dict[str, Any], names: set[str]) -> None:
    """Raise `ModelError` for another format, a missing or unknown name, another join, or a value of a wrong type."""
    if (version := fields.get("format")) != FORMAT:
        raise ModelError(
            f"format is {version!r}, this musictag reads {FORMAT}: use the version of musictag that wrote the model"
        )
    given = set(fields) - {"format", "feature_hash"}
    if wrong := sorted(names ^ given):
        raise ModelError(f"missing or unknown field {', '.join(wrong)}; the fields are {', '.join(sorted(names))}")
    if fields["join"] != JOIN:
        raise ModelError(f"join is {fields['join']!r}; this musictag knows only {JOIN!r}")
    for name, kind in (("vocabulary", list), ("thresholds", list), ("calibration", list), ("provenance", dict)):
        if not isinstance(fields[name], kind):
            raise ModelError(f"{name} must be a {kind.__name__}")


def _read_feature_config(fields: dict[str, Any]) -> FeatureConfig:
    try:
        feature_config = FeatureConfig.from_dict(fields["feature_config"])
    except (TypeError, UsageError) as error:
        raise ModelError(f"feature_config: {error}") from error
    if fields.get("feature_hash") != feature_config.feature_hash:
        raise ModelError(
            f"feature_hash is {fields.get('feature_hash')}, but this musictag computes {feature_config.feature_hash} "
            "from the same settings: use the version of musictag that wrote the model"
        )
    return feature_config


def _read_calibration(fields: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    try:
        return tuple((scale, bias) for scale, bias in fields["calibration"])
    except (TypeError, ValueError) as error:
        raise ModelError("calibration must be a [scale, bias] for each tag") from error


def _is_name(text: object) -> bool:
    return isinstance(text, str) and bool(text)


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)
