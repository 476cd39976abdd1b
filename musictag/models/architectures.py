"""The registry of models by name.

A network maps log-mel clips (B, T, M) float32 to logits (B, K); its last layer is a linear `head`. A classical model
(`CLASSICAL`) maps descriptors (N, D) of whole tracks (`musictag.features.descriptors`) to logits (N, K).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from musictag.errors import UsageError
from musictag.models.classical import CLASSICAL
from musictag.models.cnn import CNN
from musictag.models.ensemble import Ensemble
from musictag.models.musicnn import Musicnn
from musictag.models.resnet import ResNet
from musictag.models.specs import NetworkSpec
from musictag.models.three_path import ThreePath
from musictag.models.vgg import VGG


def build_model(architecture: str, params: Mapping[str, Any], *, n_mels: int, n_tags: int) -> nn.Module:
    """Build a model with fresh weights, drawn from torch's global generator.

    Args:
        architecture: a name in `ARCHITECTURES`.
        params: keyword arguments of the architecture; the others have their defaults.
        n_mels: M, the number of mel bands.
        n_tags: K, the length of the vocabulary.

    Raises:
        UsageError: the architecture or a parameter is unknown, or the value of a parameter is invalid.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(f"there is no model {architecture!r}; there is {', '.join(sorted(ARCHITECTURES))}")
    model = ARCHITECTURES[architecture]
    known = set(inspect.signature(model).parameters) - {"n_mels", "n_tags"}
    if unknown := sorted(set(params) - known):
        raise UsageError(
            f"model {architecture!r} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    return model(n_mels=n_mels, n_tags=n_tags, **params)


def build_network(spec: NetworkSpec) -> nn.Module:
    """Build the network that `spec` describes, with fresh weights; see `build_model`."""
    n_mels, n_tags = spec.feature_config.n_mels, len(spec.vocabulary)
    return build_model(spec.architecture, spec.params, n_mels=n_mels, n_tags=n_tags)


def params_from(architecture: str, **settings: Any) -> dict[str, Any]:
    """Return those of the front end's settings that are parameters of the architecture, to train it from scratch."""
    known = inspect.signature(ARCHITECTURES[architecture]).parameters
    return {name: value for name, value in settings.items() if name in known}


def _build_ensemble(*, n_mels: int, n_tags: int, members: Sequence[Mapping[str, Any]] = ()) -> Ensemble:
    """Build an ensemble with fresh weights.

    Args:
        n_mels: M.
        n_tags: K.
        members: `{"architecture": a name in SINGLE, "params": {...}}` for each member.

    Raises:
        UsageError: a member is invalid; the message names its index.
    """
    if not isinstance(members, Sequence) or isinstance(members, str) or not members:
        raise UsageError(f"ensemble members is {members!r}: a list with at least one network is needed")
    networks = []
    for index, member in enumerate(members):
        field = f"ensemble members[{index}]"
        if not isinstance(member, Mapping) or set(member) != {"architecture", "params"}:
            raise UsageError(f"{field} is {member!r}: its fields must be architecture and params")
        if member["architecture"] not in tuple(SINGLE):
            raise UsageError(
                f"{field}.architecture is {member['architecture']!r}; there is {', '.join(sorted(SINGLE))}"
            )
        if not isinstance(member["params"], Mapping):
            raise UsageError(f"{field}.params is {member['params']!r}: it must be an object")
        try:
            networks.append(build_model(**member, n_mels=n_mels, n_tags=n_tags))
        except UsageError as error:
            raise UsageError(f"{field}.params: {error}") from error
    return Ensemble(networks)


SINGLE: dict[str, Callable[..., nn.Module]] = {
    "cnn": CNN,
    "musicnn": Musicnn,
    "resnet": ResNet,
    "three-path": ThreePath,
    "vgg": VGG,
}
"""The networks that can be members of an ensemble: all except ensembles themselves."""
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {**SINGLE, "ensemble": _build_ensemble, **CLASSICAL}
