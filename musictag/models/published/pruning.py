"""Taking the filters that do nothing out of a published musicnn network: the same scores in a fraction of the time.

Weight decay has put most of their front end to sleep. Of the 561 filters of MSD_musicnn, 64 react to what they hear;
the others, with weights near 1e-30 in the median, give the same number whatever is played. What follows needs these
numbers, but not the filters.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.models.musicnn import FilterBlock, Musicnn

ASLEEP = 1e-3
"""A filter sleeps if its output moves by no more than this when each of its inputs moves by 1."""


def filters(model: Musicnn) -> dict[str, Any]:
    """The numbers of filters, as the constructor of `Musicnn` takes them."""
    return _by_kind(model, _sizes(model))


@torch.no_grad()
def prune(model: Musicnn, n_mels: int) -> Musicnn:
    """A network of fewer filters with the scores of `model`, on clips of any length and of `n_mels` bands."""
    asleep = torch.cat([_reaction(block) <= ASLEEP for block in model.filter_blocks()])
    for of_block in torch.split(asleep, _sizes(model)):
        of_block[0] &= ~of_block.all()  # a block needs a filter
    if not asleep.any():
        return model
    one = int(asleep.nonzero()[0, 0])
    dropped = asleep.clone()
    dropped[one] = False
    return _without(_speaking_for_all(model, asleep, one), dropped, n_mels)


def _speaking_for_all(model: Musicnn, asleep: Tensor, one: int) -> Musicnn:
    """The same network, where of the filters asleep, a mask of (filters,), only `one` has a say: it gives 1.

    To the middle it says what all of them said, with the sum of their weights. (A bias could not: the middle pads with
    zeros, so that it sees where a clip ends.) To the dense layer, which sees pooled channels, constants are a bias.
    """
    model = copy.deepcopy(model)
    constants = torch.cat([_constant(block) for block in model.filter_blocks()])[asleep]

    middle = model.get_parameter("midend.0.conv.weight")  # (64, filters, 7)
    said = (middle[:, asleep] * constants[:, None]).sum(dim=1)
    middle[:, asleep] = 0
    middle[:, one] = said

    pooled, norm = _pooled(asleep, model), model.pooled_norm
    normalized = (constants.repeat_interleave(2) - _mean(norm)[pooled]) * _scale(norm)[pooled] + norm.bias[pooled]
    model.dense.bias.add_(model.dense.weight[:, pooled] @ normalized)
    model.dense.weight[:, pooled] = 0

    for block in model.filter_blocks():
        if 0 <= one < block.conv.out_channels:
            block.norm.weight[one], block.norm.bias[one] = 0, 1
        one -= block.conv.out_channels
    return model


def _without(model: Musicnn, dropped: Tensor, n_mels: int) -> Musicnn:
    """The network without some filters of the front end, a mask of (filters,)."""
    kept = ~dropped
    weights = model.state_dict()
    names = [name for name, module in model.named_modules() if isinstance(module, FilterBlock)]
    for name, kept_of_block in zip(names, torch.split(kept, _sizes(model)), strict=True):
        _take(weights, name, kept_of_block)
    _take(weights, "pooled_norm", ~_pooled(dropped, model))
    weights["dense.weight"] = weights["dense.weight"][:, ~_pooled(dropped, model)]
    weights["midend.0.conv.weight"] = weights["midend.0.conv.weight"][:, kept]

    sizes = [int(of_block.sum()) for of_block in torch.split(kept, _sizes(model))]
    small = Musicnn(n_mels=n_mels, n_tags=model.head.out_features, **_by_kind(model, sizes))
    small.load_state_dict(weights)
    return small.train(model.training)


def _take(weights: dict[str, Tensor], layer: str, kept: Tensor) -> None:
    """Leave of each tensor of a layer what is `kept` of its outputs."""
    for name, tensor in weights.items():
        if name.startswith(f"{layer}.") and tensor.ndim:  # batch norm counts batches in a tensor without dimensions
            weights[name] = tensor[kept]


def _pooled(of_frontend: Tensor, model: Musicnn) -> Tensor:
    """Where some channels of the front end, a mask of (filters,), stand in the pooled vector, each twice."""
    others = torch.zeros(model.pooled_norm.num_features - 2 * len(of_frontend), dtype=torch.bool)
    return torch.cat([of_frontend.repeat_interleave(2), others])


def _sizes(model: Musicnn) -> list[int]:
    return [block.conv.out_channels for block in model.filter_blocks()]


def _by_kind(model: Musicnn, sizes: list[int]) -> dict[str, Any]:
    n_timbral = len(model.timbral)
    return {"timbral": sizes[:n_timbral], "temporal": sizes[n_timbral:]}


def _reaction(block: FilterBlock) -> Tensor:
    """How far the output of each filter can move when each input moves by 1, (filters,)."""
    return _scale(block.norm).abs() * block.conv.weight.abs().sum(dim=(1, 2, 3))


def _constant(block: FilterBlock) -> Tensor:
    """What each filter gives to silence, (filters,); one that sleeps gives it always."""
    silence = functional.relu(block.conv.get_parameter("bias"))
    return (silence - _mean(block.norm)) * _scale(block.norm) + block.norm.bias


def _mean(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return norm.get_buffer("running_mean")


def _scale(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return norm.weight / torch.sqrt(norm.get_buffer("running_var") + norm.eps)
