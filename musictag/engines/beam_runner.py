"""Apache Beam: make a pipeline for the options given, run it, and pass on its errors.

Importing this module silences Python's root logger, because Beam logs warnings of each cloud client that is missing.
"""

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

# Before Beam is imported. Errors that Beam logs are raised as well.
logging.basicConfig(level=logging.CRITICAL)

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from musictag.engines import child_process
from musictag.errors import StoreError, UsageError, WorkerLostError
from musictag.jobs.entry_point import n_cores
from musictag.jobs.progress import echo

MAX_PIPELINE_RUNS = 3
"""Number of times that a pipeline is run if workers are lost, for example killed by the kernel when memory is short."""
# An error of `musictag.errors` in the text of Beam's RuntimeError, which holds the worker's traceback.
_WORKER_ERROR = re.compile(r"^musictag\.errors\.\w+: (.*?)(?: \[while running .*)?$", re.MULTILINE)


def make_pipeline(arguments: Sequence[str]) -> beam.Pipeline:
    """Return a pipeline for Beam's options; DirectRunner means Beam's FnApiRunner with a process on each core.

    Raises:
        UsageError: an option is neither ours nor Beam's; Beam alone would ignore it.
    """
    options = PipelineOptions(list(arguments))
    if options.view_as(StandardOptions).runner not in (None, "DirectRunner"):
        return beam.Pipeline(options=options)
    if unknown := set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options()):
        raise UsageError(
            f"unknown option {', '.join(f'--{name}' for name in sorted(unknown))}: "
            "it is not in --help and no option of Beam"
        )
    # Beam does not tell a value that was given from a default: --direct_num_workers=1 is both.
    given = {argument.partition("=")[0] for argument in arguments}
    if "--direct_running_mode" in given:
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    if "--direct_num_workers" not in given:
        options.view_as(DirectOptions).direct_num_workers = n_cores()
    return beam.Pipeline(runner=FnApiRunner(default_environment=_worker_processes()), options=options)


def run(build: Callable[[beam.Pipeline], object], arguments: Sequence[str]) -> None:
    """Run the pipeline that `build` makes, on the engine that Beam's `arguments` name.

    If a worker is lost, the pipeline is run again; its steps must skip what is committed.

    Raises:
        StoreError: a worker could not read or write a table.
        WorkerLostError: each of `MAX_PIPELINE_RUNS` runs of the pipeline lost a worker.
    """
    for n_runs in range(1, MAX_PIPELINE_RUNS + 1):
        try:
            with _watch_workers(), make_pipeline(arguments) as pipeline:
                build(pipeline)
        except WorkerLostError as error:
            if n_runs == MAX_PIPELINE_RUNS:
                raise WorkerLostError(f"{error}, {n_runs} times: use fewer workers (--direct_num_workers)") from error
            echo(f"{error}: what it had not committed is done again")
        except RuntimeError as error:
            if messages := _WORKER_ERROR.findall(str(error)):
                raise StoreError(messages[-1]) from error
            raise
        else:
            return


def _worker_processes() -> SubprocessSDKEnvironment:
    """Return the environment of `--direct_running_mode=multi_processing`, with silent workers that end with us.

    Beam's own workers log every error to stderr and wait for a driver that has exited, and Beam does not notice when
    one is killed.
    """
    start = "import sys; from apache_beam.runners.worker.sdk_worker_main import main; main(sys.argv)"
    command = [sys.executable, "-m", child_process.__name__, str(os.getpid()), sys.executable, "-c", start]
    return SubprocessSDKEnvironment.from_command_string(f"exec {shlex.join(command)}")


@contextlib.contextmanager
def _watch_workers() -> Iterator[None]:
    """Raise `WorkerLostError` in the body if a worker process of this machine fails.

    Beam's runner would wait for it for ever. `child_process` reports the failure by SIGUSR1. The other workers are
    killed: Beam would let each of them finish its whole share first.
    """

    def on_failure(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # report the first failure only
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        raise WorkerLostError("a worker process was killed (perhaps by the kernel, because memory ran out)")

    signal.signal(signal.SIGUSR1, on_failure)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
