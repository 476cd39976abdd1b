"""Save and load the state of a training run."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from musictag.errors import TrainingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that a run needs to continue after an epoch. Weights have the names of the bare model."""

    epoch: int = 0
    """Number of finished epochs."""
    weights: dict[str, Tensor]
    """State of the model after the last epoch."""
    best_weights: dict[str, Tensor]
    """State of the model after the epoch with the lowest validation loss."""
    best_val_loss: float = math.inf
    epochs_since_best: int = 0
    optimizer: dict[str, Any]
    """State of AdamW."""
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Metrics of each epoch: epoch (from 1), train_loss, results of `validate`, learning_rate, clips_per_s, seconds."""


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state to a file. A crash leaves either the old file or the complete new one."""
    partial = path.with_name(path.name + ".partial")
    torch.save({field.name: getattr(state, field.name) for field in dataclasses.fields(state)}, partial)
    os.replace(partial, path)  # noqa: PTH105 - Path.replace does the same, but reads like str.replace


def load_state(path: Path) -> TrainingState:
    """Read a file of `save_state`, without running code from it.

    Version 0.1 also wrote `averaged`, a moving average of the weights, or the weights themselves if it did not average.

    Raises:
        TrainingError: the file is missing or broken, or holds averaged weights: training with them cannot be continued.
    """
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be read as a training state: {error}; start again without it") from error
    known = {field.name for field in dataclasses.fields(TrainingState)}
    if not isinstance(fields, dict) or set(fields) - {"averaged"} != known:
        raise TrainingError(f"{path} is not a training state: it must hold {', '.join(sorted(known))}")
    averaged = fields.pop("averaged", fields["weights"])
    if not _are_equal(averaged, fields["weights"]):
        raise TrainingError(
            f"{path} holds averaged weights: musictag does not average weights any more; start again without it"
        )
    return TrainingState(**fields)


def _are_equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(weight, others[name]) for name, weight in some.items())


def save_states(folder: Path, states: Sequence[TrainingState]) -> None:
    """Write the states of several folds, one file each."""
    for number, state in enumerate(states):
        save_state(folder / f"fold-{number}.pt", state)


def load_states(folder: Path) -> list[TrainingState]:
    """Read the states that `save_states` wrote, in the same order."""
    n_states = len(list(folder.glob("fold-*.pt")))
    return [load_state(folder / f"fold-{number}.pt") for number in range(n_states)]
