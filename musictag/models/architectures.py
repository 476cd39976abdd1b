"""The models by name.

Every network maps log-mel clips (B, T, M) float32 to logits (B, K), by a linear `head` at last. What is in `CLASSICAL`
maps descriptors (N, D) of whole tracks (`musictag.features.descriptors`) to logits (N, K).
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
from musictag.models.three_path import ThreePath
from musictag.models.vgg import VGG


def build_model(architecture: str, params: Mapping[str, Any], *, n_mels: int, n_tags: int) -> nn.Module:
    """A model with fresh weights, drawn from torch's global generator.

    Args:
        architecture: a name in `ARCHITECTURES`.
        params: the architecture's own keyword arguments; what is left out has its default.
        n_mels: M, the bands of a spectrogram.
        n_tags: K, the length of the vocabulary.

    Raises:
        UsageError: an unknown architecture or parameter, or a parameter's value that cannot build it.
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


def fresh_params(architecture: str, **settings: Any) -> dict[str, Any]:
    """Those of the front end's settings that the architecture has parameters for: with them it starts from nothing."""
    known = inspect.signature(ARCHITECTURES[architecture]).parameters
    return {name: value for name, value in settings.items() if name in known}


def build_ensemble(*, n_mels: int, n_tags: int, members: Sequence[Mapping[str, Any]] = ()) -> Ensemble:
    """An ensemble with fresh weights.

    Args:
        n_mels: M.
        n_tags: K.
        members: what `build_model` needs of each, `{"architecture": a name in SINGLE, "params": {...}}`.

    Raises:
        UsageError: a member that cannot be built, by its place.
    """
    if not isinstance(members, Sequence) or isinstance(members, str) or not members:
        raise UsageError(f"ensemble members is {members!r}: a list of networks is needed, at least one")
    networks = []
    for place, member in enumerate(members):
        field = f"ensemble members[{place}]"
        if not isinstance(member, Mapping) or set(member) != {"architecture", "params"}:
            raise UsageError(f"{field} is {member!r}: it must have architecture and params, and nothing else")
        if member["architecture"] not in tuple(SINGLE):
            raise UsageError(
                f"{field}.architecture is {member['architecture']!r}; there is {', '.join(sorted(SINGLE))}"
            )
        if not isinstance(member["params"], Mapping):
            raise UsageError(f"{field}.params is {member['params']!r}: it must be values by name")
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
"""Networks of one piece: those that an ensemble may have as members."""
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {**SINGLE, "ensemble": build_ensemble, **CLASSICAL}
