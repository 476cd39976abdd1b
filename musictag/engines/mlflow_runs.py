"""MLflow runs: connect to the tracking store, log metrics and artifacts, and read them back.

The tracking URI is `MLFLOW_TRACKING_URI`, or `sqlite:///data/mlflow.db` with its artifacts in `data/mlartifacts`.
"""

import atexit
import contextlib
import functools
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

# MLflow reads this variable when it is imported. What a user runs is reported to nobody, unless the user says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from musictag.errors import RegistryError
from musictag.storage.text import without_colours
from musictag.storage.urls import redacted

EXPERIMENT = "musictag"
FINGERPRINT = "fingerprint"
"""Tag of a run with the fingerprint of its training."""
PATIENT_RETRIES = "6"
"""Retries of a request, with growing pauses: two minutes in all."""
MAX_PARAM_LENGTH = 6000
"""Characters of a param's value that MLflow stores."""
# In the text of an error of SQLAlchemy: the driver's error, such as "(sqlite3.OperationalError) database is locked".
_DATABASE_ERROR = re.compile(r"\(\w+(?:\.\w+)*Error\) (.*)")
# Names of packages whose module has another name; the plain psycopg packages need a compiler or a library.
_PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}


DEFAULT_DATABASE = "data/mlflow.db"


ARTIFACT = "model"


def connect() -> str:
    """Set MLflow's tracking store, and return its URI with an absolute path.

    Raises `RegistryError` if the store does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_DATABASE}"
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{database}"
    # A server that does not answer is reported within seconds; set these higher for a slow server.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # it logs errors that it raises, with a traceback
    mlflow.set_tracking_uri(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow_errors(f"MLflow at {uri} (MLFLOW_TRACKING_URI) cannot be used"):
        client = MlflowClient()
        if client.get_experiment_by_name(EXPERIMENT) is None:
            local = uri.startswith("sqlite:///")
            location = (database.parent / "mlartifacts").as_uri() if local else None
            client.create_experiment(EXPERIMENT, artifact_location=location)
    return uri


@contextlib.contextmanager
def start_run(
    name: str, params: Mapping[str, object], tags: Mapping[str, str], *, system_metrics: bool = True
) -> Iterator[str]:
    """Start an MLflow run and yield its id; the run ends with the body, see `_ending`."""
    with mlflow_errors("MLflow"):
        mlflow.set_experiment(EXPERIMENT)
        mlflow.set_system_metrics_sampling_interval(5)
        run = mlflow.start_run(run_name=name, tags=dict(tags), log_system_metrics=system_metrics)
    with _ending():
        with mlflow_errors("MLflow"):
            mlflow.log_params({key: _param(value) for key, value in params.items()})
        yield run.info.run_id


def _param(value: object) -> str:
    return redacted(str(value))[:MAX_PARAM_LENGTH]


@contextlib.contextmanager
def continue_run(run_id: str) -> Iterator[str]:
    """Set an unfinished run to running again, and yield its id; the run ends with the body, see `_ending`."""
    with mlflow_errors("MLflow"):
        mlflow.set_experiment(EXPERIMENT)
        mlflow.set_system_metrics_sampling_interval(5)
        mlflow.start_run(run_id=run_id, log_system_metrics=True)
    with _ending():
        yield run_id


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """End the current run with the body: as failed if the body raises, as killed if somebody stops it."""
    try:
        yield
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with contextlib.suppress(RegistryError), mlflow_errors("MLflow"):  # the error of the body matters more
            mlflow.end_run(status)
        raise
    with mlflow_errors("MLflow"):
        mlflow.end_run()


def unfinished_runs(fingerprint: str, checkpoints: str) -> list[str]:
    """Return the ids of the runs of a training that have not finished, newest first.

    Args:
        fingerprint: the fingerprint of the training, which is a tag of its runs.
        checkpoints: the place of its checkpoints, which is a param of its runs.
    """
    query = f"tags.{FINGERPRINT} = '{fingerprint}' and attributes.status != 'FINISHED'"
    with mlflow_errors("MLflow"):
        found = mlflow.search_runs(
            experiment_names=[EXPERIMENT], filter_string=query, order_by=["attributes.start_time DESC"],
            output_format="list",
        )  # fmt: skip
    return [run.info.run_id for run in found if run.data.params.get("checkpoints") == _param(checkpoints)]


def discard_run(run_id: str) -> None:
    """Mark an interrupted run as killed, and let no attempt find it again."""
    with mlflow_errors("MLflow"):
        MlflowClient().delete_tag(run_id, FINGERPRINT)
        MlflowClient().set_terminated(run_id, "KILLED")


def wait_for_server() -> None:
    """Let the requests of this process wait some minutes for an MLflow server that is being restarted."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = PATIENT_RETRIES


