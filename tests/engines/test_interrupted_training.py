"""The run of an interrupted training is found again; that of a running or finished one is not taken."""

from pathlib import Path

import mlflow
import pytest

from musictag.engines import interrupted_training, mlflow_runs
from musictag.errors import TrainingError
from musictag.storage import heartbeats

pytestmark = pytest.mark.slow


def start(checkpoints: Path, fingerprint: str, error: BaseException | None = None) -> str:
    """Make a run with a checkpoint, which ends with the error."""
    tags, params = {mlflow_runs.FINGERPRINT: fingerprint}, {"checkpoints": str(checkpoints)}
    try:
        with mlflow_runs.start_run("train", params, tags, system_metrics=False) as run_id:
            (checkpoints / run_id).mkdir(parents=True)
            (checkpoints / run_id / "fold-0.pt").touch()
            if error:
                raise error
    except type(error or KeyError()):
        pass
    return run_id


def status(run_id: str) -> str:
    return str(mlflow.MlflowClient().get_run(run_id).info.status)


@pytest.fixture
def checkpoints(mlflow_home: Path) -> Path:
    return mlflow_home / "checkpoints"


def test_the_newest_interrupted_run_is_continued_and_older_ones_are_discarded(checkpoints: Path) -> None:
    older, newer = start(checkpoints, "f", OSError()), start(checkpoints, "f", KeyboardInterrupt())
    assert (status(older), status(newer)) == ("FAILED", "KILLED")
    assert interrupted_training.take_over("f", str(checkpoints), fresh=False) == newer
    assert [path.name for path in checkpoints.iterdir()] == [newer]
    assert status(older) == "KILLED"


def test_other_settings_other_places_and_finished_runs_are_not_continued(checkpoints: Path, tmp_path: Path) -> None:
    start(checkpoints, "f")
    start(checkpoints, "other", OSError())
    start(tmp_path / "elsewhere", "f", OSError())
    assert interrupted_training.take_over("f", str(checkpoints), fresh=False) is None
    assert len(list(checkpoints.iterdir())) == 2


def test_fresh_discards_what_was_interrupted(checkpoints: Path) -> None:
    start(checkpoints, "f", OSError())
    assert interrupted_training.take_over("f", str(checkpoints), fresh=True) is None
    assert list(checkpoints.iterdir()) == []
    assert interrupted_training.take_over("f", str(checkpoints), fresh=False) is None


def test_run_of_a_process_that_runs_is_not_taken_over(checkpoints: Path) -> None:
    run_id = start(checkpoints, "f", OSError())
    with heartbeats.running(str(checkpoints), run_id):
        with pytest.raises(TrainingError, match=f"is training the same model, in MLflow's run {run_id}"):
            interrupted_training.take_over("f", str(checkpoints), fresh=False)
        assert interrupted_training.take_over("f", str(checkpoints), fresh=True) is None
    assert (checkpoints / run_id).exists()
    assert interrupted_training.take_over("f", str(checkpoints), fresh=False) == run_id
