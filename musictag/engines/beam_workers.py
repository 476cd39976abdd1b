"""Worker processes of Beam's local runner, which are silent, end with their driver, and are watched.

Beam's own worker processes log every error to stderr and wait for a driver that has exited, and Beam waits for ever for
one that was killed or did not start. Here each process has a thread that watches it. When one fails, the others are
killed and all instructions that Beam waits for are aborted, so that the pipeline ends with an error.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import psutil
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from musictag.engines import child_process

_URN = "musictag:env:worker_process:v1"
_START = "import sys; from apache_beam.runners.worker.sdk_worker_main import main; main(sys.argv)"

# Between two looks at a process that failed, until Beam has stopped.
_ABORT_S = 0.5
# A process that is told to stop ends within seconds; it is killed after this time.
_STOP_LIMIT_S = 60.0

_run_numbers = itertools.count()
_runs: "weakref.WeakValueDictionary[str, WorkerProcesses]" = weakref.WeakValueDictionary()
"""Beam makes the handlers of processes; the payload of their environment is the key of their run."""


class WorkerProcesses:
    """The worker processes of one run of a pipeline."""

    command: Sequence[str] = (sys.executable, "-c", _START)

    def __init__(self) -> None:
        self.loss: str | None = None
        """Why a process failed; None if none did."""
        self.processes: list[subprocess.Popen[bytes]] = []
        self.key = str(next(_run_numbers))
        _runs[self.key] = self

    def environment(self) -> Environment:
        """Return the Beam environment of these processes."""
        return _ProcessEnvironment(self.key)

    def lose(self, exit_code: int) -> None:
        """Note that a process failed, and kill the others: Beam would let each finish its whole share first."""
        if self.loss is None:
            was_killed = exit_code < 0 or exit_code > 128
            self.loss = (
                "a worker process was killed (perhaps by the kernel, because memory ran out)"
                if was_killed
                else f"a worker process ended with exit code {exit_code}"
            )
        self.kill()

    def kill(self) -> None:
        """Kill all processes of the run; their supervisors then end by themselves."""
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()


@contextlib.contextmanager
def silent_streams() -> Iterator[None]:
    """Print no traceback of Beam's threads in the body that read from a process that has ended."""
    previous = threading.excepthook

    def hook(raised: Any) -> None:
        if not issubclass(raised.exc_type, grpc.RpcError):
            previous(raised)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous


@Environment.register_urn(_URN, bytes)
class _ProcessEnvironment(SubprocessSDKEnvironment):
    """An environment whose payload is the key of a `WorkerProcesses`."""

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return _URN, self.command_string.encode()

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes, capabilities: Any, artifacts: Any, resource_hints: Any, context: Any
    ) -> "_ProcessEnvironment":
        return _ProcessEnvironment(payload.decode(), capabilities, artifacts, resource_hints)


@WorkerHandler.register_environment(_URN, bytes)
class _ProcessHandler(GrpcWorkerHandler):
    """Starts a worker process, and aborts what Beam waits for when it fails."""

    def __init__(self, payload: bytes, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._run = _runs[payload.decode()]
        self._is_stopping = threading.Event()

    def start_worker(self) -> None:
        """Start the process, and a thread that watches it."""
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.control_api_service_descriptor()),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        command = [sys.executable, "-m", child_process.__name__, str(os.getpid()), *self._run.command]
        self._process = subprocess.Popen(command, env={**os.environ, **environment})
        self._run.processes.append(self._process)
        self._watcher = threading.Thread(target=self._watch, name=f"watch_{self.worker_id}", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        exit_code = self._process.wait()
        if not exit_code:
            return
        self._run.lose(exit_code)
        with contextlib.suppress(grpc.RpcError):  # the process has closed its side
            self.data_conn.close()
        # Again and again: Beam may send an instruction after the process has ended.
        while not self._is_stopping.wait(_ABORT_S):
            with contextlib.suppress(RuntimeError):  # it sends one at this moment
                self.control_conn.abort(RuntimeError(self._run.loss))

    def close(self) -> None:
        """Tell the process to stop, and wait until it has ended."""
        self._is_stopping.set()
        try:
            super().close()
        finally:
            self.stop_worker()

    def stop_worker(self) -> None:
        """Wait until the process has ended; kill it if it takes too long."""
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._run.kill()
        self._watcher.join()
