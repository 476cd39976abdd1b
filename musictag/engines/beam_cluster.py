"""A pipeline of Beam on a cluster: wait for it, notice that it makes no progress, and pass on its errors."""

import concurrent.futures
import contextlib
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable

import grpc
from apache_beam.runners.runner import PipelineResult

from musictag.errors import MusictagError, StoreError, WorkerLostError

CONNECT_LIMIT_S = 30.0
"""Time to connect to a cluster, and for the request that cancels a pipeline there, s."""
# Interval between two looks at the progress, s.
_POLL_S = 15.0
# An error of `musictag.errors` in the text of Beam's RuntimeError.
_WORKER_ERROR = re.compile(r"^musictag\.errors\.\w+: (.*?)(?: \[while running .*)?$", re.MULTILINE)
_WHILE_RUNNING = " [while running "
# The reason in the text of gRPC's errors.
_GRPC_DETAILS = re.compile(r'^\s*details = "(.*)"$', re.MULTILINE)
# Packages whose errors concern the connection to a cluster, or its workers.
_CLUSTER_PACKAGES = ("grpc", "distributed", "dask", "google", "requests", "urllib3")


def run(
    start: Callable[[], PipelineResult], runner: str, progress: Callable[[], float] | None, stall_minutes: float
) -> None:
    """Start a pipeline and wait until it is done; `runner` is the name in errors.

    If `progress` returns the same number for `stall_minutes`, the pipeline is cancelled.

    Raises:
        WorkerLostError: the cluster ended the pipeline, cannot be reached, or makes no progress.
        MusictagError: an error of the pipeline's steps.
    """
    results: list[PipelineResult] = []

    def work() -> None:
        results.append(start())
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # errors that Dask logs are raised as well
        results[0].wait_until_finish()
        _check_finished(results[0])

    done = _in_thread(work)
    if progress and _is_stalled(done, progress, 60 * stall_minutes):
        concurrent.futures.wait([_in_thread(lambda: [result.cancel() for result in results])], CONNECT_LIMIT_S)
        raise WorkerLostError(
            f"{runner}: nothing was written for {stall_minutes:g} minutes: are its workers running, do they reach the "
            "tables, and has the `python` that they start musictag and apache-beam? The log of a worker says more"
        )
    try:
        done.result()
    except MusictagError as error:
        raise type(error)(str(error).partition(_WHILE_RUNNING)[0]) from error
    except BaseException as error:
        if messages := worker_errors(error):
            raise StoreError(messages[-1]) from error
        if _is_of_cluster(error):
            raise cluster_error(runner, error) from error
        raise


def _in_thread(fn: Callable[[], object]) -> "concurrent.futures.Future[None]":
    """Call `fn` in a thread that does not keep this process alive, unlike those of the standard library's pools."""
    future: concurrent.futures.Future[None] = concurrent.futures.Future()

    def call() -> None:
        try:
            fn()
        except BaseException as error:  # noqa: BLE001 # `result` raises it
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=call, daemon=True).start()
    return future


def _is_stalled(done: "concurrent.futures.Future[None]", progress: Callable[[], float], limit_s: float) -> bool:
    """Wait until `done` is done or `progress` has returned the same number for `limit_s`; return whether it stalled."""
    last, since = -math.inf, time.monotonic()
    while True:
        if concurrent.futures.wait([done], min(_POLL_S, limit_s / 4)).done:
            return False
        current = last
        with contextlib.suppress(StoreError):  # a table that cannot be read says nothing about the workers
            current = progress()
        if current != last:
            last, since = current, time.monotonic()
        elif time.monotonic() - since > limit_s:
            return True


def _is_of_cluster(error: BaseException) -> bool:
    """Return whether an error concerns a cluster, and is no bug of a step of the pipeline."""
    if _WHILE_RUNNING in str(error):
        return False
    packages = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    return (
        isinstance(error, OSError | grpc.RpcError | concurrent.futures.CancelledError)
        or bool(packages & set(_CLUSTER_PACKAGES))
        or (isinstance(error, RuntimeError) and "failed in state" in str(error))
    )


def _check_finished(result: PipelineResult) -> None:
    """Raise `CancelledError` if Dask's futures were cancelled: DaskRunner ends well if its scheduler is lost."""
    statuses = [future.status for future in getattr(result, "futures", ())]
    if n_lost := len(statuses) - statuses.count("finished"):
        raise concurrent.futures.CancelledError(f"the scheduler lost {n_lost} of {len(statuses)} tasks")


def check_job_server(endpoint: str | None) -> None:
    """Raise `WorkerLostError` if nothing listens at `--job_endpoint`: Beam would wait for ever."""
    host, _, port = (endpoint or "").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_LIMIT_S).close()
        except OSError as error:
            raise cluster_error(f"--job_endpoint={endpoint}", error) from error


def cluster_error(runner: str, error: BaseException) -> WorkerLostError:
    """Return the error of a cluster as one sentence."""
    return WorkerLostError(
        f"{runner}: the pipeline ended: {_reason(error)}. Is the cluster running, and has the `python` of its workers "
        "musictag and apache-beam? What was committed is kept, and the next run does the rest"
    )


def _reason(error: BaseException) -> str:
    """Return the reason of an error as one line; job servers send a traceback, or gRPC's fields."""
    text = str(error)
    if details := _GRPC_DETAILS.search(text):
        return details[1]
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if "Traceback" in text else 0].strip().rstrip(".")


def worker_errors(error: BaseException) -> list[str]:
    """Return the messages of our errors in Beam's error, which holds the traceback of a worker as text."""
    return _WORKER_ERROR.findall(str(error))
