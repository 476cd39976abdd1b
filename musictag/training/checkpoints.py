"""Save and load the state of a training run, and the scores of its held-back tracks."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictag.errors import TrainingError

Scored = tuple[list[str], npt.NDArray[np.bool_], npt.NDArray[np.float32]]
"""Track ids, targets (N, K) and joined scores (N, K)."""

_SCORED = "held-back.pt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that a run needs to continue after an epoch. Keys of weights are those of the model without DDP."""

    epoch: int = 0
    """Number of finished epochs."""
    weights: dict[str, Tensor]
    """State of the model after the last finished epoch."""
    best_weights: dict[str, Tensor]
    """State of the model after the epoch with the lowest validation loss."""
    best_val_loss: float = math.inf
    epochs_since_best: int = 0
    optimizer: dict[str, Any]
    """State of AdamW."""
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Metrics of each epoch: epoch (from 1), train_loss, validation metrics, learning_rate, clips_per_s, seconds."""


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state to a file. If the process is killed, the file is either the old one or the complete new one."""
    partial = path.with_name(path.name + ".partial")
    torch.save({field.name: getattr(state, field.name) for field in dataclasses.fields(state)}, partial)
    os.replace(partial, path)  # noqa: PTH105 - Path.replace looks like str.replace


def load_state(path: Path) -> TrainingState:
    """Read a file that `save_state` wrote, without running code from it.

    Older files also hold `averaged`: a moving average of the weights, or the weights themselves if it was not used.

    Raises:
        TrainingError: the file is missing or broken, or holds a moving average, with which training cannot continue.
    """
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(
            f"{path} cannot be read as a training state: {error}; train again from the start"
        ) from error
    known = {field.name for field in dataclasses.fields(TrainingState)}
    if not isinstance(fields, dict) or set(fields) - {"averaged"} != known:
        raise TrainingError(f"{path} is not a training state: it must hold {', '.join(sorted(known))}")
    averaged = fields.pop("averaged", fields["weights"])
    if not _are_equal(averaged, fields["weights"]):
        raise TrainingError(
            f"{path} holds a moving average of the weights, which is no longer supported; train again from the start"
        )
    return TrainingState(**fields)


def _are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(weight, second[name]) for name, weight in first.items())


def save_scored(folder: Path, scored: Scored) -> None:
    """Write scored tracks to `held-back.pt` in the folder."""
    track_ids, targets, scores = scored
    fields = {"track_ids": track_ids, "targets": torch.from_numpy(targets), "scores": torch.from_numpy(scores)}
    torch.save(fields, folder / _SCORED)


def load_scored(folder: Path) -> Scored | None:
    """Read what `save_scored` wrote, without running code from it; None if the folder has no such file."""
    if not (folder / _SCORED).exists():
        return None
    fields = torch.load(folder / _SCORED, weights_only=True)
    return fields["track_ids"], fields["targets"].numpy(), fields["scores"].numpy()


def save_states(folder: Path, states: Sequence[TrainingState]) -> None:
    """Write the state of each fold to `fold-N.pt` in the folder."""
    for number, state in enumerate(states):
        save_state(folder / f"fold-{number}.pt", state)


def load_states(folder: Path) -> list[TrainingState]:
    """Read the states that `save_states` wrote, in the same order."""
    n_states = len(list(folder.glob("fold-*.pt")))
    return [load_state(folder / f"fold-{number}.pt") for number in range(n_states)]
