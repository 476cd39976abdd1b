import contextlib
import math
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from musictag.engines import mlflow_runs
from musictag.errors import ModelError, RegistryError
from object_stores import free_port, running

pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def run_id() -> str:
    """A finished run."""
    with mlflow_runs.start_run("a run", {}, {}) as started:
        return started


def test_connect_creates_the_database_and_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    uri = mlflow_runs.connect()
    assert uri == f"sqlite:///{tmp_path}/new/data/mlflow.db"
    experiment = MlflowClient(uri).get_experiment_by_name(mlflow_runs.EXPERIMENT)
    assert experiment.artifact_location == (tmp_path / "new/data/mlartifacts").as_uri()
    assert mlflow_runs.connect() == uri


def test_run_stores_params_tags_and_metrics() -> None:
    with mlflow_runs.start_run("a run", {"epochs": 3, "vocabulary": "x" * 9000}, {"feature_hash": "abc"}) as run_id:
        assert mlflow_runs.latest_step(run_id) == 0
        for epoch in (1, 2):
            mlflow_runs.log_metrics(run_id, {"epoch": epoch, "loss": 1 / epoch, "roc_auc": math.nan}, step=epoch)
        assert mlflow_runs.latest_step(run_id) == 2
    run = MlflowClient().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "3"
    assert run.data.params["vocabulary"] == "x" * 6000
    assert run.data.tags["feature_hash"] == "abc"
    curve = [(point.step, point.value) for point in MlflowClient().get_metric_history(run_id, "loss")]
    assert curve == [(1, 1.0), (2, 0.5)]
    assert "roc_auc" not in run.data.metrics


def test_run_holds_no_secret() -> None:
    with mlflow_runs.start_run("a run", {"catalog": "https://me:hunter2@host/c.csv?sig=hunter2"}, {}) as run_id:
        mlflow_runs.log_features("s3://key:hunter2@bucket/features", 3, "hash")
    run = MlflowClient().get_run(run_id)
    assert run.data.params == {"catalog": "https://***@host/c.csv?sig=***"}
    assert "hunter2" not in str(run.to_dictionary())


def test_run_fails_when_its_body_raises() -> None:
    with pytest.raises(ModelError), mlflow_runs.start_run("a run", {}, {}) as run_id:
        raise ModelError("broken")
    assert MlflowClient().get_run(run_id).info.status == "FAILED"


def test_run_stores_the_features_table_with_its_version() -> None:
    with mlflow_runs.start_run("a run", {}, {}) as run_id:
        mlflow_runs.log_features("data/features", 7, "abc")
    (logged_input,) = MlflowClient().get_run(run_id).inputs.dataset_inputs
    assert logged_input.dataset.digest == "abc"
    assert '"delta_table_version": 7' in logged_input.dataset.source
    assert "data/features" in logged_input.dataset.source


