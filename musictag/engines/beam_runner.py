"""Apache Beam: make a pipeline for the options given, run it, and pass on its errors.

Importing this module silences Python's root logger, because Beam logs warnings of each cloud client that is missing.
"""

import concurrent.futures
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence

# Before Beam is imported. Errors that Beam logs are raised as well.
logging.basicConfig(level=logging.CRITICAL)

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult

from musictag.engines.beam_workers import WorkerProcesses, silent_streams
from musictag.errors import MusictagError, StoreError, UsageError, WorkerLostError
from musictag.jobs.entry_point import n_cores
from musictag.jobs.progress import echo

MAX_PIPELINE_RUNS = 3
"""Number of times that a local pipeline is run if workers are lost, for example killed because memory is short."""
STALL_MINUTES = 30.0
"""Time without progress after which a pipeline on a cluster is given up: starting machines takes minutes."""
DEFAULT_WORKERS = 32
"""Number of workers that is assumed of a cluster that does not tell it."""
# Options of Beam's runners that name a number of workers.
_WORKER_OPTIONS = ("parallelism", "max_num_workers", "num_workers")
# Interval between two looks at the progress of a pipeline on a cluster, s.
_POLL_S = 15.0
# Time for the request that cancels a pipeline on a cluster, s.
_CANCEL_LIMIT_S = 30.0
# An error of `musictag.errors` in the text of Beam's RuntimeError, which holds the worker's traceback.
_WORKER_ERROR = re.compile(r"^musictag\.errors\.\w+: (.*?)(?: \[while running .*)?$", re.MULTILINE)
_WHILE_RUNNING = " [while running "
# Packages whose errors concern the connection to a cluster, or its workers.
_CLUSTER_PACKAGES = ("grpc", "distributed", "dask", "google", "requests", "urllib3")


def is_local(arguments: Sequence[str]) -> bool:
    """Return whether Beam's options name the runner of this machine."""
    return PipelineOptions(list(arguments)).view_as(StandardOptions).runner in (None, "DirectRunner")


def make_pipeline(arguments: Sequence[str], workers: WorkerProcesses | None = None) -> beam.Pipeline:
    """Return a pipeline for Beam's options; DirectRunner means Beam's FnApiRunner with a process on each core.

    `workers` are the processes of such a run.

    Raises:
        UsageError: an option is neither ours nor Beam's; Beam alone would ignore it.
    """
    options = PipelineOptions(list(arguments))
    if not is_local(arguments):
        return beam.Pipeline(options=options)
    if unknown := set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options()):
        raise UsageError(
            f"unknown option {', '.join(f'--{name}' for name in sorted(unknown))}: "
            "it is not in --help and no option of Beam"
        )
    given = _names(arguments)
    if "--direct_running_mode" in given:
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    if "--direct_num_workers" not in given:
        options.view_as(DirectOptions).direct_num_workers = n_cores()
    workers = workers or WorkerProcesses()
    return beam.Pipeline(runner=FnApiRunner(default_environment=workers.environment()), options=options)


def _names(arguments: Sequence[str]) -> set[str]:
    """Return the names of options; Beam does not tell a value that was given from a default."""
    return {argument.partition("=")[0] for argument in arguments}


def n_workers(arguments: Sequence[str]) -> int:
    """Return how many workers the engine has that Beam's options name: processes that take work at the same time.

    Of a cluster that does not tell, `DEFAULT_WORKERS` are assumed, and a line says so.
    """
    options = PipelineOptions(list(arguments))
    if is_local(arguments):
        given = _names(arguments)
        if "--direct_running_mode" not in given and "--direct_num_workers" not in given:
            return n_cores()
        return options.view_as(DirectOptions).direct_num_workers or n_cores()
    values = options.get_all_options(retain_unknown_options=True)
    for name in _WORKER_OPTIONS:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if (n := int(values[name])) > 0:
                return n
    runner = _runner_name(arguments)
    if runner == "DaskRunner":
        return _n_dask_workers(values.get("address") or values.get("dask_client_address"))
    echo(f"{runner}: {DEFAULT_WORKERS} workers are assumed; --parallelism names another number")
    return DEFAULT_WORKERS


