"""Two processes that train one network, as two workers of Ray do, compared with one."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from musictag.training.checkpoints import TrainingState, load_state, save_state
from musictag.training.config import TrainingConfig
from musictag.training.distributed import gather
from musictag.training.loop import fit
from small import STEPS, batches, small_model, validate

CONFIG = TrainingConfig(epochs=8, batch_size=16, learning_rate=1e-2, seed=5)
N_WORKERS = 2


def without_dropout() -> nn.Module:
    """Return a network whose loss on a batch is the same in one process and in several."""
    model = small_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def train(model: nn.Module, config: TrainingConfig, rank: int, n_workers: int) -> TrainingState:
    def share_of_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for log_mel, targets in batches(epoch):
            yield log_mel[rank::n_workers], targets[rank::n_workers]

    return fit(
        model,
        config,
        train_batches=share_of_batches,
        steps_per_epoch=STEPS,
        validate=validate,
        on_epoch=lambda _state: None,
    )


def worker(rank: int, folder: Path, config: TrainingConfig) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=N_WORKERS)
    assert gather(f"of {rank}", N_WORKERS) == ["of 0", "of 1"]
    state = train(DistributedDataParallel(without_dropout()), config, rank, N_WORKERS)
    save_state(folder / f"{rank}.pt", state)
    distributed.destroy_process_group()


def losses(state: TrainingState) -> np.ndarray:
    return np.array([[epoch["train_loss"], epoch["val_loss"]] for epoch in state.history])


@pytest.mark.slow
@pytest.mark.parametrize(("frozen_norm", "bound"), [(True, 1e-5), (False, 0.15)])
def test_two_workers_have_the_loss_curve_of_one(tmp_path: Path, frozen_norm: bool, bound: float) -> None:
    config = dataclasses.replace(CONFIG, frozen_norm=frozen_norm)
    alone = losses(train(without_dropout(), config, 0, 1))
    multiprocessing.spawn(worker, (tmp_path, config), nprocs=N_WORKERS)  # type: ignore[no-untyped-call]
    states = [load_state(tmp_path / f"{rank}.pt") for rank in range(N_WORKERS)]
    together = [losses(state) for state in states]
    np.testing.assert_allclose(together[0], alone, rtol=bound)
    # Statistics of batch normalization are those of 8 clips in each worker, of 16 in one: hence the wider bound. Before
    # each validation, all workers get the first one's.
    np.testing.assert_array_equal(together[0], together[1])
    assert all(torch.equal(weight, states[1].weights[name]) for name, weight in states[0].weights.items())


def test_one_worker_gathers_its_own_part_without_a_process_group() -> None:
    assert gather("mine", 1) == ["mine"]
