from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from musictag.evaluation import metrics
from musictag.training.checkpoints import TrainingState
from musictag.training.dataset import Dataset
from musictag.training.folds import score_held_back, train_folds, validation_metrics
from small import small_model


def state(name: str) -> TrainingState:
    weights = {name: torch.zeros(1)}
    return TrainingState(weights=weights, best_weights=weights, optimizer={})


def name_of(state: TrainingState | None) -> str | None:
    return next(iter(state.weights)) if state else None


def test_folds_resume_from_their_saved_states() -> None:
    calls = []

    def train_fold(number: int, finished: Sequence[TrainingState], saved: TrainingState | None) -> TrainingState:
        calls.append((number, [name_of(of) for of in finished], name_of(saved)))
        return state(f"{number} from {name_of(saved)}")

    states = train_folds(3, [state("a"), state("b")], train_fold)
    assert calls == [
        (0, [], "a"),
        (1, ["0 from a"], "b"),
        (2, ["0 from a", "1 from b"], None),
    ]
    assert [name_of(of) for of in states] == ["0 from a", "1 from b", "2 from None"]


class OneTrackPerFold(Dataset):
    """A dataset whose track `t0` is held back by fold 0, and so on; its score is the mean weight of the head."""

    def score_validation(
        self, fold: int, model: nn.Module, *, rank: int = 0, n_workers: int = 1
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        score = model.state_dict()["head.weight"].mean().item()
        return [f"t{fold}"], np.array([[fold == 0]]), np.array([[score]], dtype=np.float32)


def test_held_back_tracks_are_scored_by_the_network_that_did_not_learn_them() -> None:
    models = [small_model(seed) for seed in (1, 2)]
    states = [
        TrainingState(weights=model.state_dict(), best_weights=model.state_dict(), optimizer={}) for model in models
    ]
    dataset = OneTrackPerFold(
        features_uri="", files={}, feature_config=None, vocabulary=(), folds=[{}, {}]  # type: ignore[arg-type]
    )  # fmt: skip
    track_ids, targets, scores = score_held_back(small_model(seed=3), dataset, states)
    assert track_ids == ["t0", "t1"]
    assert targets.tolist() == [[True], [False]]
    assert scores[:, 0].tolist() == pytest.approx([model.state_dict()["head.weight"].mean().item() for model in models])


def test_validation_metrics_use_only_the_given_tracks() -> None:
    targets = np.array([[True], [False], [True], [False]])
    scores = np.array([[0.9], [0.2], [0.1], [0.8]], dtype=np.float32)
    values = validation_metrics((["a", "b", "c", "d"], targets, scores), ["b", "a", "elsewhere"])
    expected = metrics.validation_metrics(targets[:2], scores[:2])
    assert values == {f"best_{name}": value for name, value in expected.items()}
    assert values["best_val_macro_roc_auc"] == 1.0
