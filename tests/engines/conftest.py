import shutil
from pathlib import Path

import pytest

from musictag.engines import mlflow_runs


@pytest.fixture
def mlflow_home(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty MLflow store to which MLflow is connected."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    mlflow_runs.connect()
    return tmp_path
