"""Pipelines of the local runner, whose workers are lost, and of a cluster that does not work."""

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions

from musictag.engines import beam_runner
from musictag.engines.beam_workers import WorkerProcesses
from musictag.errors import StoreError, WorkerLostError
from musictag.jobs.machine import n_cores


@pytest.mark.parametrize(
    ("options", "n_workers"),
    [([], n_cores()), (["--direct_num_workers=1"], 1), (["--direct_num_workers", "3"], 3)],
)
def test_all_cores_are_used_by_default(options, n_workers):
    arguments = ["--runner=DirectRunner", *options]
    pipeline = beam_runner.make_pipeline(arguments)
    assert pipeline.options.view_as(DirectOptions).direct_num_workers == n_workers
    assert beam_runner.n_workers(arguments) == n_workers


@pytest.mark.parametrize(
    ("options", "n_workers"),
    [
        (["--direct_running_mode=in_memory"], 1),
        (["--direct_num_workers=0"], n_cores()),
        (["--runner=FlinkRunner", "--parallelism=12"], 12),
        (["--runner=DataflowRunner", "--num_workers=3", "--max_num_workers", "40"], 40),
        (["--runner=DataflowRunner", "--num_workers=3"], 3),
        (["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], n_cores()),
    ],
)
def test_number_of_workers_is_read_from_the_options(options, n_workers):
    assert beam_runner.n_workers(options) == n_workers


def test_assumed_number_of_workers_is_printed(capsys):
    assert beam_runner.n_workers(["--runner=SparkRunner"]) == beam_runner.DEFAULT_WORKERS
    assert "SparkRunner: 32 workers are assumed; --parallelism names another number" in capsys.readouterr().out


class Client:
    """A client of a Dask scheduler with three workers, as `distributed` has it."""

    def __init__(self, address, **options):
        if address != "tcp://dask:8786":
            raise OSError(f"Timed out trying to connect to {address} after 30 s")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def scheduler_info(self, n_workers):
        return {"workers": {"tcp://a": {}, "tcp://b": {}, "tcp://c": {}}}


def test_dask_is_asked_for_its_workers(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=Client))
    dask = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"
    assert beam_runner.n_workers([dask, "--dask_client_address=tcp://dask:8786"]) == 3
    with pytest.raises(WorkerLostError, match=r"^DaskRunner: .*Timed out trying to connect to tcp://none:1"):
        beam_runner.n_workers([dask, "--dask_client_address=tcp://none:1"])


IN_MEMORY = ["--runner=DirectRunner", "--direct_running_mode=in_memory"]
TWO_PROCESSES = ["--runner=DirectRunner", "--direct_num_workers=2"]


def test_own_error_of_a_worker_is_raised_and_others_stay_as_they_are():
    texts = ["musictag.errors.StoreError: table t: full [while running 'Featurize']", "TypeError: a bug [while running"]

    def fail(pipeline):
        raise RuntimeError(f"Traceback (most recent call last):\n  File ...\n{texts.pop(0)}\n")

    with pytest.raises(StoreError, match=r"^table t: full$"):
        beam_runner.run(fail, IN_MEMORY)
    with pytest.raises(RuntimeError, match="a bug"):
        beam_runner.run(fail, IN_MEMORY)


def killing(folder: Path, n_kills: int) -> Callable[[beam.Pipeline], object]:
    """Return a pipeline of two elements, the first of which kills its worker as often as it is told to."""

    def kill_some(number: int) -> int:  # in here, so that workers need not import this module
        path = folder / f"killed-{number}"
        n_killed = len(path.read_bytes()) if path.exists() else 0
        if number == 0 and n_killed < n_kills:
            path.write_bytes(b"x" * (n_killed + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"done-{number}").touch()
        deadline = time.monotonic() + 20  # where one worker has both elements
        while number == 1 and not (folder / "done-0").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return number

    return lambda pipeline: (
        pipeline
        | beam.Create(range(2))
        | beam.Reshuffle()
        | beam.Map(kill_some)
        | "Again" >> beam.Reshuffle()
        | "Nothing" >> beam.Map(lambda number: number)
    )


class Survived(NamedTuple):
    """What is left after a pipeline lost a worker and was run again, in a thread: only the main thread has signals."""

    files: set[str]
    other: "subprocess.Popen[bytes]"
    """Another child process, which began before."""


@pytest.fixture(scope="module")
def survived(tmp_path_factory) -> Iterator[Survived]:
    folder = tmp_path_factory.mktemp("lost")
    with subprocess.Popen(["/bin/sleep", "600"]) as other:
        thread = threading.Thread(target=beam_runner.run, args=(killing(folder, 1), TWO_PROCESSES))
        thread.start()
        thread.join(120)
        yield Survived({path.name for path in folder.iterdir()}, other)
        other.kill()


@pytest.mark.slow
def test_pipeline_is_run_again_after_a_worker_was_lost(survived):
    assert survived.files == {"killed-0", "done-0", "done-1"}


@pytest.mark.slow
def test_other_child_processes_outlive_a_lost_worker(survived):
    assert survived.other.poll() is None


@pytest.mark.slow
def test_pipeline_that_loses_workers_each_time_is_given_up(tmp_path, capsys):
    with pytest.raises(WorkerLostError, match=r"a worker process was killed .*, 3 times: use fewer workers"):
        beam_runner.run(killing(tmp_path, 100), TWO_PROCESSES)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == beam_runner.MAX_PIPELINE_RUNS - 1
    assert all(line.startswith("a worker process was killed (perhaps by the kernel, because memory") for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("code", [1, 126])
def test_worker_that_cannot_start_ends_the_run(monkeypatch, code):
    monkeypatch.setattr(WorkerProcesses, "command", ["/bin/sh", "-c", f"exit {code}"])
    started = time.monotonic()
    with pytest.raises(WorkerLostError, match=f"a worker process ended with exit code {code}, 3 times"):
        beam_runner.run(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(lambda number: number), TWO_PROCESSES)
    assert time.monotonic() - started < 30
