"""The summary and the metrics of a nightly run (`pipelines/nightly.py`)."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest


@dataclasses.dataclass(frozen=True)
class JobResult:
    """The exit code and the report of one job of a night."""

    exit_code: int
    """Of the plan if it failed, else of the job; 0 if nothing was to do."""
    report: Mapping[str, Any] | None
    """See `jobs.report`; None if the job did not write it."""
    was_needed: bool
    """Whether there was something to do."""


def summary(
    started: datetime.datetime, ended: datetime.datetime, results: Mapping[str, JobResult], problems: Sequence[str]
) -> dict[str, Any]:
    """Return the summary of a night as JSON types. `problems` are the messages of what failed beside the jobs."""
    runs_left = [result.report.get("runs_left", 0) if result.report else None for result in results.values()]
    return {
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "succeeded": not problems and all(result.exit_code == 0 for result in results.values()),
        "nights_left": None if None in runs_left else max((n for n in runs_left if n is not None), default=0),
        "jobs": {
            name: {"exit_code": result.exit_code, "was_needed": result.was_needed, **(result.report or {})}
            for name, result in results.items()
        },
        "problems": list(problems),
    }


def openmetrics(night: Mapping[str, Any]) -> str:
    """Return the numbers of a `summary` in the OpenMetrics text format, for Prometheus and others."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: Sequence[str], unit: str = "") -> Gauge:
        return Gauge(f"musictag_night_{name}", text, labels, unit=unit, registry=registry)

    gauge("succeeded", "Whether the last night succeeded", ()).set(night["succeeded"])
    ended = datetime.datetime.fromisoformat(night["ended"])
    gauge("ended_timestamp", "End of the last night, seconds since 1970", (), "seconds").set(ended.timestamp())
    tracks = gauge("tracks", "Tracks of the last night", ("job", "outcome"))
    failed = gauge("failed_tracks", "Tracks that failed in the last night", ("job", "error"))
    exit_code = gauge("exit_code", "Exit code of a job", ("job",))
    numbers = [
        (gauge(name, text, ("job",), "seconds"), field)
        for name, text, field in (
            ("duration", "Duration of a job", "seconds"),
            ("core", "Computing time of a job on one core", "core_seconds"),
            ("gpu", "Computing time of a job on one GPU", "gpu_seconds"),
            ("oldest_waiting", "Age of the oldest features of a track without tags", "oldest_waiting_seconds"),
        )
    ]
    for name, job in night["jobs"].items():
        exit_code.labels(name).set(job["exit_code"])
        for outcome in ("listed", "written", "unchanged", "failed", "deferred"):
            if outcome in job:
                tracks.labels(name, outcome).set(job[outcome])
        for error, n in job.get("failed_by_error", {}).items():
            failed.labels(name, error).set(n)
        for metric, field in numbers:
            if job.get(field) is not None:
                metric.labels(name).set(job[field])
    return str(generate_latest(registry).decode())  # type: ignore[no-untyped-call]