def _n_dask_workers(address: str | None) -> int:
    """Return the number of workers of a Dask scheduler; of the one that Beam would start here if it is None."""
    if address is None:
        return n_cores()
    import distributed

    try:
        with distributed.Client(address, timeout=_CANCEL_LIMIT_S, set_as_default=False) as client:
            return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    except OSError as error:
        raise _cluster_error("DaskRunner", error) from error


def _runner_name(arguments: Sequence[str]) -> str:
    return str(PipelineOptions(list(arguments)).view_as(StandardOptions).runner).rpartition(".")[2]


def run(
    build: Callable[[beam.Pipeline], object],
    arguments: Sequence[str],
    progress: Callable[[], float] | None = None,
    stall_minutes: float = STALL_MINUTES,
) -> None:
    """Run the pipeline that `build` makes, on the engine that Beam's `arguments` name.

    If a worker process of the local runner is lost, the pipeline is run again; its steps must skip what is committed.
    On a cluster, the pipeline is given up if `progress` returns the same number for `stall_minutes`.

    Raises:
        StoreError: a worker could not read or write a table.
        WorkerLostError: each of `MAX_PIPELINE_RUNS` local runs lost a worker; or the cluster ended the pipeline, cannot
            be reached, or makes no progress.
    """
    if is_local(arguments):
        _run_local(build, arguments)
    else:
        _run_on_cluster(build, arguments, progress, stall_minutes)


def _run_local(build: Callable[[beam.Pipeline], object], arguments: Sequence[str]) -> None:
    for n_runs in range(1, MAX_PIPELINE_RUNS + 1):
        workers = WorkerProcesses()
        try:
            with silent_streams(), make_pipeline(arguments, workers) as pipeline:
                build(pipeline)
        except Exception as error:
            if messages := _WORKER_ERROR.findall(str(error)):
                raise StoreError(messages[-1]) from error
            if workers.loss is None:
                raise
            if n_runs == MAX_PIPELINE_RUNS:
                raise WorkerLostError(
                    f"{workers.loss}, {n_runs} times: use fewer workers (--direct_num_workers)"
                ) from error
            echo(f"{workers.loss}: what it had not committed is done again")
        else:
            return


def _run_on_cluster(
    build: Callable[[beam.Pipeline], object],
    arguments: Sequence[str],
    progress: Callable[[], float] | None,
    stall_minutes: float,
) -> None:
    runner, results = _runner_name(arguments), list[PipelineResult]()

    def work() -> None:
        pipeline = make_pipeline(arguments)
        build(pipeline)
        results.append(pipeline.run())
        results[0].wait_until_finish()

    done = _in_thread(work)
    if progress and _is_stalled(done, progress, 60 * stall_minutes):
        concurrent.futures.wait([_in_thread(lambda: [result.cancel() for result in results])], _CANCEL_LIMIT_S)
        raise WorkerLostError(
            f"{runner}: nothing was written for {stall_minutes:g} minutes: are its workers running, do they reach the "
            "tables, and has the `python` that they start musictag and apache-beam? The log of a worker says more"
        )
    try:
        done.result()
    except MusictagError as error:
        raise type(error)(str(error).partition(_WHILE_RUNNING)[0]) from error
    except BaseException as error:
        if messages := _WORKER_ERROR.findall(str(error)):
            raise StoreError(messages[-1]) from error
        if _is_of_cluster(error):
            raise _cluster_error(runner, error) from error
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
    last, since = progress(), time.monotonic()
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


def _cluster_error(runner: str, error: BaseException) -> WorkerLostError:
    reason = error.details() if isinstance(error, grpc.Call) else str(error)
    first_line = (reason or "").strip().partition("\n")[0] or type(error).__name__
    return WorkerLostError(
        f"{runner}: the pipeline ended: {first_line}: is the cluster running, and has the `python` of its workers "
        "musictag and apache-beam? What was committed is kept, and the next run does the rest"
    )
