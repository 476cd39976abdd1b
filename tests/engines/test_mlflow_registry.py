import datetime
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import ModelError, RegistryError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.models.artifact import load_model, save_model
from musictag.models.published import pretrained
from musictag.models.specs import TaggerSpec

SPEC = TaggerSpec(
    architecture="cnn",
    params={"channels": (4, 8), "hidden": 16},
    feature_config=FeatureConfig(n_mels=16, clip_frames=24),
    vocabulary=("drums", "piano"),
    thresholds=(0.5, 0.25),
    calibration=((1.0, 0.0), (3.0, -0.5)),
    provenance={},
)
NO_RUN = "0" * 32
pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "artifact", build_model("cnn", SPEC.params, n_mels=16, n_tags=2), SPEC)
    return tmp_path / "artifact"


def logged(artifact: Path) -> str:
    with mlflow_runs.start_run("a run", {}, {}) as run_id:
        return mlflow_runs.log_model(run_id, artifact)


def registered(artifact: Path) -> str:
    return mlflow_registry.register(mlflow_registry.fetch(logged(artifact)))


def one_sentence(error: pytest.ExceptionInfo[Exception]) -> bool:
    return "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_logged_model_is_fetched_unchanged(artifact: Path) -> None:
    uri = logged(artifact)
    version = mlflow_registry.register(mlflow_registry.fetch(uri))
    mlflow_registry.set_alias(version, "champion")
    for name in (uri, f"models:/musictag/{version}", mlflow_registry.CHAMPION):
        source = mlflow_registry.fetch(name)
        assert source.folder != artifact
        model, spec = load_model(source.folder)
        assert spec == SPEC
        for key, tensor in load_model(artifact)[0].state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor)


def test_downloads_are_deleted_at_exit(artifact: Path, tmp_path: Path) -> None:
    uri = logged(artifact)
    fetch = f"mlflow_runs.connect(); print(*mlflow_registry.fetch({uri!r}).folder.iterdir())"
    code = f"from musictag.engines import mlflow_registry, mlflow_runs; {fetch}"
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    assert "temporary" in done.stdout
    assert not list((tmp_path / "temporary").iterdir())


def test_source_has_uri_version_and_run(artifact: Path) -> None:
    uri = logged(artifact)
    run_id = uri.split("/")[1]
    version = mlflow_registry.register(mlflow_registry.fetch(uri))
    mlflow_registry.set_alias(version, "champion")
    of_run, of_alias, of_version, of_folder = map(
        mlflow_registry.fetch, (uri, mlflow_registry.CHAMPION, f"models:/musictag/{version}", str(artifact))
    )
    assert (of_run.uri, of_run.version, of_run.run_id) == (uri, None, run_id)
    assert (of_alias.uri, of_alias.version, of_alias.run_id) == (f"models:/musictag/{version}", version, run_id)
    assert of_version == mlflow_registry.ModelSource(of_version.folder, of_alias.uri, version, run_id)
    assert of_folder == mlflow_registry.ModelSource(artifact, str(artifact), None, None)


def test_registering_twice_gives_the_same_version(artifact: Path) -> None:
    source = mlflow_registry.fetch(logged(artifact))
    version = mlflow_registry.register(source)
    assert mlflow_registry.register(source) == version
    assert mlflow_registry.register(mlflow_registry.fetch(f"models:/musictag/{version}")) == version
    assert registered(artifact) == str(int(version) + 1)


def test_changed_files_of_a_version_are_refused(artifact: Path, mlflow_home: Path) -> None:
    version = registered(artifact)
    (weights,) = (mlflow_home / "mlartifacts").rglob("weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors changed since the model was registered"):
        mlflow_registry.fetch(f"models:/musictag/{version}")


def test_folder_without_a_run_cannot_be_registered(artifact: Path) -> None:
    with pytest.raises(RegistryError, match="MLflow has no run of it"):
        mlflow_registry.register(mlflow_registry.fetch(str(artifact)))


def test_folder_is_registered_once_under_any_path(artifact: Path, tmp_path: Path) -> None:
    version = mlflow_registry.register_any(mlflow_registry.fetch(str(artifact)))
    again = Path(shutil.copytree(artifact, tmp_path / "again"))
    assert mlflow_registry.register_any(mlflow_registry.fetch(str(again))) == version
    source = mlflow_registry.fetch(f"models:/musictag/{version}")
    assert mlflow_registry.register_any(source) == version
    assert load_model(source.folder)[1] == SPEC
    run = MlflowClient().get_run(source.run_id)
    assert (run.info.run_name, run.info.status) == ("artifact", "FINISHED")
    assert not [name for name in run.data.metrics if name.startswith("system/")]
    (again / "LICENSE").write_text("another model")
    assert mlflow_registry.register_any(mlflow_registry.fetch(str(again))) == str(int(version) + 1)


def test_register_any_registers_a_run(artifact: Path) -> None:
    source = mlflow_registry.fetch(logged(artifact))
    assert mlflow_registry.register_any(source) == mlflow_registry.register(source)


