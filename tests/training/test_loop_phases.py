import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from musictag.training.checkpoints import TrainingState, load_state, save_state
from musictag.training.config import TrainingConfig
from musictag.training.loop import fit, is_head
from small import STEPS, batches, small_model, validate

HEAD_FIRST = TrainingConfig(
    epochs=4, head_epochs=2, body_rate=0.5, frozen_norm=True, learning_rate=1e-2, weight_decay=0.1, seed=5
)
HEAD = {"head.weight", "head.bias"}


BEFORE = small_model().state_dict()
STATISTICS = {name for name in BEFORE if "running" in name or "num_batches" in name}


def run(
    model: nn.Module, config: TrainingConfig, state: TrainingState | None = None
) -> tuple[TrainingState, list[TrainingState]]:
    states: list[TrainingState] = []
    last = fit(
        model, config, train_batches=batches, steps_per_epoch=STEPS, validate=validate, on_epoch=states.append,
        state=state,
    )  # fmt: skip
    return last, states


def losses(state: TrainingState) -> list[tuple[float, float]]:
    return [(metrics["train_loss"], metrics["val_loss"]) for metrics in state.history]


def test_head_is_recognized_by_name() -> None:
    names = ["head.weight", "members.1.head.bias", "dense.1.weight", "heads.weight", "blocks.overhead.bias"]
    assert [is_head(name) for name in names] == [True, True, False, False, False]


def changed(state: TrainingState, before: Mapping[str, Tensor]) -> set[str]:
    return {name for name, weight in state.weights.items() if not torch.equal(weight, before[name])}


def test_only_the_head_is_trained_in_head_epochs() -> None:
    _, states = run(small_model(), HEAD_FIRST)
    every = BEFORE.keys() - STATISTICS
    assert [changed(state, BEFORE) for state in states] == [HEAD, HEAD, every, every]


def test_body_rate_of_0_trains_only_the_head() -> None:
    state, _ = run(small_model(), dataclasses.replace(HEAD_FIRST, head_epochs=0, body_rate=0.0))
    assert changed(state, BEFORE) == HEAD


def test_batch_norm_statistics_change_unless_frozen() -> None:
    thawed = dataclasses.replace(HEAD_FIRST, frozen_norm=False, body_rate=0.0)
    assert changed(run(small_model(), thawed)[0], BEFORE) == HEAD | STATISTICS


def test_smaller_body_rate_changes_the_body_less() -> None:
    def moved(body_rate: float) -> float:
        state, _ = run(small_model(), dataclasses.replace(HEAD_FIRST, body_rate=body_rate))
        return sum(
            (weight - state.weights[name]).abs().sum().item()
            for name, weight in BEFORE.items()
            if name not in HEAD | STATISTICS
        )

    assert 0 < 2 * moved(0.1) < moved(1.0)


def test_gradients_of_the_body_are_not_computed_in_head_epochs() -> None:
    calls: list[str] = []
    model = small_model()
    for name, weight in model.named_parameters():
        weight.register_hook(lambda _gradient, name=name: calls.append(name))
    run(model, dataclasses.replace(HEAD_FIRST, epochs=2))
    assert set(calls) == HEAD


def test_run_with_head_epochs_is_resumed_in_either_phase(tmp_path: Path) -> None:
    uninterrupted, states = run(small_model(), HEAD_FIRST)
    for state in states[:3]:
        save_state(tmp_path / "state.pt", state)
        resumed, _ = run(small_model(seed=99), HEAD_FIRST, state=load_state(tmp_path / "state.pt"))
        assert losses(resumed) == losses(uninterrupted)
        assert not changed(resumed, uninterrupted.weights)
