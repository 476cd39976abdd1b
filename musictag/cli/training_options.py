"""Command-line options of training, and the settings that they give."""

import argparse
import dataclasses
import json
from typing import Any

from musictag.cli import options
from musictag.errors import UsageError
from musictag.models.architectures import SINGLE
from musictag.training import recipes
from musictag.training.config import MINIMUMS, TrainingConfig

# Option, field of `TrainingConfig`, help.
OPTIONS = (
    ("--epochs", "epochs", "maximum number of passes over the tracks"),
    ("--head-epochs", "head_epochs", "epochs at the start in which only the last layer is trained"),
    ("--patience", "patience", "epochs without a lower validation loss after which training ends"),
    ("--batch-size", "batch_size", "clips per step of all workers together, a multiple of --num-workers"),
    ("--clips-per-epoch", "clips_per_track", "clips of each track per epoch"),
    ("--learning-rate", "learning_rate", "learning rate of the last layer"),
    ("--body-rate", "body_rate", "learning rate of the other layers as a share of --learning-rate; musicnn's "
                                 "convolutions are never trained"),
    ("--seed", "seed", "seed of all random numbers"),
)  # fmt: skip

precision = options.number(float, above=0, maximum=1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options. Numbers that are not given are missing in the arguments: the recipe decides them."""
    parser.add_argument("--model", choices=sorted(SINGLE),
                        help=f"network to train from scratch (default: {recipes.DEFAULT_MODEL})")  # fmt: skip
    parser.add_argument("--model-params", type=json_object, metavar="JSON", default={},
                        help='parameters of that network, such as \'{"channels": [32, 64, 128]}\'')  # fmt: skip
    parser.add_argument("--init", type=options.names, metavar="MODEL,MODEL", default=(),
                        help="models to start from instead: published names, folders or MLflow URIs")  # fmt: skip
    parser.add_argument("--vocabulary", type=options.names, metavar="TAG,TAG", help="tags to learn (default: all)")
    for option, field, text in OPTIONS:
        plain, tuned = getattr(recipes.FROM_SCRATCH, field), getattr(recipes.FINE_TUNING, field)
        minimum = MINIMUMS.get(field)
        parse = options.number(type(plain), minimum=minimum, above=0 if minimum is None else None)
        default = f"{plain:.3g}" if tuned == plain else f"{plain:.3g}, with --init {tuned:.3g}"
        parser.add_argument(
            option, dest=field, type=parse, default=argparse.SUPPRESS, metavar="N",
            help=f"{text} (default: {default})",
        )  # fmt: skip
    parser.add_argument("--folds", type=options.count, metavar="N",
                        help="with --init: number of networks to train and average; each holds back other tracks of "
                        "the train and validation splits; 1 trains on the train split only "
                        f"(default: {recipes.FOLDS})")  # fmt: skip
    parser.add_argument("--min-precision", type=precisions, metavar="TAG=SHARE,…", default={},
                        help="minimum precision of some tags on the validation tracks: their thresholds reach it with "
                        "the highest recall; those of other tags maximize F1")  # fmt: skip


def check_options(args: argparse.Namespace) -> None:
    """Raise `UsageError` if the arguments of `add_options` contradict each other."""
    if args.init and (args.model or args.model_params):
        raise UsageError(
            "--model and --model-params cannot be combined with --init, whose models determine the network"
        )


def json_object(text: str) -> dict[str, Any]:
    """Parse `--model-params`: a JSON object. Raises `UsageError` for anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--model-params is {text!r}, which is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--model-params is {text!r}: it must be a JSON object, with names and values in braces")
    return value


def precisions(text: str) -> dict[str, float]:
    """Parse `--min-precision`: `TAG=SHARE,TAG=SHARE`. Raises `UsageError` for anything else."""
    wanted = {}
    for part in options.names(text):
        tag, _, share = part.rpartition("=")
        try:
            wanted[tag] = precision(share)
        except argparse.ArgumentTypeError as error:
            raise _wrong_precision(part) from error
        if not tag:
            raise _wrong_precision(part)
    return wanted


def _wrong_precision(part: str) -> UsageError:
    return UsageError(
        f"--min-precision has {part!r}: it takes TAG=SHARE, such as calm=0.9, with a share above 0 and at most 1, "
        "separated by commas"
    )


def n_folds(args: argparse.Namespace, *, fine_tuning: bool) -> int:
    """Return the number of folds. Raises `UsageError` for several folds without fine-tuning."""
    if args.folds is None:
        return recipes.FOLDS if fine_tuning else 1
    if args.folds > 1 and not fine_tuning:
        raise UsageError("--folds needs --init: the mean of networks trained from scratch is useless")
    return int(args.folds)


def training_config(args: argparse.Namespace, *, fine_tuning: bool) -> TrainingConfig:
    """Return the recipe, changed by the arguments. Raises `UsageError` for a number out of range."""
    given = {field: getattr(args, field) for _, field, _ in OPTIONS if field in args}
    return dataclasses.replace(recipes.FINE_TUNING if fine_tuning else recipes.FROM_SCRATCH, **given)
