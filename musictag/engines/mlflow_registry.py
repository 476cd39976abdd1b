"""MLflow, all of it: runs with their curves and artifacts, the registered model `musictag`, its versions and aliases.

The tracking uri is `MLFLOW_TRACKING_URI`, or `sqlite:///data/mlflow.db` with its artifacts in `data/mlartifacts`. A
model is an artifact folder (see `musictag.models.artifact`), never an MLflow flavour: reading it runs no code.
"""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from musictag.errors import ModelError, RegistryError
from musictag.jobs.progress import echo
from musictag.models import artifact
from musictag.models.artifact import load_model
from musictag.models.published import pretrained
from musictag.storage.urls import redacted

MODEL = "musictag"
EXPERIMENT = "musictag"
DEFAULT_DATABASE = "data/mlflow.db"
ARTIFACT = "model"
DIGEST = "digest"
CHAMPION = f"models:/{MODEL}@champion"
CANDIDATE = f"models:/{MODEL}@candidate"


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A model artifact on this machine, and what MLflow knows of it."""

    folder: Path
    uri: str
    """Names exactly this model: aliases are resolved to a version."""
    version: str | None
    run_id: str | None


def connect() -> str:
    """Point MLflow at the tracking store, and return its uri, valid in every process of this machine.

    Raises `RegistryError` if it does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_DATABASE}"
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{database}"
    # A server that is not there is said within seconds; whoever has a slow one sets these higher.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with _explained(f"MLflow at {uri} (MLFLOW_TRACKING_URI) cannot be used"):
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
    """An MLflow run around the body, with system metrics; yields its id. A body that raises marks it as failed."""
    with _explained("MLflow"):
        mlflow.set_experiment(EXPERIMENT)
        mlflow.set_system_metrics_sampling_interval(5)
        run = mlflow.start_run(run_name=name, tags=dict(tags), log_system_metrics=system_metrics)
        mlflow.log_params({key: redacted(str(value))[:6000] for key, value in params.items()})
    with run:
        yield run.info.run_id


def log_features(uri: str, version: int, digest: str) -> None:
    """Log the features table, at its version, as the dataset of the current run."""
    with _explained("MLflow"):
        source = DeltaDatasetSource(path=redacted(uri), delta_table_version=version)
        dataset = MetaDataset(source, name="features", digest=digest)  # type: ignore[abstract] # MLflow's own use
        mlflow.log_input(dataset, context="training")


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics of one step on a run; those that are not numbers are left out."""
    now = int(time.time() * 1000)
    entries = [Metric(name, float(value), now, step) for name, value in metrics.items() if not math.isnan(value)]
    with _explained("MLflow"):
        MlflowClient().log_batch(run_id, metrics=entries)


def latest_step(run_id: str) -> int:
    """How many epochs of a run are logged."""
    with _explained("MLflow"):
        return int(MlflowClient().get_run(run_id).data.metrics.get("epoch", 0))


def cost(run_id: str) -> dict[str, float]:
    """The last metrics of a finished run, and in `seconds` how long it took, or its fit, where that is a metric."""
    with _explained("MLflow"):
        run = MlflowClient().get_run(run_id)
    seconds = (run.info.end_time - run.info.start_time) / 1000
    # An epoch has its `seconds` as well.
    return {**run.data.metrics, "seconds": run.data.metrics.get("fit_seconds", seconds)}


def log_model(run_id: str, folder: Path) -> str:
    """Store an artifact folder with a run; returns the model's uri."""
    with _explained("MLflow"):
        MlflowClient().log_artifacts(run_id, str(folder), ARTIFACT)
    return f"runs:/{run_id}/{ARTIFACT}"


