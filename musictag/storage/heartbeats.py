"""The heartbeats of runs, which tell whether the runs of a table, or of a folder of checkpoints, are still running.

The driver of a run writes the file `_staged/RUN/driver` again and again, and deletes it when it ends. What a killed
driver leaves tells another process of the same machine that it is gone; on another machine, the file is watched.
"""

import contextlib
import datetime
import functools
import json
import os
import secrets
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import psutil
from pyarrow.fs import FileSelector, FileType

from musictag.errors import StoreError
from musictag.storage import staging
from musictag.storage.folders import open_folder, store_errors, write_file
from musictag.storage.repeating import repeating

WRITE_S = 10.0
"""Time after which a driver writes its file again, s."""
ENDED_S = 60.0
"""A driver of another machine has ended if its file does not change for this time, s."""
_NAME = "driver"
_TIME_FORMAT = "%Y%m%dT%H%M%S"
_BOOT_ID, _PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
# The time at which a process started changes a little when the machine's clock is set.
_CLOCK_CHANGE_S = 5.0


def run_name(started: datetime.datetime) -> str:
    """Return a new name for a run that starts at a time; names are in the order of time."""
    return f"{started:{_TIME_FORMAT}}-{secrets.token_hex(4)}"


def started_at(run: str) -> datetime.datetime:
    """Return the start of a run, to the second, by its name. Raises `StoreError` if it is not the name of a run."""
    try:
        return datetime.datetime.strptime(run.partition("-")[0], _TIME_FORMAT).replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise StoreError(
            f"{run}: not the name of a run, but a folder in `_staged` or in the plan of the table: move it elsewhere"
        ) from error


@contextlib.contextmanager
def running(uri: str, run: str) -> Iterator[None]:
    """Tell that this process is the driver of a run while the body runs, by a thread that writes the file."""
    _write(uri, run)

    def write_again() -> float:
        _write(uri, run)
        return WRITE_S

    try:
        with repeating(write_again, WRITE_S, "driver file"):
            yield
    finally:
        # If the store does not answer, the next run notices by the process, or by the file, that this one has ended.
        with contextlib.suppress(StoreError), store_errors(uri):
            if open_folder(uri).get_file_info(_path(run)).type == FileType.File:
                open_folder(uri).delete_file(_path(run))


def _write(uri: str, run: str) -> None:
    write_file(uri, _path(run), json.dumps(_this_process()).encode())


def staged_runs(uri: str) -> set[str]:
    """Return the runs that have staged something, or whose driver's file is there."""
    with store_errors(uri):
        # Object stores have no folders that could be listed.
        found = open_folder(uri).get_file_info(FileSelector(staging.FOLDER, allow_not_found=True, recursive=True))
    return {file.path.split("/")[1] for file in found if file.is_file and file.path.count("/") > 1}


def running_states(uri: str, runs: Collection[str]) -> dict[str, bool]:
    """Return run to whether it is running, in the order of the names.

    This takes up to `ENDED_S` if the driver of a run was on another machine.
    """
    runs = sorted(runs)
    is_running = {run: _is_running_here(uri, run) for run in runs}
    unknown = {run: _modified(uri, run) for run in runs if is_running[run] is None}
    deadline = time.monotonic() + ENDED_S
    while unknown and time.monotonic() < deadline:
        time.sleep(1)
        for run in [run for run, modified in unknown.items() if _modified(uri, run) != modified]:
            del unknown[run]
            is_running[run] = _modified(uri, run) is not None
    return {run: bool(is_running[run]) for run in runs}


def _is_running_here(uri: str, run: str) -> bool | None:
    """Return whether the driver of a run is a process of this machine; None if it was on another machine."""
    try:
        with store_errors(uri), open_folder(uri).open_input_stream(_path(run)) as stream:
            content = stream.read()
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    try:
        driver = json.loads(content)
        machine, pid, started = driver["machine"], int(driver["pid"]), float(driver["started"])
    except (ValueError, KeyError, TypeError):
        return None
    if machine != _this_process()["machine"]:
        return None
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started) < _CLOCK_CHANGE_S
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "started": psutil.Process().create_time()}


@functools.cache
def _machine() -> str:
    """Return what tells this start of this machine from others, and the process ids of a container from others."""
    parts = [socket.gethostname()]
    if _BOOT_ID.exists():
        parts.append(_BOOT_ID.read_text().strip())
    if _PID_NAMESPACE.exists():
        parts.append(str(_PID_NAMESPACE.readlink()))
    return " ".join(parts)


def _modified(uri: str, run: str) -> object:
    with store_errors(uri):
        return open_folder(uri).get_file_info(_path(run)).mtime


def _path(run: str) -> str:
    return f"{staging.FOLDER}/{run}/{_NAME}"
