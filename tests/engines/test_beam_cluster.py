"""Pipelines on a cluster: a worker pool of this machine, behind Beam's job server for tests."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from musictag.engines import beam_cluster, beam_runner
from musictag.errors import StoreError, WorkerLostError

# In a process of its own, which has to end: Beam's threads still wait for the workers.
RUN = """
import sys
from musictag.engines import beam_runner
import apache_beam as beam
from musictag.jobs.entry_point import run_main

def main(argv):
    *arguments, minutes = argv
    build = lambda pipeline: pipeline | beam.Create([1]) | beam.Map(print)
    beam_runner.run(build, arguments, lambda: 0, float(minutes))

sys.exit(run_main(main))
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def worker_pool(folder: Path, python: str) -> Iterator[int]:
    """Run a pool that starts workers by the script `python`, and yield its port."""
    port = free_port()
    (folder / "python").write_text(python)
    (folder / "python").chmod(0o755)
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pool:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert pool.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        try:
            yield port
        finally:
            pool.terminate()


def run(port: int, stall_minutes: float, job_endpoint: str = "embed") -> "subprocess.CompletedProcess[str]":
    arguments = [
        "--runner=PortableRunner", f"--job_endpoint={job_endpoint}",
        "--environment_type=EXTERNAL", f"--environment_config=localhost:{port}", str(stall_minutes),
    ]  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_pipeline_runs_on_a_worker_pool(tmp_path):
    with worker_pool(tmp_path, f'#!/bin/sh\nexec {sys.executable} "$@"\n') as port:
        done = run(port, stall_minutes=1)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_pipeline_whose_workers_cannot_start_ends_after_the_stall_limit(tmp_path):
    """Beam alone would wait for ever."""
    with worker_pool(tmp_path, "#!/bin/sh\nexit 1\n") as port:
        done = run(port, stall_minutes=0.1)
    assert done.returncode == 1
    assert done.stderr.startswith("error: PortableRunner: nothing was written for 0.1 minutes: are its workers running")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_missing_worker_pool_is_an_error_of_one_sentence():
    done = run(free_port(), stall_minutes=1)
    assert done.returncode == 1
    assert done.stderr.startswith("error: PortableRunner: the pipeline ended: failed to connect to all addresses")
    assert len(done.stderr.splitlines()) == 1


def test_missing_job_server_is_an_error_of_one_sentence():
    endpoint = f"127.0.0.1:{free_port()}"
    arguments = ["--runner=PortableRunner", f"--job_endpoint={endpoint}"]
    with pytest.raises(WorkerLostError, match=rf"^--job_endpoint={endpoint}: .*Connection refused\. Is the cluster"):
        beam_runner.run(lambda pipeline: None, arguments)


class Unavailable(grpc.RpcError):
    def __str__(self):
        return '<_InactiveRpcError of RPC:\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "Socket closed"\n>'


REMOTE = ["--runner=PortableRunner", "--job_endpoint=embed"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Pipeline job-1 failed in state FAILED: java.lang.Oops: no\n\tat a.b"), "Pipeline job-1 failed"),
        (
            RuntimeError("Pipeline job-1 failed in state FAILED: Traceback ...\n  File\nOSError: no disk\n"),
            "OSError: no",
        ),
        (Unavailable(), r"Socket closed\."),
        (concurrent.futures.CancelledError("lost-dependencies"), "lost-dependencies"),
        (concurrent.futures.CancelledError(), "CancelledError"),
        (OSError("Timed out trying to connect to tcp://dask:8786"), "Timed out trying"),
    ],
)
def test_error_of_a_cluster_is_one_sentence(error, reason):
    def fail(pipeline):
        raise error

    with pytest.raises(WorkerLostError, match=rf"^PortableRunner: the pipeline ended: {reason}") as raised:
        beam_runner.run(fail, REMOTE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (StoreError("table t: full [while running 'Featurize']"), StoreError, "^table t: full$"),
        (RuntimeError("...\nmusictag.errors.StoreError: table t: full [while running 'a']\n"), StoreError, "^table t"),
        (TypeError("a bug [while running 'Featurize']"), TypeError, "a bug"),
        (RuntimeError("failed in state FAILED: TypeError: a bug [while running 'Featurize']"), RuntimeError, "a bug"),
    ],
)
def test_error_of_a_step_is_raised_as_it_is(error, kind, message):
    def fail(pipeline):
        raise error

    with pytest.raises(kind, match=message):
        beam_runner.run(fail, REMOTE)


class DaskResult(types.SimpleNamespace):
    def wait_until_finish(self):
        """DaskRunner ends well also if its scheduler is lost."""


def test_pipeline_whose_scheduler_is_lost_is_an_error():
    statuses = ["finished", "cancelled", "pending"]
    result = DaskResult(futures=[types.SimpleNamespace(status=status) for status in statuses])
    with pytest.raises(WorkerLostError, match=r"DaskRunner: the pipeline ended: the scheduler lost 2 of 3 tasks\."):
        beam_cluster.run(lambda: result, "DaskRunner", None, 1)
    result.futures = result.futures[:1]
    beam_cluster.run(lambda: result, "DaskRunner", None, 1)


def test_pipeline_that_makes_progress_is_not_stalled():
    numbers = iter(range(1_000))
    done = concurrent.futures.Future()

    def progress():
        number = next(numbers)
        if number == 20:
            done.set_result(None)
        if number % 3 == 0:
            raise StoreError("a table that cannot be read at this moment")
        return number

    assert not beam_cluster._is_stalled(done, progress, limit_s=0.2)