def register(source: ModelSource) -> str:
    """The version of the registered model that is `source`; made if there is none. Raises `RegistryError`."""
    if source.version is not None:
        return source.version
    if source.run_id is None:
        raise RegistryError(f"model {source.uri}: MLflow has no run of it; name it by runs:/RUN_ID/{ARTIFACT}")
    with _explained("MLflow"):
        client = MlflowClient()
        with contextlib.suppress(MlflowException):  # it is there already
            client.create_registered_model(MODEL)
        for known in client.search_model_versions(f"name = '{MODEL}' and run_id = '{source.run_id}'"):
            return str(known.version)
        artifacts = RunsArtifactRepository.get_underlying_uri(f"runs:/{source.run_id}/{ARTIFACT}")
        digests = artifact.file_digests(source.folder)
        return str(client.create_model_version(MODEL, artifacts, source.run_id, tags=digests).version)


def adopt(source: ModelSource) -> str:
    """The version of the registered model that is `source`, which need not come from a run.

    A folder or a published model gets a run that holds it; the digest of its files finds that run again, so that the
    same model is registered once, whatever it is called.
    """
    if source.run_id is not None:
        return register(source)
    name, digest = identity(source)
    with _explained("MLflow"):
        query = f"tags.{DIGEST} = '{digest}' and attributes.status = 'FINISHED'"
        known = mlflow.search_runs(experiment_names=[EXPERIMENT], filter_string=query, output_format="list")
    if known:
        run_id = known[0].info.run_id
    else:
        with start_run(Path(name).name, {}, {DIGEST: digest}, system_metrics=False) as run_id:
            log_model(run_id, source.folder)
    return register(dataclasses.replace(source, run_id=run_id))


def set_alias(version: str, alias: str) -> None:
    """Point an alias of the registered model at a version."""
    with _explained("MLflow"):
        MlflowClient().set_registered_model_alias(MODEL, alias, version)


def promote(version: str, alias: str) -> None:
    """Point an alias at a version, and remember the one that it replaces: `roll_back` returns to it."""
    with _explained("MLflow"):
        if replaced := alias_version(alias):
            _remember(alias, [*_replaced(alias), replaced])
        set_alias(version, alias)


def roll_back(alias: str) -> tuple[str, str]:
    """Point an alias at the version that it pointed at before, as if the last `promote` had not been.

    Versions deleted in between are passed over. Returns the version left and the one returned to; raises
    `RegistryError` where there is none before.
    """
    with _explained("MLflow"):
        current = alias_version(alias)
        if current is None:
            raise RegistryError(f"no version is the {alias}: there is nothing to roll back")
        kept = {str(version.version) for version in MlflowClient().search_model_versions(f"name = '{MODEL}'")}
        before = _replaced(alias)
        # The current version is the last one of these if a promotion or a roll-back was killed halfway.
        while before and (before[-1] == current or before[-1] not in kept):
            before.pop()
        if not before:
            raise RegistryError(f"version {current} is the first {alias}: there is none before it to roll back to")
        *earlier, version = before
        set_alias(version, alias)
        _remember(alias, earlier)
    return current, version


def tag_version(version: str, tags: Mapping[str, str]) -> None:
    """Keep texts by name with a version: decisions and their reasons."""
    with _explained("MLflow"):
        for key, value in tags.items():
            MlflowClient().set_model_version_tag(MODEL, version, key, value)


def identity(source: ModelSource) -> tuple[str, str]:
    """Name and version of a model; one that is not registered has a digest of its files as its version."""
    if source.version is not None:
        return MODEL, source.version
    digest = hashlib.sha256()
    for path in sorted(source.folder.iterdir()):
        digest.update(path.read_bytes())
    return source.uri, digest.hexdigest()[:16]


def file_name(source: ModelSource) -> str:
    """What to call a model in the name of a file, in letters that every store takes; other models have other names."""
    name, version = identity(source)
    text = source.uri if source.run_id else f"{Path(name).name}-{version}"
    return re.sub(r"[^\w.]+", "-", text, flags=re.ASCII)


