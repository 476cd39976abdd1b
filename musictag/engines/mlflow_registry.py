"""The MLflow model registry: the registered model `musictag`, its versions and aliases.

A model is an artifact folder (see `musictag.models.artifact_files`), not an MLflow flavour: reading it runs no code.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

# First: it sets a variable that MLflow reads when it is imported.
from musictag.engines.mlflow_runs import ARTIFACT, EXPERIMENT, download_artifacts, log_model, mlflow_errors, start_run  # isort: skip

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from musictag.errors import ModelError, RegistryError
from musictag.jobs.progress import echo
from musictag.models import artifact_files
from musictag.models.published import pretrained
from musictag.tagging.table import ModelIdentity

MODEL = "musictag"
DIGEST = "digest"
# The files of a folder or of a published model have no time of registration.
BEGINNING = datetime.datetime.min.replace(tzinfo=datetime.UTC)
CHAMPION = f"models:/{MODEL}@champion"
CANDIDATE = f"models:/{MODEL}@candidate"


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A local model artifact, and its version and run in MLflow."""

    folder: Path
    uri: str
    """URI of exactly this model: an alias is resolved to its version."""
    version: str | None
    run_id: str | None


def register(source: ModelSource) -> str:
    """Return the version of a model; register it first if it has none. Raises `RegistryError` without a run."""
    if source.version is not None:
        return source.version
    if source.run_id is None:
        raise RegistryError(f"model {source.uri}: MLflow has no run of it; name it by runs:/RUN_ID/{ARTIFACT}")
    with mlflow_errors("MLflow"):
        client = MlflowClient()
        with contextlib.suppress(MlflowException):  # it exists
            client.create_registered_model(MODEL)
        for known in client.search_model_versions(f"name = '{MODEL}' and run_id = '{source.run_id}'"):
            return str(known.version)
        artifacts = RunsArtifactRepository.get_underlying_uri(f"runs:/{source.run_id}/{ARTIFACT}")
        digests = artifact_files.file_digests(source.folder)
        return str(client.create_model_version(MODEL, artifacts, source.run_id, tags=digests).version)


def register_any(source: ModelSource) -> str:
    """Return the version of a model; register it first, in a new run if it does not come from one.

    A run is found again by the digest of the model's files, so that the same model is registered once.
    """
    if source.run_id is not None:
        return register(source)
    found = identity(source)
    with mlflow_errors("MLflow"):
        query = f"tags.{DIGEST} = '{found.version}' and attributes.status = 'FINISHED'"
        known = mlflow.search_runs(experiment_names=[EXPERIMENT], filter_string=query, output_format="list")
    if known:
        run_id = known[0].info.run_id
    else:
        with start_run(Path(found.name).name, {}, {DIGEST: found.version}, system_metrics=False) as run_id:
            log_model(run_id, source.folder)
    return register(dataclasses.replace(source, run_id=run_id))


def set_alias(version: str, alias: str) -> None:
    """Set an alias of the registered model to a version."""
    with mlflow_errors("MLflow"):
        MlflowClient().set_registered_model_alias(MODEL, alias, version)


def promote(version: str, alias: str) -> None:
    """Set an alias to a version, and record the replaced version, to which `roll_back` returns."""
    with mlflow_errors("MLflow"):
        if replaced := alias_version(alias):
            _record_replaced(alias, [*_replaced_versions(alias), replaced])
        set_alias(version, alias)


def roll_back(alias: str) -> tuple[str, str]:
    """Undo the last `promote`: set an alias to its previous version, and return the old and the new version.

    Deleted versions are skipped. Raises `RegistryError` if there is no previous version.
    """
    with mlflow_errors("MLflow"):
        current = alias_version(alias)
        if current is None:
            raise RegistryError(f"no version is the {alias}: there is nothing to roll back")
        existing = {str(version.version) for version in MlflowClient().search_model_versions(f"name = '{MODEL}'")}
        previous = _replaced_versions(alias)
        # After a killed promotion or rollback, the current version is the last recorded one.
        while previous and (previous[-1] == current or previous[-1] not in existing):
            previous.pop()
        if not previous:
            raise RegistryError(f"version {current} is the first {alias}: there is none before it to roll back to")
        *earlier, version = previous
        set_alias(version, alias)
        _record_replaced(alias, earlier)
    return current, version


