"""The settings of a nightly run (`pipelines/nightly.py`), a TOML file such as:

catalog = "s3://music/catalog.csv"
features = "s3://music/features"
tags = "s3://music/tags"
summary = "s3://music/nightly/summary.json"

[budget]
deadline = "06:00"
max_tracks = 200_000

[featurize]
options = ["--prune"]

[tag]
options = ["--prune"]
"""

import dataclasses
import datetime
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musictag.errors import UsageError

JOBS = ("featurize", "tag")
"""The jobs of a night, in their order; each is a script of `pipelines/`."""
DEFAULT_OPTIONS = {"featurize": ("--runner=DirectRunner",), "tag": ()}


@dataclasses.dataclass(frozen=True)
class JobConfig:
    """How a job is run."""

    options: tuple[str, ...] = ()
    """Options of the script."""
    command: tuple[str, ...] = ()
    """A program that gets the script and its options as arguments: it starts an engine, runs the script there, waits,
    and removes the engine. Empty runs the script on this machine."""


@dataclasses.dataclass(frozen=True)
class NightConfig:
    """The settings of a nightly run."""

    catalog: str
    features: str
    tags: str
    model: str | None = None
    """The model that tags; None is the default of tag.py."""
    summary: str | None = None
    """Path or URL of the summary, a JSON file; None writes none."""
    metrics: str | None = None
    """Path or URL of the metrics in the OpenMetrics text format; None writes none."""
    reports: str = "data/nightly"
    """Folder or URL of the reports of the jobs; where these run on other machines, these must reach it."""
    deadline: datetime.time | None = None
    """Time of day, in the zone of this machine, at which jobs begin nothing more."""
    max_tracks: int | None = None
    """Number of tracks that each job may process."""
    keep_hours: int = 7 * 24
    """Age of the table versions whose files are kept."""
    compact: bool = True
    """Whether small files of the tables are joined."""
    jobs: Mapping[str, JobConfig] = dataclasses.field(default_factory=dict)
    """Settings of each of `JOBS`."""

    def deadlines(self, started: datetime.datetime) -> dict[str, datetime.datetime | None]:
        """Return when each job of a night begins nothing more.

        Featurizing has half of the night, so that new tracks are tagged although a large backlog is featurized.
        """
        deadline = self.deadline_after(started)
        if deadline is None:
            return dict.fromkeys(JOBS)
        return {"featurize": started.astimezone() + (deadline - started) / 2, "tag": deadline}

    def deadline_after(self, started: datetime.datetime) -> datetime.datetime | None:
        """Return the first moment after the start of a night at which the clock shows `deadline`."""
        if self.deadline is None:
            return None
        today = started.astimezone().date()
        # Without a zone until the end: the clock may be set in the night.
        moments = [
            datetime.datetime.combine(today + datetime.timedelta(days=days), self.deadline).astimezone()
            for days in (0, 1)
        ]
        return next(moment for moment in moments if moment > started)


def read_config(path: Path) -> NightConfig:
    """Read the settings of a night. Raises `UsageError`, which names the key, for what is missing, unknown or wrong."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read: {error}") from error
    try:
        return parse_config(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path}: is not TOML: {error}") from error
    except UsageError as error:
        raise UsageError(f"--config {path}: {error}") from error


def parse_config(tables: Mapping[str, Any]) -> NightConfig:
    """Return the settings in the tables of a TOML file, see `read_config`."""
    _check_keys(tables, _TOP, "")
    fields: dict[str, Any] = {key: _checked(tables, key, _TOP[key], "") for key in tables if key not in _TABLES}
    for name, keys in {"budget": _BUDGET, "housekeeping": _HOUSEKEEPING}.items():
        table = _checked(tables, name, dict, "") if name in tables else {}
        _check_keys(table, keys, f"{name}.")
        fields |= {key: _checked(table, key, keys[key], f"{name}.") for key in table}
    if "deadline" in fields:
        fields["deadline"] = _time(fields["deadline"])
    for name, minimum in (("max_tracks", 1), ("keep_hours", 1)):
        if fields.get(name, minimum) < minimum:
            raise UsageError(f"{name} is {fields[name]}: it must be at least {minimum}")
    if missing := [key for key in ("catalog", "features", "tags") if key not in fields]:
        raise UsageError(f"{missing[0]} is missing")
    return NightConfig(**fields, jobs={name: _job(tables, name) for name in JOBS})


_TOP: Mapping[str, type] = {
    **dict.fromkeys(("catalog", "features", "tags", "model", "summary", "metrics", "reports"), str),
    **dict.fromkeys(("budget", "housekeeping", "featurize", "tag"), dict),
}
_BUDGET: Mapping[str, type] = {"deadline": str, "max_tracks": int}
_HOUSEKEEPING: Mapping[str, type] = {"keep_hours": int, "compact": bool}
_JOB: Mapping[str, type] = {"options": list, "command": list}
_TABLES = ("budget", "housekeeping", *JOBS)
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list of texts", dict: "a table"}


def _job(tables: Mapping[str, Any], name: str) -> JobConfig:
    table = _checked(tables, name, dict, "") if name in tables else {}
    _check_keys(table, _JOB, f"{name}.")
    lists = {key: tuple(_checked(table, key, list, f"{name}.")) for key in table}
    return JobConfig(lists.get("options", DEFAULT_OPTIONS[name]), lists.get("command", ()))


def _check_keys(table: Mapping[str, Any], known: Mapping[str, type], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {place}{near[0]}?" if near else f"; known are {', '.join(known)}"
            raise UsageError(f"{place}{key} is no setting{hint}")


def _checked(table: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    value = table[key]
    # A bool is an int in Python.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{place}{key} is {value!r}: it must be {_WORDS[kind]}")
    if isinstance(value, list) and not all(isinstance(each, str) for each in value):
        raise UsageError(f"{place}{key} is {value!r}: it must be {_WORDS[list]}")
    return value


def _time(text: str) -> datetime.time:
    try:
        parsed = datetime.time.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"budget.deadline is {text!r}: it must be a time of day such as 06:00") from error
    if parsed.tzinfo is not None:
        raise UsageError(f"budget.deadline is {text!r}: it is a time of this machine's zone, without a zone of its own")
    return parsed


def arguments(
    config: NightConfig, job: str, deadline: datetime.datetime | None, report: str, *, plan_only: bool = False
) -> list[str]:
    """Return the options of a job's script for a night.

    Args:
        config: the settings.
        job: one of `JOBS`.
        deadline: when it begins nothing more.
        report: where it writes its report.
        plan_only: whether it only plans.
    """
    places = {
        "featurize": ["--catalog", config.catalog, "--features", config.features],
        "tag": ["--features", config.features, "--tags", config.tags],
    }
    model = ["--model", config.model] if job == "tag" and config.model else []
    limits = ["--max-tracks", str(config.max_tracks)] if config.max_tracks is not None else []
    limits += ["--deadline", deadline.isoformat()] if deadline is not None else []
    return [
        *places[job],
        *model,
        *config.jobs[job].options,
        *limits,
        "--report",
        report,
        *(["--plan-only"] * plan_only),
    ]
