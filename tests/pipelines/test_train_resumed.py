"""A training that is interrupted as a whole is continued by the same command, in the same MLflow run."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from musictag.training.checkpoints import TrainingState

OPTIONS = ("--model", "cnn", "--epochs", 4, "--batch-size", 8, "--clips-per-epoch", 2, "--learning-rate", 0.003,
           "--seed", 3)  # fmt: skip

pytestmark = pytest.mark.slow


def options(corpus) -> tuple[object, ...]:
    return "--catalog", corpus.catalog, "--features", corpus.features, *OPTIONS


def runs_of(home) -> list[Run]:
    """Return the runs, newest first."""
    client = MlflowClient(home.tracking_uri)
    experiment = client.get_experiment_by_name("musictag")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]) if experiment else []


def interrupt(home, corpus, ending: signal.Signals, n_epochs: int = 3) -> tuple[str, int, str]:
    """Start a training, and send it a signal when epochs are logged; return the run, exit code and stderr."""
    before = {run.info.run_id for run in runs_of(home)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes of a shell ignore it
    process = home.start("train.py", *options(corpus))
    deadline = time.monotonic() + 240
    while True:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        new = [run for run in runs_of(home) if run.info.run_id not in before]
        if new and new[0].data.metrics.get("epoch", 0) >= n_epochs:
            break
        time.sleep(0.05)
    process.send_signal(ending)
    _, err = process.communicate(timeout=300)
    return new[0].info.run_id, process.returncode, err


def losses(home, run_id: str) -> list[float]:
    history = MlflowClient(home.tracking_uri).get_metric_history(run_id, "val_loss")
    return [point.value for point in sorted(history, key=lambda point: point.step)]


def test_killed_training_goes_on_in_the_same_run(home, corpus, trained: TrainingState) -> None:
    run_id, *_ = interrupt(home, corpus, signal.SIGKILL)
    assert runs_of(home)[0].info.status == "RUNNING"  # nobody could change it
    code, out, err = home.run("train.py", *options(corpus))
    assert code == 0, err
    assert f"continuing the interrupted run {run_id}: " in out
    (run,) = runs_of(home)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    steps = [point.step for point in MlflowClient(home.tracking_uri).get_metric_history(run_id, "epoch")]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert steps.count(1) == 1
    np.testing.assert_allclose(dict(zip(steps, losses(home, run_id), strict=False))[4], trained.history[-1]["val_loss"])
    assert not any((home.folder / "data/checkpoints").glob("[0-9a-f]*"))  # deleted


def test_stopped_training_is_killed_in_mlflow_and_fresh_discards_it(home, corpus) -> None:
    run_id, code, err = interrupt(home, corpus, signal.SIGINT, n_epochs=2)
    assert code == 130
    assert "Traceback" not in err
    assert "stopped" in err
    assert runs_of(home)[0].info.status == "KILLED"
    assert (home.folder / "data/checkpoints" / run_id).exists()
    code, out, err = home.run("train.py", *options(corpus), "--fresh")
    assert code == 0, err
    assert "continuing" not in out
    assert runs_of(home)[0].info.run_id != run_id
    assert not (home.folder / "data/checkpoints" / run_id).exists()


def test_trained_model_that_could_not_be_logged_is_only_logged_again(home, corpus, call: Callable, monkeypatch) -> None:
    from musictag.engines import mlflow_runs
    from musictag.errors import RegistryError

    with monkeypatch.context() as broken:

        def refuse(run_id: str, folder: Path) -> str:
            raise RegistryError("the store is full")

        broken.setattr(mlflow_runs, "log_model", refuse)
        code, _, err = call(home, "train", *options(corpus), "--fresh")
        assert (code, err.strip().splitlines()[-1]) == (1, "error: the store is full")
    (failed, *_) = runs_of(home)
    assert failed.info.status == "FAILED"
    code, out, err = call(home, "train", *options(corpus))
    assert code == 0, err
    assert f"continuing the interrupted run {failed.info.run_id}: 4 of 4 epochs are logged" in out
    steps = [point.step for point in MlflowClient(home.tracking_uri).get_metric_history(failed.info.run_id, "epoch")]
    assert sorted(steps) == [1, 2, 3, 4]
    assert runs_of(home)[0].info.status == "FINISHED"


def test_artifact_store_that_takes_no_file_ends_the_run_before_the_first_epoch(home, corpus, call: Callable) -> None:
    experiment = MlflowClient(home.tracking_uri).get_experiment_by_name("musictag")
    folder = Path(experiment.artifact_location.removeprefix("file://"))
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_text("a file where the folder was")
    try:
        code, _, err = call(home, "train", *options(corpus))
    finally:
        folder.unlink()
        aside.rename(folder)
    assert code == 1
    assert err.strip().splitlines()[-1].startswith("error: MLflow's artifact store ")
    (refused, *_) = runs_of(home)
    assert refused.info.status == "FAILED"
    assert "epoch" not in refused.data.metrics
