"""The engine with GPUs, of `overlays/aws`: where its pods are scheduled, and what is said while there is no GPU."""

import json

import pytest

from infra import cluster

ENGINE = cluster.ROOT / "infra/overlays/aws/ray.yaml"
SMALL = {
    "replicas: 4": "replicas: 1",
    "minReplicas: 4": "minReplicas: 1",
    "maxReplicas: 4": "maxReplicas: 1",
    'num-cpus: "8"': 'num-cpus: "1"',
    'cpu: "7", memory: 24Gi': "cpu: 100m, memory: 1536Mi",
    "memory: 28Gi": "memory: 4Gi",
    # The image with CUDA is not built here.
    "$GPU_IMAGE": "$IMAGE",
}
"""What makes the engine small enough for a cluster for tests."""
CAPACITY = {"status": {"capacity": {"nvidia.com/gpu": "8"}}}


@pytest.mark.torture
def test_pod_with_a_gpu_waits_with_a_word_for_a_node_that_has_one() -> None:
    text = ENGINE.read_text()
    for large, small in SMALL.items():
        assert large in text
        text = text.replace(large, small)
    engines = {"data": {"gpu.yaml": text}}
    cluster.kubectl("patch", "configmap", "musictag-engines", "--type=merge", "-p", json.dumps(engines))
    cluster.start(
        "gpu", "python", "infra/run_on_cluster.py", "/etc/musictag-engines/gpu.yaml",
        "pipelines/tag.py", "--features", "s3://music/features", "--tags", "s3://music/gpu-tags",
        "--model", "mtt-musicnn", "--use-gpu",
    )  # fmt: skip
    cluster.wait_for(
        lambda: "Insufficient nvidia.com/gpu" in cluster.kubectl("logs", "job/gpu", check=False), "a word", 180
    )
    node = cluster.objects("nodes")[-1]["metadata"]["name"]
    patch = ("patch", "node", node, "--subresource=status", "--type=merge", "-p")
    cluster.kubectl(*patch, json.dumps(CAPACITY))
    workers = "ray.io/node-type=worker"
    cluster.wait_for(
        lambda: [pod["spec"].get("nodeName") for pod in cluster.objects("pods", f"--selector={workers}")] == [node],
        "a pod on the node with GPUs", 60,
    )  # fmt: skip
    _, log = cluster.finish_night("gpu", 600)
    # The image of this test has no CUDA.
    assert "error: " in log
    assert "Traceback" not in log
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 180)
