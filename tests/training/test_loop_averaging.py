import copy
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musictag.training.checkpoints import TrainingState, load_state, save_state
from musictag.training.config import TrainingConfig
from musictag.training.loop import AVERAGING_START, fit
from small import STEPS, batches, small_model, validate

DECAY = 0.8
CONFIG = TrainingConfig(epochs=3, learning_rate=1e-2, averaging=DECAY, seed=5)
Batches = Iterable[tuple[Tensor, Tensor]]


def run(
    model: nn.Module, config: TrainingConfig = CONFIG, state: TrainingState | None = None
) -> tuple[TrainingState, list[TrainingState], list[dict[str, Tensor]]]:
    """The last state, that of each epoch, and the model's weights before and after each step."""
    states: list[TrainingState] = []
    steps = [copy.deepcopy(model.state_dict())]

    def watched(epoch: int) -> Batches:
        for batch in batches(epoch):
            yield batch
            steps.append(copy.deepcopy(model.state_dict()))

    last = fit(
        model, config, train_batches=watched, steps_per_epoch=STEPS, validate=validate, on_epoch=states.append,
        state=state,
    )  # fmt: skip
    return last, states, steps


def curve(state: TrainingState, name: str) -> list[float]:
    return [metrics[name] for metrics in state.history]


def assert_equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    for name, weight in some.items():
        assert torch.equal(weight, others[name]), name


def test_what_is_kept_is_the_mean_of_the_weights_over_the_steps() -> None:
    last, states, steps = run(small_model())
    assert len(steps) == 1 + 3 * STEPS
    for epoch, state in enumerate(states, start=1):
        until = steps[: 1 + epoch * STEPS]
        for name, mean in state.averaged.items():
            if not mean.is_floating_point():
                assert torch.equal(mean, state.weights[name]), name
                continue
            by_hand = until[0][name].double()
            for n_steps, step in enumerate(until[1:], start=1):
                decay = min(DECAY, n_steps / (n_steps + AVERAGING_START))
                by_hand = decay * by_hand + (1 - decay) * step[name].double()
            torch.testing.assert_close(mean, by_hand.float(), rtol=1e-5, atol=1e-6)
        assert_equal(state.weights, until[-1])
    assert any(not torch.equal(last.averaged[name], weight) for name, weight in last.weights.items())


def test_the_mean_is_judged_and_its_best_stays_in_the_model() -> None:
    model = small_model()
    last, states, _ = run(model)
    probe = small_model()
    for state in states:
        probe.load_state_dict(state.averaged)
        assert validate(probe.eval())["val_loss"] == state.history[-1]["val_loss"]
    best = min(states, key=lambda state: state.history[-1]["val_loss"])
    assert_equal(last.best_weights, best.averaged)
    assert_equal(model.state_dict(), best.averaged)
    assert not model.training


def test_the_mean_does_not_change_what_is_learned() -> None:
    averaged, _, _ = run(small_model())
    plain, _, _ = run(small_model(), dataclasses.replace(CONFIG, averaging=0.0))
    assert_equal(averaged.weights, plain.weights)
    assert curve(averaged, "train_loss") == curve(plain, "train_loss")
    assert curve(averaged, "val_loss") != curve(plain, "val_loss")


@pytest.mark.parametrize("epochs_before", [1, 2])
def test_a_resumed_run_equals_the_undisturbed_one(tmp_path: Path, epochs_before: int) -> None:
    undisturbed, states, _ = run(small_model())
    save_state(tmp_path / "state.pt", states[epochs_before - 1])
    model = small_model(seed=99)
    resumed, _, _ = run(model, state=load_state(tmp_path / "state.pt"))
    for name in ("train_loss", "val_loss"):
        assert curve(resumed, name) == curve(undisturbed, name)
    for field in ("weights", "averaged", "best_weights"):
        assert_equal(getattr(resumed, field), getattr(undisturbed, field))
    assert_equal(model.state_dict(), undisturbed.best_weights)


def test_states_are_not_changed_by_what_comes_after() -> None:
    _, states, _ = run(small_model())
    assert not torch.equal(states[0].averaged["head.weight"], states[1].averaged["head.weight"])
    assert not torch.equal(states[1].averaged["head.weight"], states[2].averaged["head.weight"])


def test_without_averaging_nothing_is_kept_twice(tmp_path: Path) -> None:
    last, states, _ = run(small_model(), dataclasses.replace(CONFIG, averaging=0.0, epochs=1))
    assert last.averaged is last.weights
    assert states[0].averaged is states[0].weights
    save_state(tmp_path / "once.pt", last)
    save_state(tmp_path / "twice.pt", dataclasses.replace(last, averaged=copy.deepcopy(last.weights)))
    once, twice = ((tmp_path / f"{name}.pt").stat().st_size for name in ("once", "twice"))
    n_bytes = sum(weight.nbytes for weight in last.weights.values())
    assert twice - once > n_bytes
    loaded = load_state(tmp_path / "once.pt")
    assert loaded.averaged is loaded.weights
