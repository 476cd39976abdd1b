from pathlib import Path

import pytest
from mlflow import MlflowClient

from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import RegistryError

pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    """Three versions of the registered model; what is in them does not matter here."""
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact/tagger.json").write_text("{}")
    made = []
    for _ in range(3):
        with mlflow_runs.start_run("a run", {}, {}, system_metrics=False) as run_id:
            uri = mlflow_runs.log_model(run_id, tmp_path / "artifact")
        made.append(mlflow_registry.register(mlflow_registry.fetch(uri)))
    return made


def test_each_rollback_returns_one_version_further(versions: list[str]) -> None:
    for version in versions:
        mlflow_registry.promote(version, "champion")
        assert mlflow_registry.alias_version("champion") == version
    first, second, third = versions
    assert mlflow_registry.roll_back("champion") == (third, second)
    assert mlflow_registry.alias_version("champion") == second
    assert mlflow_registry.roll_back("champion") == (second, first)
    with pytest.raises(RegistryError, match=f"version {first} is the first champion: there is none before it") as error:
        mlflow_registry.roll_back("champion")
    assert "\n" not in str(error.value)
    assert mlflow_registry.alias_version("champion") == first


def test_rollbacks_and_promotions_never_form_a_cycle(versions: list[str]) -> None:
    first, second, third = versions
    for version in (first, second, first):
        mlflow_registry.promote(version, "champion")
    assert [mlflow_registry.roll_back("champion")[1] for _ in range(2)] == [second, first]
    mlflow_registry.promote(third, "champion")
    assert mlflow_registry.roll_back("champion") == (third, first)
    with pytest.raises(RegistryError, match="none before it"):
        mlflow_registry.roll_back("champion")


def test_aliases_are_rolled_back_independently(versions: list[str]) -> None:
    first, second, _ = versions
    for version in (first, second):
        mlflow_registry.promote(version, "champion")
    mlflow_registry.promote(second, "shadow")
    with pytest.raises(RegistryError, match="first shadow"):
        mlflow_registry.roll_back("shadow")
    assert mlflow_registry.roll_back("champion") == (second, first)


def test_rollback_without_a_champion_is_refused(versions: list[str]) -> None:
    with pytest.raises(RegistryError, match="no version is the champion"):
        mlflow_registry.roll_back("champion")


def test_rollback_without_a_model_is_refused() -> None:
    with pytest.raises(RegistryError, match="no version is the champion"):
        mlflow_registry.roll_back("champion")


def test_rollback_skips_deleted_versions(versions: list[str]) -> None:
    first, second, third = versions
    for version in (first, second, third):
        mlflow_registry.promote(version, "champion")
    MlflowClient().delete_model_version("musictag", second)
    assert mlflow_registry.roll_back("champion") == (third, first)


def test_rollback_after_a_killed_promotion(versions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = versions
    for version in (first, second):
        mlflow_registry.promote(version, "champion")

    def kill(client: MlflowClient, name: str, alias: str, version: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", kill)
        with pytest.raises(KeyboardInterrupt):
            mlflow_registry.promote(third, "champion")
    assert mlflow_registry.alias_version("champion") == second
    assert mlflow_registry.roll_back("champion") == (second, first)