def log_text(run_id: str, text: str, path: str) -> None:
    """Store a text as an artifact of a run. Raises `RegistryError` if the artifact store takes no file."""
    with mlflow_errors("MLflow's artifact store (if the server keeps the artifacts, see its log)"):
        MlflowClient().log_text(run_id, text, path)


def log_features(uri: str, version: int, digest: str) -> None:
    """Log a version of the features table as the dataset of the current run."""
    with mlflow_errors("MLflow"):
        source = DeltaDatasetSource(path=redacted(uri), delta_table_version=version)
        dataset = MetaDataset(source, name="features", digest=digest)  # type: ignore[abstract] # MLflow's own use
        mlflow.log_input(dataset, context="training")


def logged_seconds(run_id: str) -> float:
    """Return the sum of the durations of a run's logged epochs, s; of an epoch that was logged twice, the last one."""
    with mlflow_errors("MLflow"):
        history = MlflowClient().get_metric_history(run_id, "seconds")
    return sum({point.step: point.value for point in history}.values())


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics of one step to a run; NaN values are left out."""
    now = int(time.time() * 1000)
    entries = [Metric(name, float(value), now, step) for name, value in metrics.items() if not math.isnan(value)]
    with mlflow_errors("MLflow"):
        MlflowClient().log_batch(run_id, metrics=entries)


def latest_step(run_id: str) -> int:
    """Return the number of logged epochs of a run."""
    with mlflow_errors("MLflow"):
        return int(MlflowClient().get_run(run_id).data.metrics.get("epoch", 0))


def cost(run_id: str) -> dict[str, float]:
    """Return the last metrics of a finished run; `seconds` is the duration of its fit if logged, else of the run."""
    with mlflow_errors("MLflow"):
        run = MlflowClient().get_run(run_id)
    seconds = (run.info.end_time - run.info.start_time) / 1000
    # The logged metric `seconds` is the duration of an epoch.
    return {**run.data.metrics, "seconds": run.data.metrics.get("fit_seconds", seconds)}


def log_model(run_id: str, folder: Path) -> str:
    """Store a model folder with a run; return the model's URI."""
    with mlflow_errors("MLflow"):
        MlflowClient().log_artifacts(run_id, str(folder), ARTIFACT)
    return f"runs:/{run_id}/{ARTIFACT}"


def log_evaluation(run_id: str, split: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log an evaluation to its model's run: a folder of files, and metrics prefixed with the split."""
    _log_folder(run_id, f"evaluation/{split}", folder, {f"{split}_{name}": value for name, value in metrics.items()})


def log_decision(run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log a promotion decision to its model's run: a folder of files, and metrics prefixed with `promotion_`."""
    _log_folder(run_id, "promotion", folder, {f"promotion_{name}": value for name, value in metrics.items()})


def evaluation_file(run_id: str, split: str, name: str) -> Path | None:
    """Download a file that `log_evaluation` logged; None if there is none."""
    path = f"evaluation/{split}/{name}"
    with mlflow_errors("MLflow"):
        client = MlflowClient()
        if path not in {entry.path for entry in client.list_artifacts(run_id, f"evaluation/{split}")}:
            return None
        return download_artifacts(run_id, path)


def download_artifacts(run_id: str, path: str) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=tempfile.mkdtemp(dir=_download_folder())
        )
    )


@functools.cache
def _download_folder() -> Path:
    """Return the folder of downloads, which is deleted at exit: MLflow never deletes its downloads."""
    folder = tempfile.mkdtemp(prefix="musictag-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _log_folder(run_id: str, where: str, folder: Path, metrics: Mapping[str, float]) -> None:
    with mlflow_errors("MLflow"):
        MlflowClient().log_artifacts(run_id, str(folder), where)
    log_metrics(run_id, metrics)


@contextlib.contextmanager
def mlflow_errors(subject: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError, ValueError, ModuleNotFoundError) as error:
        raise RegistryError(redacted(f"{subject}: {_reason(error)}")) from error


def _reason(error: Exception) -> str:
    """Return an error of MLflow as one line; an error of its database without the SQL and its parameters."""
    if isinstance(error, ModuleNotFoundError) and error.name:  # the driver of a database, or the client of a store
        package = _PACKAGES.get(error.name, error.name)
        return f"the Python package {package} is missing; install it, such as by pip install '{package}'"
    text = without_colours(str(error)).strip()
    if "Invalid Host header" in text:
        return (
            "the server refuses the name by which it was asked (Invalid Host header): start `mlflow server` with "
            "--allowed-hosts and this name, with its port"
        )
    if of_database := _DATABASE_ERROR.search(text):
        return of_database[1]
    return text.splitlines()[-1] if text else type(error).__name__