def test_decision_is_logged_to_its_run(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/decision.json").write_text("{}")
    mlflow_runs.log_decision(run_id, tmp_path / "made", {"promote": 1.0, "macro_pr_auc_low": math.nan})
    client = MlflowClient()
    assert [entry.path for entry in client.list_artifacts(run_id, "promotion")] == ["promotion/decision.json"]
    assert client.get_run(run_id).data.metrics == {"promotion_promote": 1.0}


def test_evaluation_is_logged_to_its_run(run_id: str, tmp_path: Path) -> None:
    assert mlflow_runs.evaluation_file(run_id, "test", "report.txt") is None
    (tmp_path / "made").mkdir()
    (tmp_path / "made/report.txt").write_text("all is well")
    mlflow_runs.log_evaluation(run_id, "test", tmp_path / "made", {"macro_f1": 0.5, "macro_pr_auc": math.nan})
    found = mlflow_runs.evaluation_file(run_id, "test", "report.txt")
    assert found is not None
    assert found.read_text() == "all is well"
    assert mlflow_runs.evaluation_file(run_id, "test", "scores.parquet") is None
    assert mlflow_runs.evaluation_file(run_id, "validation", "report.txt") is None
    assert MlflowClient().get_run(run_id).data.metrics == {"test_macro_f1": 0.5}


def test_missing_server_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9 \(MLFLOW_TRACKING_URI\)") as error:
        mlflow_runs.connect()
    assert time.monotonic() - started < 15
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_cost_is_the_duration_of_the_run_or_of_its_fit() -> None:
    with mlflow_runs.start_run("train", {}, {}, system_metrics=False) as run_id:
        mlflow_runs.log_metrics(run_id, {"seconds": 1000.0, "best_val_loss": 0.5})
    cost = mlflow_runs.cost(run_id)
    assert cost["seconds"] < 100
    assert cost["best_val_loss"] == 0.5
    with mlflow_runs.start_run("fit", {}, {}, system_metrics=False) as run_id:
        mlflow_runs.log_metrics(run_id, {"fit_seconds": 1000.0})
    assert mlflow_runs.cost(run_id)["seconds"] == 1000


def lock(database: Path) -> contextlib.closing[sqlite3.Connection]:
    """Lock a database until the context ends. MLflow waits for it for 20 s."""
    connection = sqlite3.connect(database)
    connection.execute("BEGIN EXCLUSIVE")
    return contextlib.closing(connection)


def test_locked_database_is_an_error_of_one_sentence(mlflow_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = r"^MLflow at sqlite:.* cannot be used: database is locked$"
    with lock(mlflow_home / "mlflow.db"), pytest.raises(RegistryError, match=message):
        mlflow_runs.connect()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("scheme", "package"),
    [("postgresql", r"psycopg(2-binary|\[binary\])"), ("mysql", "mysqlclient"), ("mysql+pymysql", "pymysql")],
)
def test_missing_driver_of_a_database_is_an_error_of_one_sentence(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    for module in ("psycopg", "psycopg2", "MySQLdb", "pymysql"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:secret@host/db")
    start = rf"^MLflow at {re.escape(scheme)}://\*\*\*@host/db \(MLFLOW_TRACKING_URI\) cannot be used: "
    with pytest.raises(RegistryError, match=rf"{start}the Python package {package} is missing; install it, .*$"):
        mlflow_runs.connect()


def crash_with_a_locked_database(database: Path) -> None:
    with contextlib.ExitStack() as locked, mlflow_runs.start_run("a", {}, {}, system_metrics=False):
        locked.enter_context(lock(database))
        raise ZeroDivisionError


FILLS_THE_DATABASE = """
import os, resource, sys
from musictag.engines import mlflow_runs
from musictag.jobs.entry_point import run_main

def main(argv):
    mlflow_runs.connect()
    size = os.path.getsize(argv[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    for number in range(1_000):
        with mlflow_runs.start_run("a run", {"text": "x" * 400}, {}):
            pass

sys.exit(run_main(main, sys.argv[1:]))
"""


def test_full_database_is_an_error_of_one_sentence(mlflow_home: Path) -> None:
    """A file that may not grow any more stands for a full disk."""
    command = [sys.executable, "-c", FILLS_THE_DATABASE, str(mlflow_home / "mlflow.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert re.fullmatch(r"error: MLflow: .*(disk|full).*\n", done.stderr), done.stderr


def test_error_at_the_end_of_a_run_does_not_hide_that_of_its_body(mlflow_home: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        crash_with_a_locked_database(mlflow_home / "mlflow.db")


def test_killed_run_is_not_a_failed_one() -> None:
    with contextlib.suppress(KeyboardInterrupt), mlflow_runs.start_run("a run", {}, {}) as run_id:
        raise KeyboardInterrupt
    assert MlflowClient().get_run(run_id).info.status == "KILLED"


def test_seconds_of_an_epoch_that_was_repeated_count_once(run_id: str) -> None:
    for step, seconds in ((1, 5.0), (2, 7.0), (2, 6.0)):
        mlflow_runs.log_metrics(run_id, {"seconds": seconds}, step)
        time.sleep(0.002)
    assert mlflow_runs.logged_seconds(run_id) == 11.0


@pytest.mark.slow
def test_server_that_refuses_its_name_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    server = sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1
    store = "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--allowed-hosts", "mlflow:5000"
    with running(port, *server, *store):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with pytest.raises(RegistryError, match="start `mlflow server` with --allowed-hosts and this name"):
            mlflow_runs.connect()
