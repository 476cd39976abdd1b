import dataclasses
import itertools
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
from musictag.training import loop
from musictag.training.checkpoints import TrainingState, load_state, save_state
from musictag.training.config import TrainingConfig, learning_rate_at
from musictag.training.loop import fit
from small import CONFIG as FEATURES
from small import N_TAGS, small_model

CONFIG = TrainingConfig(epochs=4, batch_size=16, learning_rate=3e-3, seed=5)
STEPS = 6


def examples(n_clips: int, seed: int) -> tuple[Tensor, Tensor]:
    # A tag raises the level of one mel band above noise.
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (n_clips, N_TAGS)).astype(np.float32)
    log_mel = rng.normal(1.0, 0.5, (n_clips, FEATURES.clip_frames, FEATURES.n_mels)).astype(np.float32)
    for tag in range(N_TAGS):
        log_mel[:, :, 2 + 5 * tag] += targets[:, tag, None]
    return torch.from_numpy(log_mel), torch.from_numpy(targets)


TRAIN, VALIDATION = examples(96, seed=0), examples(64, seed=1)


def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(TRAIN[0])))
    for indices in order.split(CONFIG.batch_size):
        yield TRAIN[0][indices], TRAIN[1][indices]


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


@pytest.mark.slow
def test_model_learns_from_informative_targets() -> None:
    state, _ = run(small_model(), dataclasses.replace(CONFIG, epochs=12, learning_rate=1e-2))
    first, last = state.history[0], state.history[-1]
    assert last["train_loss"] < 0.7 * first["train_loss"]
    assert last["val_roc_auc"] > 0.95


@pytest.mark.slow
def test_model_learns_nothing_from_random_targets() -> None:
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_same_seed_gives_the_same_losses() -> None:
    first, again = (losses(run(small_model())[0]) for _ in range(2))
    other = losses(run(small_model(), dataclasses.replace(CONFIG, seed=6))[0])  # other dropout
    assert first == again
    assert first != other


def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    uninterrupted, states = run(small_model())
    save_state(tmp_path / "state.pt", states[1])
    torch.rand(7)  # the state of torch's generator must not matter
    model = small_model(seed=99)
    resumed, _ = run(model, state=load_state(tmp_path / "state.pt"))
    assert losses(resumed) == losses(uninterrupted)
    for name, tensor in uninterrupted.best_weights.items():
        assert torch.equal(resumed.best_weights[name], tensor), name
        assert torch.equal(model.state_dict()[name], tensor), name


def test_later_epochs_do_not_change_earlier_states() -> None:
    _, states = run(small_model())
    assert any(not torch.equal(states[0].weights[name], states[3].weights[name]) for name in states[0].weights)
    moments = [state.optimizer["state"][0]["exp_avg"] for state in states]
    assert not torch.equal(moments[0], moments[3])


def test_state_can_be_resumed_twice() -> None:
    _, states = run(small_model())
    (once, _), (again, _) = (run(small_model(seed=seed), state=states[1]) for seed in (1, 2))
    assert losses(once) == losses(again)


def test_patience_ends_the_run_with_the_best_weights() -> None:
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


def test_finished_run_is_not_continued() -> None:
    finished, _ = run(small_model())
    again, states = run(small_model(seed=1), state=finished)
    assert again == finished
    assert states == []


def frozen_musicnn() -> nn.Module:
    """Return a musicnn of which only the dense layers are trained, as in fine-tuning."""
    torch.manual_seed(0)
    params = {"timbral": (4, 4), "temporal": (2, 2, 2)}
    model = build_model("musicnn", params, n_mels=FEATURES.n_mels, n_tags=N_TAGS)
    assert isinstance(model, Musicnn)
    model.freeze_encoder()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_model, frozen_musicnn])
@pytest.mark.parametrize("head_epochs", [0, 2])
def test_one_data_parallel_worker_gives_the_same_losses(
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


def test_learning_rate_follows_the_schedule() -> None:
    state, _ = run(small_model())
    for number, metrics in enumerate(state.history, start=1):
        assert metrics["learning_rate"] == learning_rate_at(number / CONFIG.epochs, CONFIG)


def test_given_loss_is_minimized() -> None:
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
    default, _ = run(small_model(), dataclasses.replace(CONFIG, epochs=1))
    assert not torch.equal(state.weights["head.weight"], default.weights["head.weight"])


def broken_batches(_epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
    log_mel, targets = TRAIN[0][:8], TRAIN[1][:8]
    yield log_mel, targets
    yield torch.full_like(log_mel, math.nan), targets


def test_infinite_loss_is_named_with_its_step() -> None:
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, step 2: use a lower learning rate than 0\.003"):
        fit(
            small_model(),
            CONFIG,
            train_batches=broken_batches,
            steps_per_epoch=2,
            validate=validate,
            on_epoch=lambda _state: None,
        )


def test_infinite_loss_leaves_the_weights_of_the_last_finished_epoch() -> None:
    model, states = small_model(), []

    def second_epoch_is_broken(epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        return broken_batches(epoch) if epoch == 1 else train_batches(epoch)

    with pytest.raises(TrainingError, match="loss is nan in epoch 2, step 2"):
        fit(
            model,
            CONFIG,
            train_batches=second_epoch_is_broken,
            steps_per_epoch=STEPS,
            validate=validate,
            on_epoch=states.append,
        )
    (first,) = states
    assert all(torch.equal(weight, first.weights[name]) for name, weight in model.state_dict().items())


def test_infinite_loss_is_noticed_before_the_end_of_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_STEPS", 3)
    n_drawn = 0

    def long_epoch(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal n_drawn
        for batch in itertools.chain(train_batches(0), broken_batches(0), *map(train_batches, range(10))):
            n_drawn += 1
            yield batch

    with pytest.raises(TrainingError, match=f"epoch 1, step {STEPS + 2}"):
        fit(
            small_model(),
            CONFIG,
            train_batches=long_epoch,
            steps_per_epoch=99,
            validate=validate,
            on_epoch=lambda _state: None,
        )
    assert n_drawn == STEPS + 3


@pytest.mark.parametrize("steps_per_epoch", [0, 3])
def test_missing_batches_are_an_error(steps_per_epoch: int) -> None:
    with pytest.raises(TrainingError, match="no training batches"):
        fit(
            small_model(),
            CONFIG,
            train_batches=lambda _epoch: [],
            steps_per_epoch=steps_per_epoch,
            validate=validate,
            on_epoch=lambda _state: None,
        )


def test_nan_validation_loss_is_an_error() -> None:
    with pytest.raises(TrainingError, match="val_loss is nan after epoch 1"):
        fit(
            small_model(),
            CONFIG,
            train_batches=train_batches,
            steps_per_epoch=STEPS,
            validate=lambda _model: {"val_loss": math.nan},
            on_epoch=lambda _state: None,
        )


def test_state_of_another_model_is_refused() -> None:
    state, _ = run(small_model(), dataclasses.replace(CONFIG, epochs=1))
    other = build_model("cnn", {"channels": (4, 6), "hidden": 16}, n_mels=FEATURES.n_mels, n_tags=N_TAGS)
    with pytest.raises(TrainingError, match="another model"):
        run(other, state=state)
