"""Remove the inactive filters of a published musicnn network: the same scores in a fraction of the time.

Weight decay has made most filters of the front end inactive: their output does not depend on the input. Of the 561
filters of MSD_musicnn only 64 are active; the median weight of the others is near 1e-30. The later layers need the
constant outputs of the inactive filters, but not the filters.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.models.musicnn import FilterBlock, Musicnn

MAX_REACTION = 1e-3
"""A filter is inactive if its output changes by no more than this when each of its inputs changes by 1."""


def filter_params(model: Musicnn) -> dict[str, Any]:
    """Return the numbers of filters as keyword arguments of `Musicnn`."""
    return _sizes_by_kind(model, _block_sizes(model))


@torch.no_grad()
def prune(model: Musicnn, n_mels: int) -> Musicnn:
    """Return a network with fewer filters and the same scores as `model`, for clips (T, n_mels) with any T."""
    inactive = torch.cat([_reaction(block) <= MAX_REACTION for block in model.filter_blocks()])
    for mask in torch.split(inactive, _block_sizes(model)):
        mask[0] &= ~mask.all()  # a block must keep at least one filter
    if not inactive.any():
        return model
    kept_filter = int(inactive.nonzero()[0, 0])
    dropped = inactive.clone()
    dropped[kept_filter] = False
    return _remove_filters(_merge_inactive(model, inactive, kept_filter), dropped, n_mels)


def _merge_inactive(model: Musicnn, inactive: Tensor, kept_filter: int) -> Musicnn:
    """Return an equal network in which only one of the `inactive` filters, a mask (filters,), has an effect.

    The output of this filter, number `kept_filter`, becomes 1, and its weights in the midend become the sum of all
    inactive filters' contributions. (A bias could not replace them: the midend pads with zeros, so that constants have
    a different effect at the ends of a clip.) In the dense layer, whose input is pooled, the constants become a bias.
    """
    model = copy.deepcopy(model)
    constants = torch.cat([_constant_outputs(block) for block in model.filter_blocks()])[inactive]

    midend = model.get_parameter("midend.0.conv.weight")  # (64, filters, 7)
    contribution = (midend[:, inactive] * constants[:, None]).sum(dim=1)
    midend[:, inactive] = 0
    midend[:, kept_filter] = contribution

    pooled, norm = _pooled_mask(inactive, model), model.pooled_norm
    normalized = (constants.repeat_interleave(2) - _mean(norm)[pooled]) * _scale(norm)[pooled] + norm.bias[pooled]
    model.dense.bias.add_(model.dense.weight[:, pooled] @ normalized)
    model.dense.weight[:, pooled] = 0

    index = kept_filter
    for block in model.filter_blocks():
        if 0 <= index < block.conv.out_channels:
            block.norm.weight[index], block.norm.bias[index] = 0, 1
        index -= block.conv.out_channels
    return model


def _remove_filters(model: Musicnn, dropped: Tensor, n_mels: int) -> Musicnn:
    """Return the network without the front end's `dropped` filters, a mask (filters,)."""
    kept = ~dropped
    weights = model.state_dict()
    names = [name for name, module in model.named_modules() if isinstance(module, FilterBlock)]
    for name, kept_mask in zip(names, torch.split(kept, _block_sizes(model)), strict=True):
        _select_outputs(weights, name, kept_mask)
    _select_outputs(weights, "pooled_norm", ~_pooled_mask(dropped, model))
    weights["dense.weight"] = weights["dense.weight"][:, ~_pooled_mask(dropped, model)]
    weights["midend.0.conv.weight"] = weights["midend.0.conv.weight"][:, kept]

    sizes = [int(mask.sum()) for mask in torch.split(kept, _block_sizes(model))]
    small = Musicnn(n_mels=n_mels, n_tags=model.head.out_features, **_sizes_by_kind(model, sizes))
    small.load_state_dict(weights)
    return small.train(model.training)


def _select_outputs(weights: dict[str, Tensor], layer: str, kept: Tensor) -> None:
    """Reduce each tensor of a layer to the outputs in the mask `kept`; `weights` is changed."""
    for name, tensor in weights.items():
        if name.startswith(f"{layer}.") and tensor.ndim:  # not the scalar num_batches_tracked of batch norm
            weights[name] = tensor[kept]


def _pooled_mask(frontend_mask: Tensor, model: Musicnn) -> Tensor:
    """Return the mask of the pooled vector for a mask (filters,) of the front end; each channel is there twice."""
    others = torch.zeros(model.pooled_norm.num_features - 2 * len(frontend_mask), dtype=torch.bool)
    return torch.cat([frontend_mask.repeat_interleave(2), others])


def _block_sizes(model: Musicnn) -> list[int]:
    return [block.conv.out_channels for block in model.filter_blocks()]


def _sizes_by_kind(model: Musicnn, sizes: list[int]) -> dict[str, Any]:
    n_timbral = len(model.timbral)
    return {"timbral": sizes[:n_timbral], "temporal": sizes[n_timbral:]}


def _reaction(block: FilterBlock) -> Tensor:
    """Return how much the output of each filter can change when each input changes by 1: (filters,)."""
    return _scale(block.norm).abs() * block.conv.weight.abs().sum(dim=(1, 2, 3))


def _constant_outputs(block: FilterBlock) -> Tensor:
    """Return the output of each filter for silence (filters,); an inactive filter has this output for any input."""
    silence = functional.relu(block.conv.get_parameter("bias"))
    return (silence - _mean(block.norm)) * _scale(block.norm) + block.norm.bias


def _mean(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return norm.get_buffer("running_mean")


def _scale(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return norm.weight / torch.sqrt(norm.get_buffer("running_var") + norm.eps)
