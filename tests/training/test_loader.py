import functools
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from musictag.errors import StoreError
from musictag.training.batches import Batch, to_device
from musictag.training.loader import loading

CPU, N_STEPS, EPOCHS = torch.device("cpu"), 3, range(1, 4)


def draw(epoch: int, folder: Path) -> Iterator[Batch]:
    (folder / f"{epoch} in {os.getpid()}").touch()
    for step in range(N_STEPS):
        yield Batch(torch.full((2, 4, 3), epoch + step / 8).half(), torch.eye(2), torch.full((2, 3), 1.5))


def draw_broken(epoch: int) -> Iterator[Batch]:
    yield from ()
    raise StoreError(f"table features/part-{epoch}.parquet: No such file")


def loaded(folder: Path, *, ahead: bool) -> list[list[tuple[Tensor, Tensor]]]:
    with loading(functools.partial(draw, folder=folder), EPOCHS, N_STEPS, CPU, ahead=ahead) as batches:
        return [list(batches(epoch)) for epoch in EPOCHS]


def processes(folder: Path) -> set[int]:
    return {int(path.name.rpartition(" ")[2]) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [False, True])
def test_batches_of_each_epoch_are_loaded_here_or_ahead_in_one_process(tmp_path: Path, ahead: bool) -> None:
    epochs = loaded(tmp_path, ahead=ahead)
    (process,) = processes(tmp_path)
    assert (process != os.getpid()) is ahead
    for epoch, batches in zip(EPOCHS, epochs, strict=True):
        expected = [to_device(batch, CPU) for batch in draw(epoch, tmp_path)]
        for batch, other in zip(batches, expected, strict=True):
            assert all(torch.equal(tensor, same) for tensor, same in zip(batch, other, strict=True))


@pytest.mark.slow
def test_process_ends_when_training_stops_early(tmp_path: Path) -> None:
    with loading(functools.partial(draw, folder=tmp_path), EPOCHS, N_STEPS, CPU, ahead=True) as batches:
        next(batches(1))
    (process,) = processes(tmp_path)
    assert not psutil.pid_exists(process)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [False, True])
def test_errors_keep_their_class_and_sentence(ahead: bool) -> None:
    with (
        loading(draw_broken, EPOCHS, N_STEPS, CPU, ahead=ahead) as batches,
        pytest.raises(StoreError, match=r"^table features/part-1\.parquet: No such file$"),
    ):
        list(batches(1))


def test_nothing_starts_without_a_batch(tmp_path: Path) -> None:
    with loading(functools.partial(draw, folder=tmp_path), EPOCHS, N_STEPS, CPU, ahead=True):
        pass
    assert not processes(tmp_path)
