"""The manifests of engines are filled in, and what is wrong is named; `tests/infra` runs them on a cluster."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from musictag.errors import UsageError
from musictag.jobs.entry_point import run_main

ROOT = Path(__file__).parents[1]
ENGINES = sorted(ROOT.glob("infra/base/engines/*.yaml"))
OVERLAYS = sorted(ROOT.glob("infra/overlays/*/kustomization.yaml"))
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
def pod(tool: ModuleType) -> Any:
    """The pod of a night."""
    return tool.Pod("night-1", "u", "registry/musictag:1")


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.parent.name)
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment that an overlay gives to the pod of a night."""
    maps = yaml.safe_load(request.param.read_text())["configMapGenerator"]
    literals = next(each["literals"] for each in maps if each["name"] == "musictag")
    found = dict(literal.split("=", 1) for literal in literals)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.stem)
def test_objects_of_an_engine_have_its_name_and_belong_to_the_pod(
    tool: ModuleType, pod: Any, settings: dict[str, str], path: Path
) -> None:
    manifests = tool.read_manifests(path, "engine-1", COMMAND, pod)
    assert {manifest["metadata"]["ownerReferences"][0]["name"] for manifest in manifests} == {"night-1"}
    assert all(manifest["metadata"]["name"].startswith("engine-1") for manifest in manifests)
    text = str(manifests)
    assert "$" not in text
    if path.stem == "featurize":
        assert "'image': 'registry/musictag:1'" in text
        assert manifests[2]["spec"]["replicas"] == int(settings["MUSICTAG_DASK_WORKERS"])
        assert "--dask_client_address=tcp://engine-1:8786" in tool.engine_arguments(manifests)
    else:
        (job,) = manifests
        assert f"'image': '{settings.get('MUSICTAG_RAY_IMAGE', 'registry/musictag:1')}'" in text
        assert job["spec"]["entrypoint"] == "python pipelines/tag.py --tags 's3://b/a tag'\"'\"'s table'"
        (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        assert group["replicas"] == int(settings["MUSICTAG_RAY_WORKERS"])
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == int(settings["MUSICTAG_RAY_WORKER_GPUS"])


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
    monkeypatch.delenv("MUSICTAG_DASK_WORKERS", raising=False)
    with pytest.raises(UsageError, match="needs the environment variable MUSICTAG_DASK_WORKERS"):
        tool.read_manifests(ROOT / "infra/base/engines/featurize.yaml", "e", COMMAND, pod)
    with pytest.raises(UsageError, match="POD_NAME must name this pod"):
        tool.this_pod(None, "musictag")


def test_traceback_about_a_lost_head_is_one_sentence(tool: ModuleType) -> None:
    lost = """\
tag: 12 of 40
Traceback (most recent call last):
  File "/opt/musictag/bin/ray", line 8, in <module>
    sys.exit(main())
socket.gaierror: [Errno -2] Name or service not known

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "sdk.py", line 300, in _check
    raise ConnectionError(
ConnectionError: Failed to connect to Ray at address: http://head:8265.
the end"""
    sentence = "the head of the Ray cluster does not answer any more"
    assert list(tool.readable(lost.splitlines())) == ["tag: 12 of 40", sentence, "the end"]
    bug = lost.replace("Failed to connect to Ray at address", "a bug of ours")
    assert list(tool.readable(bug.splitlines())) == bug.splitlines()


def test_traceback_about_a_job_that_is_submitted_again_is_one_sentence(tool: ModuleType) -> None:
    again = """\
tag: running
Traceback (most recent call last):
  File "/opt/musictag/bin/ray", line 8, in <module>
    sys.exit(main())
RuntimeError: Request failed with status code 500: Traceback (most recent call last):
  File "job_head.py", line 148, in submit_job_internal
    await self._raise_error(resp)
ValueError: Job with submission_id tag-1 already exists. Please use a different submission_id.
.
.
the end"""
    sentence = "Ray has the job already: its client lost the connection and asked again"
    assert list(tool.readable(again.splitlines())) == ["tag: running", sentence, "the end"]


def test_log_of_a_job_that_failed_is_not_repeated(tool: ModuleType) -> None:
    lines = ["tag: 3 of 3", "error: 3 of 3 tracks failed", "ERR cli.py:75 -- Job 'tag-1' failed"]
    repeated = ["Status message: Job failed with exit code 1, last available logs (truncated to 20,000 chars):", *lines]
    assert list(tool.readable([*lines, *repeated])) == [*lines, "Status message: Job failed with exit code 1"]
