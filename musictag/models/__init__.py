"""The networks by name. Every one maps log-mel clips (B, T, M) float32 to logits (B, K)."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from musictag.errors import UsageError
from musictag.models.cnn import CNN
from musictag.models.musicnn import Musicnn
from musictag.models.vgg import VGG

ARCHITECTURES: dict[str, type[nn.Module]] = {"cnn": CNN, "musicnn": Musicnn, "vgg": VGG}


def build_model(architecture: str, params: Mapping[str, Any], *, n_mels: int, n_tags: int) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator.

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
