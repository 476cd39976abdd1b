"""What every command line has in common: defaults, and errors as one sentence with an exit code."""

import argparse
import os
import sys
from collections.abc import Callable

from musictag.errors import MusictagError, UsageError
from musictag.features.extract import MAX_HOURS
from musictag.storage.urls import redacted

CATALOG = "data/demo/catalog.csv"
FEATURES = "data/features"
TAGS = "data/tags"
CANDIDATE = "models:/musictag@candidate"
CHAMPION = "models:/musictag@champion"


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
    """Call `main` with the arguments; an error of ours is printed in one sentence. Returns the exit code."""
    try:
        main(sys.argv[1:] if argv is None else argv)
    except MusictagError as error:
        sys.stderr.write(f"error: {redacted(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is committed stays, and the next run goes on from there\n")
        return 130
    return 0


def names(text: str) -> list[str]:
    """Names that commas separate."""
    return text.split(",")


def clips_per_track(text: str) -> int | None:
    """The value of `--clips-per-track`: a number from 1, or `all` as None."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1, nor 'all'")
    return int(text)


def hours(text: str) -> float:
    """The value of `--max-hours`: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours above 0")
    return value


def add_audio(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Add the options that say what of a track's audio is decoded."""
    parser.add_argument("--clips-per-track", type=clips_per_track, default="all", metavar="N|all", help=when or None)
    parser.add_argument(
        "--max-hours", type=hours, default=MAX_HOURS, metavar="H",
        help=f"a track that is longer fails{when and ', '}{when} (default: %(default)g)",
    )  # fmt: skip


def count(text: str) -> int:
    """A number from 1, the value of `--diff`, `--num-workers` and `--max-attempts`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def add_workers(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    """Add the options that say on how much of a machine or a cluster Ray works."""
    parser.add_argument("--num-workers", type=count, default=default, help=f"{what} (default: %(default)s)")
    parser.add_argument("--use-gpu", action="store_true", help="one GPU for each of them")


def check_workers(args: argparse.Namespace, n_gpus: int) -> None:
    """Raise `UsageError` if Ray, on this machine with its GPUs alone, would wait for ever for more of them."""
    if args.use_gpu and "RAY_ADDRESS" not in os.environ and n_gpus < args.num_workers:
        raise UsageError(
            f"--use-gpu: {args.num_workers} workers need a GPU each, torch finds {n_gpus} here; "
            "lower --num-workers, or name a Ray cluster by RAY_ADDRESS"
        )


def ray_error(error: Exception) -> UsageError:
    """What to say where the Ray cluster of RAY_ADDRESS cannot be used."""
    reason = str(error).partition(". ")[0]
    return UsageError(
        f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}: {reason}; is it there? If it asks for a token, set "
        "RAY_AUTH_MODE=token and name the file that holds it by RAY_AUTH_TOKEN_PATH"
    )


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """Add the options of a job that leaves a row, or a failure, of each listed track."""
    parser.add_argument("--max-failures", type=rate, default=0.1, metavar="RATE", help="default: %(default)s")
    parser.add_argument(
        "--max-attempts", type=count, default=3, metavar="N",
        help="runs that try to decode the same audio; what failed so often counts as failed (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--allow", action="append", default=[], metavar="ROOT",
        help="folder or url that each track of a catalog must lie within; may be given again (default: any)",
    )  # fmt: skip
    parser.add_argument("--prune", action="store_true", help="remove the tracks that are not listed any more")


def rate(text: str) -> float:
    """A share from 0 to 1, the value of `--max-failures`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
