"""The manifests of engines are filled in, and what is wrong is named; `tests/infra` runs them on a cluster."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from musictag.errors import UsageError
from musictag.jobs.entry_point import run_main

ROOT = Path(__file__).parents[1]
ENGINES = sorted([*ROOT.glob("infra/base/engines/*.yaml"), *ROOT.glob("infra/overlays/aws/ray.yaml")])
COMMAND = ["pipelines/tag.py", "--tags", "s3://b/a tag's table"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_on_cluster", ROOT / "infra/run_on_cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pod(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pod of a night."""
    monkeypatch.setenv("MUSICTAG_GPU_IMAGE", "gpu:1")
    return tool.Pod("night-1", "u", "registry/musictag:1")


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_objects_of_an_engine_have_its_name_and_belong_to_the_pod(tool: ModuleType, pod: Any, path: Path) -> None:
    manifests = tool.read_manifests(path, "engine-1", COMMAND, pod)
    assert {manifest["metadata"]["ownerReferences"][0]["name"] for manifest in manifests} == {"night-1"}
    assert all(manifest["metadata"]["name"].startswith("engine-1") for manifest in manifests)
    text = str(manifests)
    assert "$" not in text
    assert "'image': 'registry/musictag:1'" in text or "'image': 'gpu:1'" in text
    if path.stem == "featurize":
        assert "--dask_client_address=tcp://engine-1:8786" in tool.engine_arguments(manifests)
    else:
        (job,) = manifests
        assert job["spec"]["entrypoint"] == "python pipelines/tag.py --tags 's3://b/a tag'\"'\"'s table'"


def test_what_is_wrong_is_named(
    tool: ModuleType, pod: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(tool.main, []) == 2
    assert "usage: run_on_cluster.py MANIFEST SCRIPT" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"nothing\.yaml: cannot be read"):
        tool.read_manifests(tmp_path / "nothing.yaml", "e", COMMAND, pod)
    (tmp_path / "broken.yaml").write_text("kind: [")
    with pytest.raises(UsageError, match=r"broken\.yaml: "):
        tool.read_manifests(tmp_path / "broken.yaml", "e", COMMAND, pod)
    assert run_main(tool.main, [str(ENGINES[0]), "pipelines/tag.py"]) == 2
    assert "runs in a pod of Kubernetes" in capsys.readouterr().err
    monkeypatch.delenv("MUSICTAG_GPU_IMAGE")
    with pytest.raises(UsageError, match="needs the environment variable MUSICTAG_GPU_IMAGE"):
        tool.read_manifests(ROOT / "infra/overlays/aws/ray.yaml", "e", COMMAND, pod)
    with pytest.raises(UsageError, match="POD_NAME must name this pod"):
        tool.this_pod(None, "musictag")
