"""Ray: start it on this machine or connect to a cluster, and pass on its errors."""

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Iterator

# Ray reads these variables when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Otherwise Ray logs, as an error, the way in which Ray Data starts the actors of `map_batches`.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
from ray.exceptions import ActorDiedError, AuthenticationError, RayTaskError

from musictag import errors
from musictag.errors import UsageError, WorkerLostError
from musictag.jobs import machine
from musictag.jobs.entry_point import handle_signals
from musictag.storage.text import without_colours

WORKER_BYTES = 3 << 29
"""Memory of an actor that scores, with a decoder and its share of Ray's object store; seen: 520 and 150 MB."""

# The line of a traceback that names an error of ours.
_OWN_ERROR = re.compile(r"^musictag\.errors\.(\w+): (.+)$", re.MULTILINE)


@contextlib.contextmanager
def connect(num_cpus: int) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine until the body ends.

    A Ray of our own has `num_cpus` logical CPUs. It answers only clients with its token, which is drawn anew for each
    process and is written to no disk.

    Raises:
        UsageError: the cluster of RAY_ADDRESS does not answer, or refuses the token.
        WorkerLostError: Ray ended the process.
    """
    if "RAY_ADDRESS" in os.environ:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, AuthenticationError) as error:
            raise _connection_error(error) from error
    else:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    handle_signals()  # Ray has set its own handler
    try:
        yield
    except SystemExit as error:
        raise WorkerLostError(
            "Ray ended this process, for a reason in its logs, /tmp/ray/session_latest/logs; what is committed stays: "
            "run again"
        ) from error
    finally:
        ray.shutdown()


def n_workers(*, use_gpu: bool) -> int:
    """Return how many workers the connected Ray has room for: its GPUs, or its CPUs; at least 1.

    Of a Ray of our own, whose logical CPUs are more, the cores and the memory of this machine count.
    """
    resources = ray.cluster_resources()
    if use_gpu:
        n = resources.get("GPU", 0)
    elif "RAY_ADDRESS" in os.environ:
        n = resources.get("CPU", 0)
    else:
        n = machine.n_workers(WORKER_BYTES)
    return max(1, int(n))


def check_gpus(num_workers: int, n_gpus: int) -> None:
    """Raise `UsageError` if Ray runs on this machine and it has fewer GPUs than workers: Ray would wait for ever."""
    if "RAY_ADDRESS" not in os.environ and n_gpus < num_workers:
        raise UsageError(
            f"--use-gpu: {num_workers} workers need a GPU each, torch finds {n_gpus} here; "
            "lower --num-workers, or name a Ray cluster by RAY_ADDRESS"
        )


@contextlib.contextmanager
def task_errors() -> Iterator[None]:
    """Raise an error of `musictag.errors` from a Ray task or actor in the body as it was raised there."""
    try:
        yield
    except (RayTaskError, ActorDiedError) as error:
        # Ray keeps the error itself only in some cases, but always the text of its traceback.
        if found := _OWN_ERROR.findall(without_colours(str(error))):
            name, message = found[-1]
            raise getattr(errors, name)(message) from error
        raise


def _connection_error(error: Exception) -> UsageError:
    reason = str(error).partition(". ")[0]
    return UsageError(
        f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}: {reason}; is the cluster running? If it asks for a token, set "
        "RAY_AUTH_MODE=token and name the file that holds it by RAY_AUTH_TOKEN_PATH"
    )
