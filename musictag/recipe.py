"""How to train, from the options of a command line: a recipe with what the options change of it."""

import argparse
import dataclasses

from musictag.training import TrainingConfig
from musictag.transfer import FINE_TUNING

FROM_NOTHING = TrainingConfig()
# Option, field of `TrainingConfig`, help.
OPTIONS = (
    ("--epochs", "epochs", "passes over the tracks, at most"),
    ("--head-epochs", "head_epochs", "epochs at the start in which the last layer alone learns"),
    ("--patience", "patience", "epochs without a better validation loss"),
    ("--batch-size", "batch_size", "clips of a step on each worker"),
    ("--clips-per-epoch", "clips_per_track", "clips of each track"),
    ("--learning-rate", "learning_rate", "of the last layer"),
    ("--body-rate", "body_rate", "learning rate of all other layers, as a share of it; 0 leaves them as they are"),
    ("--seed", "seed", "decides everything random"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; those that are not given are not among the arguments, so that the recipe decides."""
    for option, field, what in OPTIONS:
        plain, tuned = getattr(FROM_NOTHING, field), getattr(FINE_TUNING, field)
        default = f"{plain:.3g}" if tuned == plain else f"{plain:.3g}, with --init {tuned:.3g}"
        parser.add_argument(
            option, dest=field, type=type(plain), default=argparse.SUPPRESS, metavar="N",
            help=f"{what} (default: {default})",
        )  # fmt: skip


def training_config(args: argparse.Namespace, *, fine_tuning: bool) -> TrainingConfig:
    """The recipe that the arguments of `add_options` make. Raises `UsageError` for a wrong number."""
    given = {field: getattr(args, field) for _, field, _ in OPTIONS if field in args}
    return dataclasses.replace(FINE_TUNING if fine_tuning else FROM_NOTHING, **given)
