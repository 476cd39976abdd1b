"""Command-line options that several commands share: defaults, parsers of values, groups of options."""

import argparse
import datetime
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from musictag.features.limits import Limits
from musictag.jobs.budget import WORK_TO_DO, Budget
from musictag.storage import urls

CATALOG = "data/demo/catalog.csv"
FEATURES = "data/features"
TAGS = "data/tags"
STORE_TIMEOUT_MINUTES = Limits.store_timeout_s / 60


def number(
    kind: type[int] | type[float],
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    words: Mapping[str, Any] | None = None,
) -> Callable[[str], Any]:
    """Return an argparse type that parses a finite number and checks its range.

    Args:
        kind: `int` or `float`.
        minimum: smallest allowed number.
        above: bound that the number must exceed, instead of `minimum`.
        maximum: largest allowed number.
        words: values of texts that are allowed besides numbers, such as `all`.

    The returned function raises `argparse.ArgumentTypeError`, which names the allowed values.
    """
    values = words or {}
    allowed = _allowed(kind, minimum, above, maximum, list(values))

    def parse(text: str) -> Any:
        if text in values:
            return values[text]
        try:
            value = kind(text)
            # int accepts other texts as well, such as "1_000".
            is_valid = math.isfinite(value) and (kind is float or text.removeprefix("-").isdecimal())
        except (ValueError, OverflowError):
            is_valid = False
        if (
            not is_valid
            or (minimum is not None and value < minimum)
            or (above is not None and value <= above)
            or (maximum is not None and value > maximum)
        ):
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return value

    return parse


def _allowed(kind: type, minimum: float | None, above: float | None, maximum: float | None, words: list[str]) -> str:
    """Describe the numbers and words that `number` allows, such as `a number from 0 to 1`."""
    noun = "a whole number" if kind is int else "a number"
    if minimum is not None and maximum is not None:
        noun += f" from {minimum:g} to {maximum:g}"
    else:
        bounds = (("of at least", minimum), ("above", above), ("of at most", maximum))
        noun += " and".join(f" {bound} {value:g}" for bound, value in bounds if value is not None)
    return " or ".join([noun, *map(repr, words)])


def moment(text: str) -> datetime.datetime:
    """Parse a time in ISO 8601, with a time zone. Raises `argparse.ArgumentTypeError`."""
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-12-01T06:00+01:00") from error
    if parsed.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; write {text}Z for UTC, or {text}+01:00")
    return parsed


count = number(int, minimum=1)
hours = number(float, above=0)
minutes = number(float, minimum=0)
damage = number(float, minimum=0, maximum=0.5)
rate = number(float, minimum=0, maximum=1)
clips_per_track = number(int, minimum=1, words={"all": None})


def location(text: str) -> str:
    """Parse the place of a table or folder: a `file` URL, or a path that begins with `~/`, becomes a plain path.

    The libraries that open a table do not read these alike.
    """
    return urls.local_path(text) or urls.expanded_home(text)


def local_path(text: str) -> Path:
    """Parse a path, or a `file` URL as browsers and players write it."""
    return Path(location(text))


def names(text: str) -> list[str]:
    """Split names at commas."""
    return text.split(",")


