"""What every command line has in common: defaults, and errors as one sentence with an exit code."""

import argparse

from musictag.features.extract import MAX_HOURS

CATALOG = "data/demo/catalog.csv"
FEATURES = "data/features"
TAGS = "data/tags"


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
