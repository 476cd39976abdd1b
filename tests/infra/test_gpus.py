"""An engine with GPUs: where its pods are scheduled, and what is said while there is no GPU."""

import json
from collections.abc import Iterator

import pytest

from infra import cluster

CAPACITY = {"status": {"capacity": {"nvidia.com/gpu": "8"}}}


@pytest.fixture
def with_gpus() -> Iterator[None]:
    """Let Ray have one worker, with a GPU."""
    set_workers(1, gpus=1)
    yield
    set_workers(2, gpus=0)


def set_workers(n: int, gpus: int) -> None:
    data = {"data": {"MUSICTAG_RAY_WORKERS": str(n), "MUSICTAG_RAY_WORKER_GPUS": str(gpus)}}
    cluster.kubectl("patch", "configmap", "musictag", "--type=merge", "-p", json.dumps(data))


@pytest.mark.torture
@pytest.mark.usefixtures("with_gpus")
def test_pod_with_a_gpu_waits_for_a_node_that_has_one_and_says_so() -> None:
    cluster.start_job(
        "gpu", "python", "infra/run_on_cluster.py", "/etc/musictag-engines/tag.yaml",
        "pipelines/tag.py", "--features", "s3://music/features", "--tags", "s3://music/gpu-tags",
        "--model", "mtt-musicnn", "--use-gpu",
    )  # fmt: skip
    cluster.wait_for(
        lambda: "Insufficient nvidia.com/gpu" in cluster.kubectl("logs", "job/gpu", check=False), "the reason", 180
    )
    node = cluster.objects("nodes")[-1]["metadata"]["name"]
    patch = ("patch", "node", node, "--subresource=status", "--type=merge", "-p")
    cluster.kubectl(*patch, json.dumps(CAPACITY))
    workers = "app.kubernetes.io/name=ray,musictag/role=worker"
    cluster.wait_for(
        lambda: [pod["spec"].get("nodeName") for pod in cluster.objects("pods", f"--selector={workers}")] == [node],
        "a pod on the node with GPUs", 60,
    )  # fmt: skip
    _, log = cluster.finish_job("gpu", 600)
    # The image of this test has no CUDA.
    assert "error: device cuda was requested, but torch finds no GPU here" in log
    assert "Traceback" not in log
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 180)
