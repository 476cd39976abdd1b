"""The outcome of a run as JSON, for the program that started it (`pipelines/nightly.py`)."""

import datetime
import json
from collections.abc import Mapping
from typing import Any

from musictag.jobs.cost import Cost
from musictag.jobs.ledger import Account
from musictag.jobs.plan import Plan
from musictag.storage.folders import delete_files, open_folder, store_errors, write_file
from musictag.storage.tables import absolute


def planned_report(plan: Plan, waiting_since: datetime.datetime | None, *, has_work: bool) -> dict[str, Any]:
    """Return what a run would do; `waiting_since` is explained at `ledger.oldest_waiting`."""
    return {
        "has_work": has_work,
        "listed": plan.n_listed,
        "tasks": plan.n_tasks,
        "unchanged": plan.n_unchanged,
        "failed": plan.n_exhausted + plan.n_missing + plan.n_problems,
        "reasons": dict(plan.reasons),
        "oldest_waiting_seconds": _age_s(waiting_since),
    }


def finished_report(
    account: Account,
    failures: Mapping[str, int],
    waiting_since: datetime.datetime | None,
    started: datetime.datetime,
    cost: Cost | None,
) -> dict[str, Any]:
    """Return what a run has done.

    `failures` is the number of failed tracks by error; `waiting_since` is explained at `ledger.oldest_waiting`.
    """
    return {
        "listed": account.listed,
        "written": account.written,
        "unchanged": account.unchanged,
        "failed": account.failed,
        "deferred": account.deferred,
        "runs_left": account.runs_left,
        "failed_by_error": dict(failures),
        "oldest_waiting_seconds": _age_s(waiting_since),
        "seconds": _age_s(started),
        "core_seconds": cost.core_seconds if cost else 0.0,
        "gpu_seconds": cost.gpu_seconds if cost else 0.0,
    }


def _age_s(moment: datetime.datetime | None) -> float:
    return (datetime.datetime.now(datetime.UTC) - moment).total_seconds() if moment else 0.0


def write_report(uri: str | None, report: Mapping[str, Any]) -> None:
    """Write a report to a path or URL; nothing if it is None. Raises `StoreError`."""
    if uri is not None:
        write_text(uri, json.dumps(report, indent=2) + "\n")


def write_text(uri: str, text: str) -> None:
    """Write a text to a path or URL; on this machine, no reader ever sees a part of it. Raises `StoreError`."""
    folder, _, name = absolute(uri).rpartition("/")
    write_file(folder, name, text.encode())


def read_report(uri: str) -> dict[str, Any]:
    """Read what `write_report` wrote. Raises `StoreError` if there is none, or something else."""
    folder, _, name = absolute(uri).rpartition("/")
    with store_errors(uri), open_folder(folder).open_input_stream(name) as stream:
        report = json.loads(stream.read())
        if not isinstance(report, dict):
            raise ValueError("it is not the report of a run")
        return report


def delete_report(uri: str) -> None:
    """Delete a report; nothing if there is none. Raises `StoreError`."""
    folder, _, name = absolute(uri).rpartition("/")
    with store_errors(uri):
        delete_files(open_folder(folder), [name])
