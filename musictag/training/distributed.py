"""Exchange results between workers that train together. DistributedDataParallel exchanges their gradients."""

from typing import TypeVar

import torch
from torch import distributed, nn

Part = TypeVar("Part")


def gather(part: Part, n_workers: int) -> list[Part]:
    """Return the parts of all workers, in the order of their ranks, on each of them."""
    if n_workers == 1:
        return [part]
    parts: list[Part | None] = [None] * n_workers
    distributed.all_gather_object(parts, part)
    return parts  # type: ignore[return-value] # all are filled


def sum_over_workers(*numbers: float, device: torch.device) -> list[float]:
    """Return the sum of each number over all workers."""
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def copy_buffers(model: nn.Module) -> None:
    """Give all workers the first one's buffers: each has its own statistics of batch normalization."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, src=0)
