import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from musictag.errors import TrainingError
from musictag.models.architectures import build_model
from musictag.models.musicnn import Musicnn
from musictag.training.checkpoints import TrainingState, load_state, save_state
from musictag.training.config import TrainingConfig, learning_rate_at
from musictag.training.loop import fit
from small import CONFIG as FEATURES
from small import N_TAGS, small_model

CONFIG = TrainingConfig(epochs=4, batch_size=16, learning_rate=3e-3, seed=5)
STEPS = 6


def examples(n_clips: int, seed: int) -> tuple[Tensor, Tensor]:
    # A tag is a band that sounds, under noise.
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (n_clips, N_TAGS)).astype(np.float32)
    log_mel = rng.normal(1.0, 0.5, (n_clips, FEATURES.clip_frames, FEATURES.n_mels)).astype(np.float32)
    for tag in range(N_TAGS):
        log_mel[:, :, 2 + 5 * tag] += targets[:, tag, None]
    return torch.from_numpy(log_mel), torch.from_numpy(targets)


TRAIN, VALIDATION = examples(96, seed=0), examples(64, seed=1)


def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(TRAIN[0])))
    for places in order.split(CONFIG.batch_size):
        yield TRAIN[0][places], TRAIN[1][places]


def validate(model: nn.Module) -> Mapping[str, float]:
    assert not model.training
    with torch.inference_mode():
        logits = model(VALIDATION[0])
    loss = nn.functional.binary_cross_entropy_with_logits(logits, VALIDATION[1])
    return {"val_loss": loss.item(), "val_roc_auc": roc_auc_score(VALIDATION[1].numpy(), logits.numpy())}


def run(
    model: nn.Module, config: TrainingConfig = CONFIG, state: TrainingState | None = None
) -> tuple[TrainingState, list[TrainingState]]:
    states: list[TrainingState] = []
    last = fit(
        model,
        config,
        train_batches=train_batches,
        steps_per_epoch=STEPS,
        validate=validate,
        on_epoch=states.append,
        state=state,
    )
    return last, states


def losses(state: TrainingState) -> list[tuple[float, float]]:
    return [(metrics["train_loss"], metrics["val_loss"]) for metrics in state.history]


def test_the_model_learns_what_is_there_to_learn() -> None:
    state, _ = run(small_model(), dataclasses.replace(CONFIG, epochs=12, learning_rate=1e-2))
    first, last = state.history[0], state.history[-1]
    assert last["train_loss"] < 0.7 * first["train_loss"]
    assert last["val_roc_auc"] > 0.95


def test_nothing_is_learned_from_targets_that_mean_nothing() -> None:
    rng = np.random.default_rng(3)
    shuffled = [(log_mel, targets[rng.permutation(len(targets))]) for log_mel, targets in train_batches(0)]
    state = fit(
        small_model(),
        dataclasses.replace(CONFIG, epochs=12, learning_rate=1e-2),
        train_batches=lambda _epoch: shuffled,
        steps_per_epoch=STEPS,
        validate=validate,
        on_epoch=lambda _state: None,
    )
    assert state.history[-1]["val_roc_auc"] < 0.8


def test_every_epoch_is_reported() -> None:
    last, states = run(small_model())
    assert [state.epoch for state in states] == [1, 2, 3, 4]
    assert last == states[-1]
    for number, metrics in enumerate(last.history, start=1):
        assert set(metrics) == {
            "epoch", "train_loss", "val_loss", "val_roc_auc", "learning_rate", "clips_per_s", "seconds"
        }  # fmt: skip
        assert metrics["epoch"] == number
        assert metrics["clips_per_s"] > 0


def test_the_same_seed_gives_the_same_losses_and_another_gives_others() -> None:
    first, again = (losses(run(small_model())[0]) for _ in range(2))
    other = losses(run(small_model(), dataclasses.replace(CONFIG, seed=6))[0])  # Other dropout.
    assert first == again
    assert first != other


def test_a_resumed_run_equals_the_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, states = run(small_model())
    save_state(tmp_path / "state.pt", states[1])
    torch.rand(7)  # What happened to torch's generator in between does not matter.
    model = small_model(seed=99)
    resumed, _ = run(model, state=load_state(tmp_path / "state.pt"))
    assert losses(resumed) == losses(undisturbed)
    for name, tensor in undisturbed.best_weights.items():
        assert torch.equal(resumed.best_weights[name], tensor), name
        assert torch.equal(model.state_dict()[name], tensor), name


def test_states_are_not_changed_by_what_comes_after() -> None:
    _, states = run(small_model())
    assert any(not torch.equal(states[0].weights[name], states[3].weights[name]) for name in states[0].weights)
    moments = [state.optimizer["state"][0]["exp_avg"] for state in states]
    assert not torch.equal(moments[0], moments[3])


def test_a_run_may_go_on_twice_from_one_state() -> None:
    _, states = run(small_model())
    (once, _), (again, _) = (run(small_model(seed=seed), state=states[1]) for seed in (1, 2))
    assert losses(once) == losses(again)


