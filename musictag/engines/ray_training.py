"""Run workers on Ray Train, and tell why they ended."""

import logging
from collections.abc import Callable
from typing import Any

from musictag.engines import ray_cluster  # isort: skip # noqa: F401 # first: it prepares the environment for Ray

import ray.train
import ray.train.torch
from ray.train.v2.api.exceptions import TrainingFailedError

from musictag.errors import MusictagError, TrainingError


class _Trainer(ray.train.torch.TorchTrainer):
    """A trainer that leaves SIGINT to Python: Ray's own handler ends the process without a message."""

    def _register_sigint_handler(self, controller: object) -> None:
        """Register none."""


MAX_WORKER_FAILURES = 3
# A worker that the others wait for longer than this is lost. Reading may wait ten minutes for a store.
HANG_LIMIT_S = 900
# How gloo (twice), NCCL and Ray say so.
TIMEOUTS = ("application timeout", "timed out waiting", "collective operation timeout", "health_check_timeout")


def run_workers(
    worker: Callable[[dict[str, Any]], None],
    loop_config: dict[str, Any],
    *,
    name: str,
    storage: str,
    num_workers: int,
    use_gpu: bool,
) -> ray.train.Checkpoint | None:
    """Run `worker(loop_config)` in each worker process, and return the last checkpoint; Ray must run.

    After a lost worker, all start again from the last checkpoint. If an earlier call with the same name and storage was
    interrupted, they start from its last checkpoint.

    Args:
        worker: trains in one process; reports its checkpoints to Ray.
        loop_config: its argument.
        name: the folder of the run's checkpoints in `storage`.
        storage: folder or URL that all workers can reach.
        num_workers: number of processes.
        use_gpu: whether each has a GPU.

    Raises:
        MusictagError: a worker raised it.
        TrainingError: the workers failed otherwise, or one of them hung.
    """
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = _Trainer(
        worker,
        train_loop_config=loop_config,
        torch_config=ray.train.torch.TorchConfig(timeout_s=HANG_LIMIT_S),
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=MAX_WORKER_FAILURES),
        ),
    )
    try:
        return trainer.fit().checkpoint
    except TrainingFailedError as error:
        raise worker_error(error, f"{storage}/{name}") from error


def worker_error(error: TrainingFailedError, checkpoints: str) -> MusictagError:
    """Return the error that a worker raised on purpose, otherwise a `TrainingError` with the last line of the first."""
    causes = list(getattr(error, "worker_failures", {}).values()) or [error]
    ours = [cause for cause in causes if isinstance(cause, MusictagError)]
    if ours:
        return ours[0]
    reasons = [(str(cause).strip().splitlines() or [type(cause).__name__])[-1] for cause in causes]
    for reason in reasons:
        if any(words in reason.lower() for words in TIMEOUTS):
            return TrainingError(
                f"a worker hung: the other workers waited {HANG_LIMIT_S} s, or Ray ten minutes ({reason}); look at its "
                f"machine, network and logs; the last checkpoint is in {checkpoints}"
            )
    return TrainingError(f"the workers failed: {reasons[0]}; the last checkpoint is in {checkpoints}")
