"""A worker that stands still: the others wait for it, but not for ever."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from musictag.engines import ray_training
from musictag.training.checkpoints import load_states
from processes import command_line

OPTIONS = ("--model", "cnn", "--epochs", 4, "--batch-size", 8, "--clips-per-epoch", 2, "--num-workers", 2)
LIMIT_S = 15


def train_workers():
    children = psutil.Process().children(recursive=True)
    return {child for child in children if "RayTrainWorker" in command_line(child)}


class Stopper(threading.Thread):
    """Stops one of two workers as soon as an epoch is logged."""

    def __init__(self, home):
        super().__init__(daemon=True)
        self.home, self.before, self.stopped = home, train_workers(), None

    def run(self):
        deadline = time.monotonic() + 120
        while not (self.epochs() and len(train_workers() - self.before) == 2):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        self.stopped = max(train_workers() - self.before, key=lambda worker: worker.pid)
        os.kill(self.stopped.pid, signal.SIGSTOP)

    def epochs(self):
        client = MlflowClient(self.home.tracking_uri)
        experiment = client.get_experiment_by_name("musictag")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return runs[0].data.metrics.get("epoch", 0) if runs else 0


@pytest.fixture
def stopper(own_home):
    stopper = Stopper(own_home)
    stopper.start()
    yield stopper
    if stopper.stopped is not None:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            stopper.stopped.kill()


@pytest.mark.slow
def test_worker_that_hangs_ends_the_run_and_keeps_the_checkpoint(corpus, own_home, call, stopper, monkeypatch):
    monkeypatch.setattr(ray_training, "HANG_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(ray_training, "MAX_WORKER_FAILURES", 0)  # with more, training continues
    code, _, err = call(own_home, "train", "--catalog", corpus.catalog, "--features", corpus.features, *OPTIONS)
    assert code == 1
    assert f"error: a worker hung: the other workers waited {LIMIT_S} s" in err
    assert "Traceback" not in err
    (folder,) = Path(own_home.folder / "data" / "checkpoints").glob("[0-9a-f]*")
    assert str(folder) in err
    (state,) = load_states(next(folder.glob("checkpoint_*")))
    assert state.epoch >= 1