def test_incompletely_stored_model_is_registered_again(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(client: MlflowClient, run_id: str, folder: str, path: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = mlflow_registry.fetch(str(artifact))
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifacts", fail)
        with pytest.raises(RegistryError, match="No space left"):
            mlflow_registry.register_any(source)
    version = mlflow_registry.register_any(source)
    assert load_model(mlflow_registry.fetch(f"models:/musictag/{version}").folder)[1] == SPEC


def test_published_model_is_fetched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = mlflow_registry.fetch("msd-musicnn")
    assert source == mlflow_registry.ModelSource(pretrained.models_folder() / "msd-musicnn", "msd-musicnn", None, None)
    assert mlflow_registry.identity(source).name == "msd-musicnn"
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ModelError, match="run `musictag weights`"):
        mlflow_registry.fetch("msd-musicnn")


def test_alias_points_to_the_last_set_version(artifact: Path) -> None:
    assert mlflow_registry.alias_version("champion") is None
    first, second = registered(artifact), registered(artifact)
    assert mlflow_registry.alias_version("champion") is None
    for version in (first, second):
        mlflow_registry.set_alias(version, "champion")
        assert mlflow_registry.alias_version("champion") == version
    assert mlflow_registry.alias_version("candidate") is None


def test_version_stores_its_decision(artifact: Path) -> None:
    version = registered(artifact)
    mlflow_registry.tag_version(version, {"decision": "forced: the editors agreed"})
    assert MlflowClient().get_model_version("musictag", version).tags["decision"] == "forced: the editors agreed"


@pytest.mark.parametrize(
    "uri", ["models:/musictag@nobody", "models:/musictag/99", "models:/other@champion", f"runs:/{NO_RUN}/model"]
)
def test_unknown_model_is_an_error_of_one_sentence(uri: str, artifact: Path) -> None:
    registered(artifact)
    with pytest.raises(RegistryError, match=uri) as error:
        mlflow_registry.fetch(uri)
    assert one_sentence(error)


def test_champion_whose_files_are_gone_is_an_error_of_one_sentence(artifact: Path, mlflow_home: Path) -> None:
    version = registered(artifact)
    mlflow_registry.set_alias(version, "champion")
    shutil.rmtree(mlflow_home / "mlartifacts")
    with pytest.raises(RegistryError, match="models:/musictag@champion") as error:
        mlflow_registry.fetch("models:/musictag@champion")
    assert one_sentence(error)


def test_error_names_a_run_without_a_model(artifact: Path) -> None:
    with mlflow_runs.start_run("a run", {}, {}) as run_id:
        pass
    with pytest.raises(RegistryError, match=f"runs:/{run_id}/model") as error:
        mlflow_registry.fetch(f"runs:/{run_id}/model")
    assert one_sentence(error)


@pytest.mark.parametrize("uri", ["no/such/folder", "models:/musictag", "runs:/abc", "models:/musictag/latest"])
def test_invalid_model_name_is_an_error_of_one_sentence(uri: str) -> None:
    with pytest.raises(ModelError, match=f"{uri}: no such folder.*none of msd-musicnn, ") as error:
        mlflow_registry.fetch(uri)
    assert one_sentence(error)


def test_folder_is_identified_by_its_files(artifact: Path) -> None:
    found = mlflow_registry.identity(mlflow_registry.fetch(str(artifact)))
    assert found.name == str(artifact)
    assert mlflow_registry.identity(mlflow_registry.fetch(str(artifact))) == found
    assert mlflow_registry.find_digest(found.name, found.version) == (found.digest, mlflow_registry.BEGINNING)
    weights = artifact / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = mlflow_registry.identity(mlflow_registry.fetch(str(artifact)))
    assert found.version != changed.version
    assert found.digest != changed.digest
    assert mlflow_registry.find_digest(found.name, found.version) is None


def test_version_is_identified_by_the_digest_of_its_files(artifact: Path) -> None:
    first, second = registered(artifact), registered(artifact)
    found = [mlflow_registry.identity(mlflow_registry.fetch(f"models:/musictag/{n}")) for n in (first, second)]
    assert [(model.name, model.version) for model in found] == [("musictag", first), ("musictag", second)]
    assert found[0].digest == found[1].digest == mlflow_registry.identity(mlflow_registry.fetch(str(artifact))).digest
    (digest, since), now = mlflow_registry.find_digest("musictag", first), datetime.datetime.now(datetime.UTC)
    assert digest == found[0].digest
    assert now - datetime.timedelta(minutes=2) < since < now
    assert mlflow_registry.find_digest("musictag", "99") is None


def test_file_names_of_models_are_unique(artifact: Path, tmp_path: Path) -> None:
    versions = [registered(artifact), registered(artifact)]
    fetched = [mlflow_registry.fetch(f"models:/musictag/{version}") for version in versions]
    assert [mlflow_registry.file_name(source) for source in fetched] == [f"models-musictag-{n}" for n in versions]
    assert (
        mlflow_registry.file_name(mlflow_registry.fetch("models:/musictag/" + versions[0]))
        == f"models-musictag-{versions[0]}"
    )
    run_id = fetched[0].run_id
    assert mlflow_registry.file_name(mlflow_registry.fetch(f"runs:/{run_id}/model")) == f"runs-{run_id}-model"
    folder = Path(shutil.copytree(artifact, tmp_path / "m\u00fcsic & more"))
    first = mlflow_registry.file_name(mlflow_registry.fetch(str(folder)))
    assert re.fullmatch(r"m-sic-more-[0-9a-f]{16}", first)
    (folder / "LICENSE").write_text("other files, another model")
    assert mlflow_registry.file_name(mlflow_registry.fetch(str(folder))) != first
