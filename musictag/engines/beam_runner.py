"""Apache Beam: make a pipeline for the options given, run it, and pass on its errors.

Importing this module silences Python's root logger, because Beam logs warnings of each cloud client that is missing.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence

# Before Beam is imported. Errors that Beam logs are raised as well, also the critical ones of a worker that is stopped.
logging.basicConfig(level=logging.CRITICAL + 1)

# gRPC would ask an HTTP proxy for the processes of this machine, and wait for ever.
_PROXY_EXCEPTIONS = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""  # noqa: SIM112 # as gRPC reads it
os.environ["no_grpc_proxy"] = ",".join(filter(None, [_PROXY_EXCEPTIONS, "localhost", "127.0.0.1", "::1"]))  # noqa: SIM112

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult

from musictag.engines import beam_cluster
from musictag.engines.beam_workers import WorkerProcesses, silent_streams
from musictag.errors import StoreError, UsageError, WorkerLostError
from musictag.jobs import machine
from musictag.jobs.progress import echo

MAX_PIPELINE_RUNS = 3
"""Number of times that a local pipeline is run if workers are lost, for example killed because memory is short."""
STALL_MINUTES = 30.0
"""Time without progress after which a pipeline on a cluster is given up: starting machines takes minutes."""
WORKER_BYTES = 640 << 20
"""Memory of a worker process with its decoder; seen: 300 and 150 MB, and more for tracks of an hour."""
DEFAULT_WORKERS = 32
"""Number of workers that is assumed of a cluster that does not tell it."""
# Options of Beam's runners that name a number of workers.
_WORKER_OPTIONS = ("parallelism", "max_num_workers", "num_workers")


def is_local(arguments: Sequence[str]) -> bool:
    """Return whether Beam's options name the runner of this machine."""
    return PipelineOptions(list(arguments)).view_as(StandardOptions).runner in (None, "DirectRunner")


def check_options(arguments: Sequence[str]) -> None:
    """Raise `UsageError`, or the error of Beam, for a wrong option."""
    pipeline = make_pipeline(arguments)
    shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)  # Beam deletes it only after a run


def make_pipeline(arguments: Sequence[str], workers: WorkerProcesses | None = None) -> beam.Pipeline:
    """Return a pipeline for Beam's options; DirectRunner means Beam's FnApiRunner with a process on each core.

    `workers` are the processes of such a run.

    Raises:
        UsageError: an option is neither ours nor Beam's; Beam alone would ignore it.
    """
    if not is_local(arguments):
        return beam.Pipeline(options=PipelineOptions([*arguments, *_spreading(arguments)]))
    options = PipelineOptions(list(arguments))
    if unknown := set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options()):
        raise UsageError(
            f"unknown option {', '.join(f'--{name}' for name in sorted(unknown))}: "
            "it is not in --help and no option of Beam"
        )
    given = _names(arguments)
    if "--direct_running_mode" in given:
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    if "--direct_num_workers" not in given:
        options.view_as(DirectOptions).direct_num_workers = machine.n_workers(WORKER_BYTES)
    workers = workers or WorkerProcesses()
    return beam.Pipeline(runner=FnApiRunner(default_environment=workers.environment()), options=options)


def _spreading(arguments: Sequence[str]) -> list[str]:
    """Return the options that spread the elements of a `Create` over the workers of a cluster.

    DaskRunner gives 128 elements to one worker, and its Reshuffle does nothing.
    """
    is_given = _names(arguments) & {"--dask_npartitions", "--dask_partition_size"}
    return ["--dask_partition_size=1"] if _runner_name(arguments) == "DaskRunner" and not is_given else []


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
            return machine.n_workers(WORKER_BYTES)
        return options.view_as(DirectOptions).direct_num_workers or machine.n_cores()
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
        return machine.n_cores()
    import distributed

    try:
        with distributed.Client(address, timeout=beam_cluster.CONNECT_LIMIT_S, set_as_default=False) as client:
            return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    except OSError as error:
        raise beam_cluster.cluster_error("DaskRunner", error) from error


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
        beam_cluster.check_job_server(PipelineOptions(list(arguments)).view_as(PortableOptions).job_endpoint)
        beam_cluster.run(lambda: _start(build, arguments), _runner_name(arguments), progress, stall_minutes)


def _start(build: Callable[[beam.Pipeline], object], arguments: Sequence[str]) -> PipelineResult:
    pipeline = make_pipeline(arguments)
    build(pipeline)
    return pipeline.run()


def _run_local(build: Callable[[beam.Pipeline], object], arguments: Sequence[str]) -> None:
    for n_runs in range(1, MAX_PIPELINE_RUNS + 1):
        workers = WorkerProcesses()
        try:
            with silent_streams(), make_pipeline(arguments, workers) as pipeline:
                build(pipeline)
        except Exception as error:
            if messages := beam_cluster.worker_errors(error):
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
