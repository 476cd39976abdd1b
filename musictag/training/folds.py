"""Train one network per fold and average their weights."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from torch import nn

from musictag.evaluation import metrics
from musictag.training.checkpoints import TrainingState
from musictag.training.dataset import Dataset, Scored
from musictag.training.finetune import average_weights

TrainFold = Callable[[int, Sequence[TrainingState], TrainingState | None], TrainingState]
"""Trains a fold: takes its number, the states of the finished folds, and its own state if it was begun before."""


def train_folds(n_folds: int, saved: Sequence[TrainingState], train_fold: TrainFold) -> list[TrainingState]:
    """Train the folds one after another; return the last state of each.

    Args:
        n_folds: number of folds.
        saved: states of an interrupted run, one for each fold that it began.
        train_fold: trains one fold, and returns a finished one as it is.
    """
    finished: list[TrainingState] = []
    for number in range(n_folds):
        state = saved[number] if number < len(saved) else None
        finished.append(train_fold(number, tuple(finished), state))
    return finished


def average_folds(model: nn.Module, dataset: Dataset, states: Sequence[TrainingState]) -> Scored:
    """Leave the mean of the folds' best weights in the model; return the validation tracks of all folds with scores.

    Each track is scored by the network of the fold that did not learn it.
    """
    scored = []
    for fold, (_, state) in enumerate(zip(dataset.folds, states, strict=True)):
        model.load_state_dict(state.best_weights)
        scored.append(dataset.score_validation(fold, model))
    model.load_state_dict(average_weights([state.best_weights for state in states]))
    track_ids, targets, scores = zip(*scored, strict=True)
    return (
        [track_id for fold_ids in track_ids for track_id in fold_ids],
        np.concatenate(targets),
        np.concatenate(scores),
    )


def validation_metrics(held_back: Scored, track_ids: Collection[str]) -> dict[str, float]:
    """Return the metrics of these tracks, as `best_val_loss` and so on.

    Folds hold back train tracks as well: models are comparable if all are measured on the validation split.
    """
    scored_ids, targets, scores = held_back
    chosen = np.isin(scored_ids, list(track_ids))
    values = metrics.validation_metrics(targets[chosen], scores[chosen])
    return {f"best_{name}": value for name, value in values.items()}