def tag_version(version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version, such as a decision and its reason."""
    with mlflow_errors("MLflow"):
        for key, value in tags.items():
            MlflowClient().set_model_version_tag(MODEL, version, key, value)


def identity(source: ModelSource) -> ModelIdentity:
    """Return the identity of a model; the version of an unregistered model is a digest of its files."""
    digest = artifact_files.model_digest(artifact_files.file_digests(source.folder))
    if source.version is not None:
        return ModelIdentity(MODEL, source.version, digest)
    content = hashlib.sha256()
    for path in sorted(source.folder.iterdir()):
        content.update(path.read_bytes())
    return ModelIdentity(source.uri, content.hexdigest()[:16], digest)


def find_digest(name: str, version: str) -> tuple[str, datetime.datetime] | None:
    """Return the digest of the model of a name and version, and the time since which it has that version.

    Return None if the model does not exist any more. The arguments are those of a `ModelIdentity`.
    """
    if name != MODEL:
        try:
            found = identity(fetch(name))
        except (RegistryError, ModelError):
            return None
        return (found.digest, BEGINNING) if found.version == version else None
    with mlflow_errors("MLflow"):
        known = MlflowClient().search_model_versions(f"name = '{MODEL}'")
        for registered in known:
            if str(registered.version) == version:
                created = datetime.datetime.fromtimestamp(registered.creation_timestamp / 1000, datetime.UTC)
                return artifact_files.model_digest(registered.tags), created
    return None


def file_name(source: ModelSource) -> str:
    """Return a unique file name for a model, in ASCII characters that every store accepts."""
    found = identity(source)
    text = source.uri if source.run_id else f"{Path(found.name).name}-{found.version}"
    return re.sub(r"[^\w.]+", "-", text, flags=re.ASCII)


def vocabulary_of(name: str, version: str) -> tuple[str, ...]:
    """Return the vocabulary of the model that tags rows name.

    Print a message and return no tags if the model does not exist any more.
    """
    try:
        source = fetch(f"models:/{name}/{version}" if name == MODEL else name)
        found = identity(source)
        if (found.name, found.version) == (name, version):
            return artifact_files.read_spec(source.folder).vocabulary
        reason = "another model has that name and version"
    except (RegistryError, ModelError) as error:
        reason = str(error)
    echo(f"{name} {version} is gone ({reason}): its vocabulary is taken from the tags of the sampled tracks")
    return ()


def alias_version(alias: str) -> str | None:
    """Return the version of an alias, or None."""
    with mlflow_errors("MLflow"):
        versions = MlflowClient().search_registered_models(f"name = '{MODEL}'")
        return str(versions[0].aliases[alias]) if versions and alias in versions[0].aliases else None


def fetch(uri: str) -> ModelSource:
    """Fetch the model of `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/RUN_ID/model`, a name or a folder.

    Raises `RegistryError` if MLflow does not know it; `ModelError` if the folder or the published models do not exist,
    or if the files of a version differ from those that were registered.
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
    with mlflow_errors(f"model {uri}"):
        if run_id is None:
            client = MlflowClient()
            found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
            run_id, version = found.run_id, str(found.version)
            uri = f"models:/{name}/{version}"
        folder = download_artifacts(str(run_id), ARTIFACT)
    if version is not None:
        artifact_files.check_digests(folder, found.tags)
    return ModelSource(folder, uri, version, run_id)


def _replaced_versions(alias: str) -> list[str]:
    """Return the replaced versions of an alias, oldest first, from a tag of the registered model."""
    return str(MlflowClient().get_registered_model(MODEL).tags.get(f"replaced.{alias}", "")).split()


def _record_replaced(alias: str, versions: list[str]) -> None:
    MlflowClient().set_registered_model_tag(MODEL, f"replaced.{alias}", " ".join(versions))