def add_audio(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Add the options that limit the decoded audio of each track; `when`, such as "with --catalog: ", begins help."""
    parser.add_argument(
        "--clips-per-track", type=clips_per_track, default="all", metavar="N|all",
        help=f"{when}number of clips to take from each track, evenly spread (default: %(default)s)",
    )  # fmt: skip
    add_limits(parser, when)
    parser.add_argument(
        "--store-timeout", type=minutes, default=STORE_TIMEOUT_MINUTES, metavar="MINUTES",
        help="wait for a store that does not answer, such as S3 or a mount; after that, its tracks fail or the run "
        "ends, and the next run tries them (default: %(default)g)",
    )  # fmt: skip


def add_limits(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Add the options of `Limits`."""
    parser.add_argument(
        "--max-hours", type=hours, default=Limits.max_hours, metavar="H",
        help=f"{when}fail tracks that are longer and must be decoded as a whole (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--max-damage", type=damage, default=Limits.max_damage, metavar="SHARE",
        help=f"{when}fail tracks that lose a larger share by damage of the file, 0 to 0.5 (default: %(default)g)",
    )  # fmt: skip


def limits(args: argparse.Namespace) -> Limits:
    """Return the limits that were given to the options of `add_audio` or `add_limits`."""
    return Limits(args.max_hours, args.max_damage, 60 * getattr(args, "store_timeout", STORE_TIMEOUT_MINUTES))


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the options of a job that trains or judges a model on labelled tracks."""
    parser.add_argument("--catalog", default=CATALOG, help="tracks and their tags (default: %(default)s)")
    parser.add_argument(
        "--features", type=location, default=FEATURES, help="Delta table of featurize.py (default: %(default)s)"
    )
    parser.add_argument(
        "--merge-tag-case", action="store_true",
        help="count tags that differ by case alone as one, in the model's or the most frequent spelling",
    )  # fmt: skip


def add_night(parser: argparse.ArgumentParser) -> None:
    """Add the options of a job that runs every night: its limits, its report, and whether it only plans."""
    parser.add_argument(
        "--max-tracks", type=number(int, minimum=0), metavar="N",
        help="process at most N tracks: first what is new or changed, then what failed before or another model tagged; "
        "the next run does the others",
    )  # fmt: skip
    parser.add_argument(
        "--deadline", type=moment, metavar="TIME",
        help="begin nothing more at this time, such as 2026-12-01T06:00+01:00; the next run does the rest",
    )  # fmt: skip
    parser.add_argument("--report", type=location, metavar="FILE", help="write the outcome as JSON to this path or URL")
    parser.add_argument(
        "--plan-only", action="store_true",
        help=f"only say what is to do; exit with {WORK_TO_DO} if there is something, else with 0",
    )  # fmt: skip


def budget(args: argparse.Namespace) -> Budget:
    """Return the limits that were given to the options of `add_night`."""
    return Budget(args.max_tracks, args.deadline)


def add_workers(parser: argparse.ArgumentParser, default: int | None, noun: str, meaning: str = "") -> None:
    """Add the options that size Ray's workers; `noun` says what they are, `meaning` what a default of None means."""
    parser.add_argument("--num-workers", type=count, default=default, help=f"{noun} (default: {default or meaning})")
    parser.add_argument("--use-gpu", action="store_true", help="give each worker one GPU")


def add_follow_links(parser: argparse.ArgumentParser) -> None:
    """Add the option for symbolic links in a folder of music."""
    parser.add_argument(
        "--follow-links", action=argparse.BooleanOptionalAction, default=True,
        help="list also the folders that symbolic links in a folder of music lead to (default: yes)",
    )  # fmt: skip


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """Add the options of a job that writes a row or a failure for each listed track."""
    parser.add_argument(
        "--max-failures", type=rate, default=0.1, metavar="RATE",
        help="fail the run if a larger share of its tracks fails (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-attempts", type=count, default=3, metavar="N",
        help="number of runs that try to decode the same audio; after that, the track counts as failed without another "
        "attempt (default: %(default)s); files that cannot be read are tried in every run, missing ones when they "
        "exist",
    )  # fmt: skip
    parser.add_argument(
        "--allow", action="append", default=[], metavar="ROOT",
        help="folder or URL; each track of a catalog must be inside one of those given; may be repeated "
        "(default: tracks may be anywhere)",
    )  # fmt: skip
    add_follow_links(parser)
    parser.add_argument(
        "--replace", action="store_true",
        help="replace the rows of tracks that the catalog lists at another place, although other audio is still at the "
        "place in the row (default: an error, because two catalogs may share the table)",
    )  # fmt: skip
    parser.add_argument("--prune", action="store_true", help="delete the rows of tracks that are no longer listed")
    parser.add_argument(
        "--prune-limit", type=rate, default=0.1, metavar="SHARE",
        help="delete nothing, and fail the run, if --prune would delete a larger share of the rows: the listing may be "
        "incomplete (default: %(default)s)",
    )  # fmt: skip
