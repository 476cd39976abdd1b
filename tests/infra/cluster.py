"""A cluster with the local overlay, as tests use it: by kubectl, and S3 by a forwarded port."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from object_stores import answers, free_port

ROOT = Path(__file__).parents[2]
NAMESPACE = "musictag"
OVERLAY = ROOT / "infra/overlays/local"


def kubectl(*arguments: str, text: str | None = None, check: bool = True) -> str:
    """Run kubectl in the namespace; return its output."""
    command = ["kubectl", "--namespace", NAMESPACE, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout if done.returncode == 0 else done.stderr


def objects(kind: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return list(json.loads(kubectl("get", kind, "--output=json", *arguments))["items"])


def wait_for(condition: Callable[[], object], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {seconds:g} s\n{describe_pods()}")
        time.sleep(1)


def describe_pods() -> str:
    """Return the pods, the last events and the ends of the logs, for the message of a failed test."""
    pods = kubectl("get", "pods", "--output=wide", check=False)
    events = kubectl("get", "events", "--sort-by=.lastTimestamp", check=False).splitlines()[-30:]
    logs = [
        f"--- {pod['metadata']['name']}\n{kubectl('logs', pod['metadata']['name'], '--tail=30', check=False)}"
        for pod in objects("pods")
    ]
    return "\n".join([pods, *events, *logs])


def apply() -> list[tuple[str, str]]:
    """Apply the local overlay; return each object with its version, which changes when the object does."""
    output = kubectl(
        "apply", "--server-side", "--kustomize", str(OVERLAY), "--validate=strict",
        "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}",
    )  # fmt: skip
    return [(name, version) for name, _, version in (line.partition(" ") for line in output.splitlines())]


def wait_until_ready(seconds: float = 240) -> None:
    """Wait until the services of the overlay are ready."""
    for name in ("statefulset/s3", "statefulset/postgres", "deployment/mlflow"):
        done = kubectl("rollout", "status", name, f"--timeout={seconds:g}s", check=False)
        assert "successfully" in done or "complete" in done or "roll out complete" in done, f"{done}\n{describe_pods()}"


@contextlib.contextmanager
def forwarded(target: str, port: int) -> Iterator[int]:
    """Forward a port of this machine to one of a pod; yield it."""
    local = free_port()
    command = ["kubectl", "--namespace", NAMESPACE, "port-forward", target, f"{local}:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(local), f"port-forward to {target}", 60)
        yield local
    finally:
        process.kill()
        process.wait()


def night(name: str, seconds: float = 600) -> tuple[bool, str]:
    """Start a night now; return whether its Job succeeded, and the log of its last pod."""
    start_night(name)
    return finish_night(name, seconds)


def start_night(name: str) -> None:
    kubectl("create", "job", "--from=cronjob/nightly", name)


def finish_night(name: str, seconds: float = 600) -> tuple[bool, str]:
    """Wait until the Job of a night has ended; return whether it succeeded, and the log of its last pod."""
    ended: list[str] = []

    def is_ended() -> bool:
        conditions = json.loads(kubectl("get", "job", name, "--output=json"))["status"].get("conditions", [])
        ended[:] = [each["type"] for each in conditions if each["status"] == "True"]
        return "Complete" in ended or "Failed" in ended

    wait_for(is_ended, f"job {name}", seconds)
    pods = sorted(objects("pods", f"--selector=job-name={name}"), key=lambda pod: pod["metadata"]["creationTimestamp"])
    return "Complete" in ended, kubectl("logs", pods[-1]["metadata"]["name"]) if pods else ""


def engines() -> list[str]:
    """Return the names of what exists only while a night runs."""
    return [
        f"{kind}/{each['metadata']['name']}"
        for kind in ("rayjobs.ray.io", "rayclusters.ray.io", "deployments", "services", "pods")
        for each in objects(kind)
        if each["metadata"].get("labels", {}).get("musictag/engine")
        or each["metadata"].get("labels", {}).get("ray.io/cluster")
        or each["metadata"]["name"].startswith(("featurize-", "tag-", "train-"))
    ]


def is_available() -> str | None:
    """Return why no test can run here, or None."""
    if "KUBECONFIG" not in os.environ:
        return "KUBECONFIG names no cluster (see infra/README.md)"
    try:
        done = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "kubectl is not installed"
    return None if done.returncode == 0 else f"the cluster of KUBECONFIG does not answer: {done.stderr.strip()}"
