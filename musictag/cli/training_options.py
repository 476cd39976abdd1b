"""Command-line options of training: a recipe, and what the options change of it."""

import argparse
import dataclasses
import json
from typing import Any

from musictag.cli import options
from musictag.errors import UsageError
from musictag.models.architectures import SINGLE
from musictag.training import recipes
from musictag.training.config import TrainingConfig

# Option, field of `TrainingConfig`, help.
OPTIONS = (
    ("--epochs", "epochs", "passes over the tracks, at most"),
    ("--head-epochs", "head_epochs", "epochs at the start in which the last layer alone learns"),
    ("--patience", "patience", "epochs without a better validation loss"),
    ("--batch-size", "batch_size", "clips of a step on each worker"),
    ("--clips-per-epoch", "clips_per_track", "clips of each track"),
    ("--learning-rate", "learning_rate", "of the last layer"),
    ("--body-rate", "body_rate", "that of the other layers as a share of it; musicnn's convolutions never learn"),
    ("--seed", "seed", "decides everything random"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; numbers that are not given are not among the arguments, so that the recipe decides."""
    parser.add_argument("--model", choices=sorted(SINGLE),
                        help=f"network to train from scratch (default: {recipes.DEFAULT_MODEL})")  # fmt: skip
    parser.add_argument("--model-params", type=json_object, metavar="JSON", default={},
                        help='parameters of that network, such as \'{"channels": [32, 64, 128]}\'')  # fmt: skip
    parser.add_argument("--init", type=options.names, metavar="MODEL,MODEL", default=(),
                        help="start from these instead: published models, folders or MLflow uris")  # fmt: skip
    parser.add_argument("--vocabulary", type=options.names, metavar="TAG,TAG", help="default: all tags")
    for option, field, what in OPTIONS:
        plain, tuned = getattr(recipes.FROM_SCRATCH, field), getattr(recipes.FINE_TUNING, field)
        default = f"{plain:.3g}" if tuned == plain else f"{plain:.3g}, with --init {tuned:.3g}"
        parser.add_argument(
            option, dest=field, type=type(plain), default=argparse.SUPPRESS, metavar="N",
            help=f"{what} (default: {default})",
        )  # fmt: skip
    parser.add_argument("--folds", type=int, metavar="N",
                        help=f"with --init: train so many networks, each with another part of the train and validation "
                        f"tracks held back, and take the mean of their weights; 1 learns from the train tracks alone "
                        f"(default: {recipes.FOLDS})")  # fmt: skip
    parser.add_argument("--min-precision", type=precisions, metavar="TAG=SHARE,…", default={},
                        help="thresholds of these tags reach a precision on the validation tracks, at the most recall; "
                        "all others have the best F1")  # fmt: skip


def check_options(args: argparse.Namespace) -> None:
    """Raise `UsageError` where the arguments of `add_options` contradict each other."""
    if args.init and (args.model or args.model_params):
        raise UsageError("--model and --model-params do not go with --init: the models to start from are the network")


def json_object(text: str) -> dict[str, Any]:
    """Values by name, from JSON. Raises `UsageError` for anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--model-params is {text!r}, which is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--model-params is {text!r}: it takes values by name, in braces")
    return value


def precisions(text: str) -> dict[str, float]:
    """The precision that each tag must reach, from `TAG=SHARE,TAG=SHARE`. Raises `UsageError` for anything else."""
    wanted = {}
    for part in text.split(","):
        tag, _, share = part.rpartition("=")
        try:
            wanted[tag] = float(share)
        except ValueError:
            tag = ""
        if not tag or not 0 < wanted[tag] <= 1:
            raise UsageError(f"--min-precision has {part!r}: it takes TAG=SHARE, such as calm=0.9, separated by commas")
    return wanted


def n_folds(args: argparse.Namespace, *, fine_tuning: bool) -> int:
    """How many folds the arguments of `add_options` ask for. Raises `UsageError` where they make no sense."""
    if args.folds is None:
        return recipes.FOLDS if fine_tuning else 1
    if args.folds < 1:
        raise UsageError(f"--folds is {args.folds}: it must be at least 1")
    if args.folds > 1 and not fine_tuning:
        raise UsageError("--folds goes with --init: networks that start from nothing have no mean that makes sense")
    return int(args.folds)


def training_config(args: argparse.Namespace, *, fine_tuning: bool) -> TrainingConfig:
    """The recipe that the arguments of `add_options` make. Raises `UsageError` for a wrong number."""
    given = {field: getattr(args, field) for _, field, _ in OPTIONS if field in args}
    return dataclasses.replace(recipes.FINE_TUNING if fine_tuning else recipes.FROM_SCRATCH, **given)