def test_the_best_weights_are_kept_and_patience_ends_the_run() -> None:
    val_losses = iter([0.9, 0.5, 0.6, 0.5, 0.7, 0.1])
    states: list[TrainingState] = []
    model = small_model()
    last = fit(
        model,
        dataclasses.replace(CONFIG, epochs=20, patience=3),
        train_batches=train_batches,
        steps_per_epoch=STEPS,
        validate=lambda _model: {"val_loss": next(val_losses)},
        on_epoch=states.append,
    )
    assert (last.epoch, last.best_val_loss, last.epochs_since_best) == (5, 0.5, 3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, states[1].weights[name]), name
    assert not model.training


def test_a_finished_run_is_not_continued() -> None:
    finished, _ = run(small_model())
    again, states = run(small_model(seed=1), state=finished)
    assert again == finished
    assert states == []


def frozen_musicnn() -> nn.Module:
    """Of which the dense layers alone learn, as in fine-tuning."""
    torch.manual_seed(0)
    params = {"timbral": (4, 4), "temporal": (2, 2, 2)}
    model = build_model("musicnn", params, n_mels=FEATURES.n_mels, n_tags=N_TAGS)
    assert isinstance(model, Musicnn)
    model.freeze_encoder()
    return model


@pytest.mark.parametrize("make", [small_model, frozen_musicnn])
@pytest.mark.parametrize("head_epochs", [0, 2])
def test_one_data_parallel_worker_gives_the_losses_of_none(
    tmp_path: Path, head_epochs: int, make: Callable[[], nn.Module]
) -> None:
    config = dataclasses.replace(CONFIG, head_epochs=head_epochs)
    alone, _ = run(make(), config)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        model = make()
        wrapped, _ = run(DistributedDataParallel(model), config)
    finally:
        distributed.destroy_process_group()
    assert losses(wrapped) == losses(alone)
    assert wrapped.weights.keys() == model.state_dict().keys()


def test_training_follows_the_schedule() -> None:
    state, _ = run(small_model())
    for number, metrics in enumerate(state.history, start=1):
        assert metrics["learning_rate"] == learning_rate_at(number / CONFIG.epochs, CONFIG)


def test_a_plateau_of_the_validation_loss_halves_the_learning_rate_of_the_next_epoch() -> None:
    val_losses = iter([0.9, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7])
    state = fit(
        small_model(),
        dataclasses.replace(CONFIG, epochs=7, schedule="plateau", warmup=0.0, learning_rate=0.004),
        train_batches=train_batches,
        steps_per_epoch=STEPS,
        validate=lambda _model: {"val_loss": next(val_losses)},
        on_epoch=lambda _state: None,
    )
    rates = [metrics["learning_rate"] for metrics in state.history]
    assert rates == [0.004, 0.004, 0.004, 0.002, 0.002, 0.002, 0.001]


def test_the_loss_that_is_given_trains() -> None:
    values: list[float] = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        assert logits.shape == targets.shape == (16, N_TAGS)
        assert logits.dtype == torch.float32
        value = (logits - targets).square().mean()
        values.append(value.item())
        return value

    state = fit(
        small_model(),
        dataclasses.replace(CONFIG, epochs=1),
        train_batches=train_batches,
        steps_per_epoch=STEPS,
        validate=validate,
        on_epoch=lambda _state: None,
        loss=loss,
    )
    assert len(values) == STEPS
    assert state.history[0]["train_loss"] == pytest.approx(np.mean(values))
    told_otherwise, _ = run(small_model(), dataclasses.replace(CONFIG, epochs=1))
    assert not torch.equal(state.weights["head.weight"], told_otherwise.weights["head.weight"])


def broken_batches(_epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
    log_mel, targets = TRAIN[0][:8], TRAIN[1][:8]
    yield log_mel, targets
    yield torch.full_like(log_mel, math.nan), targets


def test_a_loss_that_is_not_finite_is_named_with_its_step() -> None:
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, step 2: use a lower learning rate than 0\.003"):
        fit(
            small_model(),
            CONFIG,
            train_batches=broken_batches,
            steps_per_epoch=2,
            validate=validate,
            on_epoch=lambda _state: None,
        )


@pytest.mark.parametrize("steps_per_epoch", [0, 3])
def test_no_batches_is_an_error(steps_per_epoch: int) -> None:
    with pytest.raises(TrainingError, match="no training batches"):
        fit(
            small_model(),
            CONFIG,
            train_batches=lambda _epoch: [],
            steps_per_epoch=steps_per_epoch,
            validate=validate,
            on_epoch=lambda _state: None,
        )


def test_a_validation_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(TrainingError, match="val_loss is nan after epoch 1"):
        fit(
            small_model(),
            CONFIG,
            train_batches=train_batches,
            steps_per_epoch=STEPS,
            validate=lambda _model: {"val_loss": math.nan},
            on_epoch=lambda _state: None,
        )


def test_a_state_of_another_model_is_refused() -> None:
    state, _ = run(small_model(), dataclasses.replace(CONFIG, epochs=1))
    other = build_model("cnn", {"channels": (4, 6), "hidden": 16}, n_mels=FEATURES.n_mels, n_tags=N_TAGS)
    with pytest.raises(TrainingError, match="another model"):
        run(other, state=state)
