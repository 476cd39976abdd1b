"""Bring features and tags up to date, and keep the tables small: what a scheduler starts every night.

python pipelines/nightly.py --config my/catalog.toml

Featurizes what is new or changed, tags what is new, changed or of an earlier champion, joins small files, and removes
files that no recent version needs. Each job is a script of this folder, and is started only if its plan says that there
is something to do. On a cluster, `command` of a job names the program that starts the engine, waits for the script and
removes the engine; see infra/README.md.

A night ends at the deadline, or after a number of tracks, of the settings; the next night does the rest. It may be
killed at any moment, and two may run at once: the tables keep what is committed, and no track is there twice.

The settings are explained in musictag/jobs/night_config.py. The exit code is 0 if everything succeeded, else 1.
"""

import argparse
import contextlib
import datetime
import secrets
import sys
from pathlib import Path
from typing import Any

from musictag.errors import ConflictError, LedgerError, MusictagError, StoreError
from musictag.jobs import maintenance
from musictag.jobs.budget import WORK_TO_DO
from musictag.jobs.commands import run_command
from musictag.jobs.entry_point import run_main
from musictag.jobs.night_config import JOBS, NightConfig, arguments, read_config
from musictag.jobs.night_summary import JobResult, openmetrics, summary
from musictag.jobs.progress import counted, echo
from musictag.jobs.report import delete_report, read_report, write_report, write_text
from musictag.storage import tables

PIPELINES = Path(__file__).parent


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings of the night, as TOML")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Run the jobs and the housekeeping, and write the summary and the metrics."""
    config = read_config(parse(argv).config)
    started = datetime.datetime.now(datetime.UTC)
    deadlines = config.deadlines(started)
    for job, deadline in deadlines.items():
        if deadline:
            echo(f"{job}: begins nothing more at {deadline.isoformat(timespec='minutes')}")
    results: dict[str, JobResult] = {}
    problems: list[str] = []
    try:
        for job in JOBS:
            results[job] = run_job(config, job, deadlines[job], started)
        problems += keep_house(config)
    except BaseException as error:
        problems.append(f"the night was stopped: {type(error).__name__}")
        with contextlib.suppress(MusictagError):
            publish(config, summary(started, datetime.datetime.now(datetime.UTC), results, problems))
        raise
    night = summary(started, datetime.datetime.now(datetime.UTC), results, problems)
    publish(config, night)
    echo_night(night)
    if not night["succeeded"]:
        failed = [f"{job} (exit code {result.exit_code})" for job, result in results.items() if result.exit_code]
        raise LedgerError(f"not everything succeeded: {', '.join([*failed, *problems])}; see the messages above")


def publish(config: NightConfig, night: dict[str, Any]) -> None:
    """Write the summary and the metrics of a night."""
    write_report(config.summary, night)
    if config.metrics:
        write_text(config.metrics, openmetrics(night))


def run_job(config: NightConfig, job: str, deadline: datetime.datetime | None, started: datetime.datetime) -> JobResult:
    """Plan a job, and run it if there is something to do."""
    # Other nights may run at the same time, or have the same folder.
    report = f"{config.reports.rstrip('/')}/{started:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}-{job}.json"
    try:
        return plan_and_run(config, job, deadline, report)
    finally:
        delete_report(report)


def plan_and_run(config: NightConfig, job: str, deadline: datetime.datetime | None, report: str) -> JobResult:
    """Plan a job, and run it if there is something to do; both write `report`."""
    script = [sys.executable, str(PIPELINES / f"{job}.py")]
    echo(f"{job}: planning")
    code = run_command([*script, *arguments(config, job, deadline, report, plan_only=True)])
    planned = read_if_written(report, code)
    if code != WORK_TO_DO:
        return JobResult(code, planned, was_needed=False)
    if deadline and datetime.datetime.now(datetime.UTC) >= deadline:
        echo(f"{job}: not started, because the deadline has passed")
        n_tasks = (planned or {}).get("tasks", 0)
        return JobResult(0, {**(planned or {}), "deferred": n_tasks, "runs_left": None}, was_needed=True)
    delete_report(report)
    echo(f"{job}: running")
    options = arguments(config, job, deadline, report)
    if planned and planned["tasks"] == 0:  # what is left needs no engine
        code = run_command([*script, *options, "--max-tracks", "0"])
    else:
        code = run_command([*(config.jobs[job].command or script[:1]), script[1], *options])
    return JobResult(code, read_if_written(report, code), was_needed=True)


def read_if_written(report: str, code: int) -> dict[str, Any] | None:
    """Return the report of a job that ended with an exit code; None if the job has not written it.

    A job that failed has said why.
    """
    try:
        return read_report(report)
    except StoreError as error:
        if code in (0, WORK_TO_DO):
            echo(f"no report of the job: {error}")
        return None


def keep_house(config: NightConfig) -> list[str]:
    """Join small files of the tables and remove those that no recent version needs; return the messages of errors.

    A table that another run changes meanwhile is left to the next night, which is no error.
    """
    problems = []
    for uri in (config.features, config.tags):
        for table in (uri, tables.companion_uri(uri, "failures")):
            try:
                if tables.table_exists(table):
                    keep_table(table, config)
            except ConflictError:
                echo(f"{table}: not joined, because another run changes it; the next night does it")
            except MusictagError as error:
                problems.append(str(error))
                echo(f"housekeeping: {error}")
    return problems


def keep_table(table: str, config: NightConfig) -> None:
    """Join small files of a table, if the settings say so, and remove those that no recent version needs."""
    if config.compact:
        done = maintenance.compact(table)
        if done.n_before != done.n_after:
            echo(f"{table}: {counted(done.n_before, 'file')} joined, {done.n_after:,} now")
    if removed := maintenance.vacuum(table, config.keep_hours):
        echo(f"{table}: {counted(len(removed), 'old file')} removed")


def echo_night(night: dict[str, Any]) -> None:
    """Print a line for each job, and when the rest will be done."""
    for name, job in night["jobs"].items():
        if not job["was_needed"] and job["exit_code"] == 0:
            echo(f"{name}: nothing to do, {job.get('unchanged', 0):,} unchanged, {job.get('failed', 0):,} failed")
        elif "written" not in job:
            echo(f"{name}: not run, {job.get('deferred', 0):,} deferred (exit code {job['exit_code']})")
        else:
            echo(
                f"{name}: {job['listed']:,} listed = {job['written']:,} written + {job['unchanged']:,} unchanged + "
                f"{job['failed']:,} failed + {job['deferred']:,} deferred; "
                f"{job['core_seconds'] / 3600:,.2f} core-hours, {job['gpu_seconds'] / 3600:,.2f} GPU-hours"
            )
    if night["nights_left"]:
        echo(f"the rest needs {counted(night['nights_left'], 'more night')} like this one")
    elif night["nights_left"] is None and night["succeeded"]:
        echo("how many more nights the rest needs is not known")


if __name__ == "__main__":
    sys.exit(run_main(main))
