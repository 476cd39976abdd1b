import errno
import math
import os
import re
import shutil
import subprocess
import sys
import time
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


@pytest.fixture(autouse=True)
def home(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    mlflow_runs.connect()
    return tmp_path


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


def test_changed_files_of_a_version_are_refused(artifact: Path, home: Path) -> None:
    version = registered(artifact)
    (weights,) = (home / "mlartifacts").rglob("weights.safetensors")
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
    assert mlflow_registry.identity(source)[0] == "msd-musicnn"
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


def test_decision_is_logged_to_its_run(artifact: Path, tmp_path: Path) -> None:
    run_id = logged(artifact).split("/")[1]
    (tmp_path / "made").mkdir()
    (tmp_path / "made/decision.json").write_text("{}")
    mlflow_runs.log_decision(run_id, tmp_path / "made", {"promote": 1.0, "macro_pr_auc_low": math.nan})
    client = MlflowClient()
    assert [entry.path for entry in client.list_artifacts(run_id, "promotion")] == ["promotion/decision.json"]
    assert client.get_run(run_id).data.metrics == {"promotion_promote": 1.0}


def test_version_stores_its_decision(artifact: Path) -> None:
    version = registered(artifact)
    mlflow_registry.tag_version(version, {"decision": "forced: the editors agreed"})
    assert MlflowClient().get_model_version("musictag", version).tags["decision"] == "forced: the editors agreed"


def test_evaluation_is_logged_to_its_run(artifact: Path, tmp_path: Path) -> None:
    run_id = logged(artifact).split("/")[1]
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


@pytest.mark.parametrize(
    "uri", ["models:/musictag@nobody", "models:/musictag/99", "models:/other@champion", f"runs:/{NO_RUN}/model"]
)
def test_unknown_model_is_an_error_of_one_sentence(uri: str, artifact: Path) -> None:
    registered(artifact)
    with pytest.raises(RegistryError, match=uri) as error:
        mlflow_registry.fetch(uri)
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


def test_missing_server_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9 \(MLFLOW_TRACKING_URI\)") as error:
        mlflow_runs.connect()
    assert time.monotonic() - started < 15
    assert one_sentence(error)


def test_folder_is_identified_by_its_files(artifact: Path) -> None:
    name, digest = mlflow_registry.identity(mlflow_registry.fetch(str(artifact)))
    assert name == str(artifact)
    assert mlflow_registry.identity(mlflow_registry.fetch(str(artifact))) == (name, digest)
    weights = artifact / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert mlflow_registry.identity(mlflow_registry.fetch(str(artifact))) != (name, digest)


def test_version_is_identified_by_its_number(artifact: Path) -> None:
    version = registered(artifact)
    assert mlflow_registry.identity(mlflow_registry.fetch(f"models:/musictag/{version}")) == ("musictag", version)


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


def test_cost_is_the_duration_of_the_run_or_of_its_fit() -> None:
    with mlflow_runs.start_run("train", {}, {}, system_metrics=False) as run_id:
        mlflow_runs.log_metrics(run_id, {"seconds": 1000.0, "best_val_loss": 0.5})
    cost = mlflow_runs.cost(run_id)
    assert cost["seconds"] < 100
    assert cost["best_val_loss"] == 0.5
    with mlflow_runs.start_run("fit", {}, {}, system_metrics=False) as run_id:
        mlflow_runs.log_metrics(run_id, {"fit_seconds": 1000.0})
    assert mlflow_runs.cost(run_id)["seconds"] == 1000
