import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from musictag.errors import TrainingError
from musictag.training.checkpoints import (
    TrainingState,
    load_scored,
    load_state,
    load_states,
    save_scored,
    save_state,
    save_states,
)


def state(epoch: int) -> TrainingState:
    weights = {"head.weight": torch.full((2, 3), float(epoch)), "norm.num_batches_tracked": torch.tensor(epoch)}
    return TrainingState(
        epoch=epoch,
        weights=weights,
        best_weights={name: weight + 2 for name, weight in weights.items()},
        best_val_loss=0.5,
        epochs_since_best=3,
        optimizer={"state": {0: {"exp_avg": torch.full((2, 3), 0.25)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        history=[{"epoch": 1.0, "val_loss": 0.5}],
    )


def assert_equal(some: TrainingState, other: TrainingState) -> None:
    for name in ("epoch", "best_val_loss", "epochs_since_best", "history"):
        assert getattr(some, name) == getattr(other, name)
    for name in ("weights", "best_weights"):
        weights, others = getattr(some, name), getattr(other, name)
        assert weights.keys() == others.keys()
        assert all(torch.equal(weight, others[key]) for key, weight in weights.items()), name
    assert some.optimizer["param_groups"] == other.optimizer["param_groups"]
    assert torch.equal(some.optimizer["state"][0]["exp_avg"], other.optimizer["state"][0]["exp_avg"])


def test_state_is_read_as_written(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", state(3))
    save_state(tmp_path / "state.pt", state(4))
    assert_equal(load_state(tmp_path / "state.pt"), state(4))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_states_of_folds_keep_their_order(tmp_path: Path) -> None:
    assert load_states(tmp_path) == []
    states = [state(epoch) for epoch in range(12)]  # more than one digit
    save_states(tmp_path, states)
    loaded = load_states(tmp_path)
    assert len(loaded) == 12
    for some, other in zip(loaded, states, strict=True):
        assert_equal(some, other)


def test_broken_file_is_named(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", state(1))
    whole = (tmp_path / "state.pt").read_bytes()
    for content in (b"", b"not a state", whole[: len(whole) // 2]):
        (tmp_path / "broken.pt").write_bytes(content)
        with pytest.raises(TrainingError, match=r"broken\.pt"):
            load_state(tmp_path / "broken.pt")
    with pytest.raises(TrainingError, match=r"missing\.pt"):
        load_state(tmp_path / "missing.pt")
    torch.save({"epoch": 1}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match=r"other\.pt is not a training state"):
        load_state(tmp_path / "other.pt")


def save_old(path: Path, averaged: dict[str, torch.Tensor]) -> None:
    """Write a state as version 0.1 did."""
    fields = {field.name: getattr(state(1), field.name) for field in dataclasses.fields(TrainingState)}
    torch.save({**fields, "averaged": averaged}, path)


def test_averaged_weights_of_an_old_file_are_ignored_if_equal_to_its_weights(tmp_path: Path) -> None:
    save_old(tmp_path / "old.pt", state(1).weights)
    assert_equal(load_state(tmp_path / "old.pt"), state(1))


def test_old_file_with_other_averaged_weights_is_refused(tmp_path: Path) -> None:
    save_old(tmp_path / "old.pt", {name: weight + 1 for name, weight in state(1).weights.items()})
    with pytest.raises(TrainingError, match=r"old\.pt holds a moving average of the weights"):
        load_state(tmp_path / "old.pt")


def test_new_files_hold_no_averaged_weights(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", state(1))
    assert "averaged" not in torch.load(tmp_path / "state.pt", weights_only=True)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def test_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": Harmful()}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "harmed").exists()


def test_scored_tracks_are_read_as_written(tmp_path: Path) -> None:
    assert load_scored(tmp_path) is None
    targets, scores = np.array([[True, False], [False, False]]), np.array([[0.5, 0.25], [0.1, 1.0]], dtype=np.float32)
    save_scored(tmp_path, (["a", "b/c.mp3"], targets, scores))
    scored = load_scored(tmp_path)
    assert scored is not None
    assert scored[0] == ["a", "b/c.mp3"]
    for read, written in zip(scored[1:], (targets, scores), strict=True):
        assert read.dtype == written.dtype
        np.testing.assert_array_equal(read, written)
    assert load_states(tmp_path) == []
