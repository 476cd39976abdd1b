"""Layers and checks that several networks share."""

from collections.abc import Sequence

from torch import nn

from musictag.errors import UsageError


def dense_layers(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Build the layers between the convolutions, whose output is (B, width), and the head, whose input is (B, hidden).

    Raises:
        UsageError: `dropout`, the fraction of inputs dropped before each dense layer, is not in [0, 1).
    """
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UsageError(f"dropout is {dropout}: it must be at least 0 and below 1")
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))


def are_widths(widths: object) -> bool:
    """Return whether `widths` is a sequence of positive integers, at least one."""
    return (
        isinstance(widths, Sequence)
        and len(widths) > 0
        and all(isinstance(width, int) and width > 0 for width in widths)
    )
