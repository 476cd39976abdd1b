"""The state of a training run, saved after each epoch and read again."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from musictag.errors import TrainingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that a run needs to go on after an epoch; weights by their names in the bare model."""

    epoch: int = 0
    """Epochs finished."""
    weights: dict[str, Tensor]
    """The model's state after them."""
    averaged: dict[str, Tensor]
    """What is judged: `weights` themselves, or their average over the last steps."""
    best_weights: dict[str, Tensor]
    """What was judged to have the lowest validation loss."""
    best_val_loss: float = math.inf
    epochs_since_best: int = 0
    optimizer: dict[str, Any]
    """State of AdamW."""
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Per epoch: epoch (from 1), train_loss, what `validate` gave, learning_rate, clips_per_s, seconds."""


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state to one file, which is either the old one or the whole new one at any moment."""
    partial = path.with_name(path.name + ".partial")
    torch.save({field.name: getattr(state, field.name) for field in dataclasses.fields(state)}, partial)
    os.replace(partial, path)  # noqa: PTH105 - Path.replace does the same, but reads like str.replace


def load_state(path: Path) -> TrainingState:
    """The state in a file of `save_state`, read without running code; `TrainingError` if it is missing or broken."""
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be read as a training state: {error}; start anew without it") from error
    known = {field.name for field in dataclasses.fields(TrainingState)}
    if not isinstance(fields, dict) or set(fields) != known:
        raise TrainingError(f"{path} is no training state: it must hold {', '.join(sorted(known))}")
    return TrainingState(**fields)


def save_states(folder: Path, states: Sequence[TrainingState]) -> None:
    """Write the states of networks that are trained one after another, a file each."""
    for number, state in enumerate(states):
        save_state(folder / f"fold-{number}.pt", state)


def load_states(folder: Path) -> list[TrainingState]:
    """The states that `save_states` wrote, in their order."""
    n_states = len(list(folder.glob("fold-*.pt")))
    return [load_state(folder / f"fold-{number}.pt") for number in range(n_states)]
