"""Score clips with a network in float16, as a GPU should: it gets all its work before anything waits for a result.

float16 is as fast as bfloat16 on a GPU and has three more bits. Convolutions and matrix products are computed in
float16 and summed in float32; parameters and the statistics of batch normalization stay float32 (autocast). The device
may be a CPU, which gives nearly the same numbers: the tests use that.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Float32 = npt.NDArray[np.float32]
Clips = npt.NDArray[np.float16]


def score_on_device(model: nn.Module, clips: Sequence[Clips], batch_size: int) -> Tensor:
    """Return scores (C, K), float32, on the device of the model, of the clips (C_i, T, M) of some tracks.

    Scores are the sigmoid of the logits, and NaN if the logit is not finite, because the clip exceeds the range of
    float16 in the network. On a GPU, the function returns before they are computed.

    Args:
        model: log_mel (B, T, M) to logits (B, K), in evaluation mode.
        clips: one array for each track, at least one clip in all.
        batch_size: clips that go through the network together, also of different tracks.
    """
    device = next(model.parameters()).device
    scores = []
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.float16):
        for batch in _batches(clips, batch_size):
            logits = model(_to_device(batch, device)).float()
            scores.append(torch.where(logits.isfinite(), torch.sigmoid(logits), torch.nan))
        return torch.cat(scores)


def join_on_device(clip_scores: Tensor, weights: Sequence[Float32]) -> Tensor:
    """Return the scores (N, K) of tracks, on the device of their clips' scores (C, K); see `scorers.join`.

    Args:
        clip_scores: of the clips of all tracks, one track after the other.
        weights: (C_i,), of the clips of each track.
    """
    device = clip_scores.device
    shares = _to_device([of_track / of_track.sum() for of_track in weights], device)  # (C,)
    n_clips = _to_device([np.array([len(of_track) for of_track in weights])], device)  # (N,)
    with torch.inference_mode():
        # A sum over segments has a fixed order, and so the same result in each run; `index_add_` has not. "unsafe"
        # leaves out a check of the lengths, which would wait for the GPU.
        return torch.segment_reduce(clip_scores * shares[:, None], "sum", lengths=n_clips, unsafe=True)


def _batches(clips: Sequence[Clips], batch_size: int) -> Iterator[list[Clips]]:
    """Yield views that hold `batch_size` clips together; the last ones may hold fewer."""
    batch: list[Clips] = []
    n_missing = batch_size
    for of_track in clips:
        rest = of_track
        while len(rest) >= n_missing:
            yield [*batch, rest[:n_missing]]
            rest = rest[n_missing:]
            batch, n_missing = [], batch_size
        if len(rest):
            batch.append(rest)
            n_missing -= len(rest)
    if batch:
        yield batch


def _to_device(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> Tensor:
    """Return the concatenated arrays on the device; a GPU copies them from pinned memory, and nothing waits for it.

    torch keeps the pinned memory until the GPU has copied it, and then uses it again.
    """
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    on_host = torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
    np.concatenate(arrays, out=on_host.numpy())
    return on_host.to(device, non_blocking=True)