def vocabulary_of(producer: str) -> tuple[str, ...]:
    """Return the tags that a model knows, of which tags rows say that it is their `producer`: "NAME VERSION".

    Print a message and return no tags if the model is gone.
    """
    name, _, version = producer.rpartition(" ")
    try:
        source = fetch(f"models:/{name}/{version}" if name == MODEL else name)
        if identity(source) == (name, version):
            return load_model(source.folder)[1].vocabulary
        reason = "another model has its place"
    except (RegistryError, ModelError) as error:
        reason = str(error)
    echo(f"{producer} is gone ({reason}): of its tags only those are known that sampled tracks have")
    return ()


def alias_version(alias: str) -> str | None:
    """The version that an alias points at, or None."""
    with _explained("MLflow"):
        versions = MlflowClient().search_registered_models(f"name = '{MODEL}'")
        return str(versions[0].aliases[alias]) if versions and alias in versions[0].aliases else None


def fetch(uri: str) -> ModelSource:
    """The model of `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/RUN_ID/model`, a published name or a folder.

    Raises `RegistryError` if MLflow does not know it; `ModelError` if the folder or the published models are not there,
    or if a version's files are not, byte for byte, those that were registered.
    """
    if uri in pretrained.PUBLISHED:
        return ModelSource(pretrained.find(uri), uri, None, None)
    parsed = re.fullmatch(rf"(?:runs:/(\w+)/{ARTIFACT}|models:/([^/@]+)(?:@([\w-]+)|/(\d+)))", uri)
    if parsed is None:
        if not Path(uri).is_dir():
            raise ModelError(
                f"model {uri}: no such folder, not of the form {CHAMPION} or runs:/RUN_ID/{ARTIFACT}, "
                f"and none of {', '.join(pretrained.PUBLISHED)}"
            )
        return ModelSource(Path(uri), str(Path(uri).absolute()), None, None)
    run_id, name, alias, version = parsed.groups()
    with _explained(f"model {uri}"):
        if run_id is None:
            client = MlflowClient()
            found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
            run_id, version = found.run_id, str(found.version)
            uri = f"models:/{name}/{version}"
        folder = _downloaded(str(run_id), ARTIFACT)
    if version is not None:
        artifact.check_digests(folder, found.tags)
    return ModelSource(folder, uri, version, run_id)


def log_evaluation(run_id: str, split: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Keep an evaluation with its model's run: a folder of tables and pictures, and metrics named after the split."""
    _keep(run_id, f"evaluation/{split}", folder, {f"{split}_{name}": value for name, value in metrics.items()})


def log_decision(run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Keep a decision with its model's run: a folder of what was decided and why, and metrics named `promotion_`."""
    _keep(run_id, "promotion", folder, {f"promotion_{name}": value for name, value in metrics.items()})


def evaluation_file(run_id: str, split: str, name: str) -> Path | None:
    """A file of the folder that `log_evaluation` kept with a run, or None if there is none."""
    path = f"evaluation/{split}/{name}"
    with _explained("MLflow"):
        client = MlflowClient()
        if path not in {entry.path for entry in client.list_artifacts(run_id, f"evaluation/{split}")}:
            return None
        return _downloaded(run_id, path)


def _downloaded(run_id: str, path: str) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=tempfile.mkdtemp(dir=_downloads())
        )
    )


@functools.cache
def _downloads() -> Path:
    """Where downloads lie until this process ends: MLflow would leave them for good."""
    folder = tempfile.mkdtemp(prefix="musictag-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _keep(run_id: str, where: str, folder: Path, metrics: Mapping[str, float]) -> None:
    with _explained("MLflow"):
        MlflowClient().log_artifacts(run_id, str(folder), where)
    log_metrics(run_id, metrics)


def _replaced(alias: str) -> list[str]:
    """The versions that an alias has left, oldest first: a tag of the registered model holds them."""
    return str(MlflowClient().get_registered_model(MODEL).tags.get(f"replaced.{alias}", "")).split()


def _remember(alias: str, versions: list[str]) -> None:
    MlflowClient().set_registered_model_tag(MODEL, f"replaced.{alias}", " ".join(versions))


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise RegistryError(f"{what}: {reason[-1] if reason else type(error).__name__}") from error
