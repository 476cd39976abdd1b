"""Train one network per fold, and score the tracks that each fold holds back."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from torch import nn

from musictag.evaluation import metrics
from musictag.training.checkpoints import Scored, TrainingState
from musictag.training.dataset import Dataset
from musictag.training.distributed import gather

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


def score_fold(model: nn.Module, dataset: Dataset, fold: int, *, rank: int = 0, n_workers: int = 1) -> Scored:
    """Return the validation tracks of a fold with scores: each worker scores its share, and all get the whole."""
    parts = gather(dataset.score_validation(fold, model, rank=rank, n_workers=n_workers), n_workers)
    return _join(parts)


def score_held_back(
    model: nn.Module, dataset: Dataset, states: Sequence[TrainingState], *, rank: int = 0, n_workers: int = 1
) -> Scored:
    """Return the validation tracks of all folds with scores, as `score_fold` does.

    Each track is scored by the best network of the fold that did not learn it. The model is left with the weights of
    the last fold.
    """
    scored = []
    for fold, state in enumerate(states):
        model.load_state_dict(state.best_weights)
        scored.append(score_fold(model, dataset, fold, rank=rank, n_workers=n_workers))
    return _join(scored)


def _join(parts: Sequence[Scored]) -> Scored:
    track_ids, targets, scores = zip(*parts, strict=True)
    return [track_id for of_part in track_ids for track_id in of_part], np.concatenate(targets), np.concatenate(scores)


def validation_metrics(held_back: Scored, track_ids: Collection[str]) -> dict[str, float]:
    """Return the metrics of these tracks, as `best_val_loss` and so on.

    Folds hold back train tracks as well: models are comparable if all are measured on the validation split.
    """
    scored_ids, targets, scores = held_back
    chosen = np.isin(scored_ids, list(track_ids))
    values = metrics.validation_metrics(targets[chosen], scores[chosen])
    return {f"best_{name}": value for name, value in values.items()}
