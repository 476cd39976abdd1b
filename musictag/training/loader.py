"""Draw batches ahead of the training step.

On a GPU, a step takes some milliseconds, and its operations are started by a thread that must not wait for Python's
lock: a process of its own reads, draws and collates, and further epochs as well, also while validation runs. On a CPU,
the step itself needs all cores, and batches are drawn between two steps; only files are read ahead. Both give the same
batches.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from musictag.errors import MusictagError
from musictag.training.batches import Batch, to_device

# Batches that are ready, in pinned memory or on their way to it.
BATCHES_AHEAD = 8

Draw = Callable[[int], Iterable[Batch]]
"""Returns the batches of an epoch (from 0)."""
TrainBatches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""Returns the batches of an epoch on the device, log_mel (B, T, M) and targets (B, K), both float32."""


class _Epochs(IterableDataset[Batch]):
    """The batches of some epochs, one after another."""

    def __init__(self, draw: Draw, epochs: range) -> None:
        self.draw, self.epochs = draw, epochs

    def __iter__(self) -> Iterator[Batch]:
        return itertools.chain.from_iterable(map(self.draw, self.epochs))


@contextlib.contextmanager
def loading(draw: Draw, epochs: range, n_steps: int, device: torch.device, *, ahead: bool) -> Iterator[TrainBatches]:
    """Return a function that returns the batches of an epoch, for `loop.fit`.

    Args:
        draw: draws an epoch; it is pickled if `ahead`.
        epochs: the epochs to load, in order; the caller may stop early.
        n_steps: number of batches in each epoch.
        device: the device that trains.
        ahead: draw in another process, which ends with the context.
    """
    if not ahead:
        yield lambda epoch: (to_device(batch, device) for batch in draw(epoch))
        return
    loader = DataLoader(
        _Epochs(draw, epochs),
        batch_size=None,
        num_workers=1,
        prefetch_factor=BATCHES_AHEAD,
        pin_memory=device.type == "cuda",
        # A fork would copy locks that threads of this process hold.
        multiprocessing_context="spawn",
    )
    drawn = _process_errors(loader)
    try:
        yield lambda epoch: (to_device(batch, device) for batch in itertools.islice(drawn, n_steps))
    finally:
        drawn.close()  # ends the process


def _process_errors(drawn: Iterable[Batch]) -> Generator[Batch, None, None]:
    """Yield the batches; raise errors of `musictag.errors` as they were raised in the other process."""
    try:
        yield from drawn
    except MusictagError as error:  # its text is now a traceback, whose last line has name and text of the error
        _, _, last_line = str(error).strip().rpartition("\n")
        raise type(error)(last_line.partition(": ")[2]) from error
