"""A cluster with the local overlay, as tests use it: by kubectl, and S3 by a forwarded port."""

import contextlib
import dataclasses
import json
import os
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import s3fs
from deltalake import DeltaTable

from musictag.storage import stores
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
    """Apply the local overlay; return each object with its version, which changes when the object does.

    This also undoes the patches of earlier tests.
    """
    output = kubectl(
        "apply", "--server-side", "--force-conflicts", "--kustomize", str(OVERLAY), "--validate=strict",
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
    return finish_job(name, seconds)


def start_night(name: str) -> None:
    kubectl("create", "job", "--from=cronjob/nightly", name)


def finish_job(name: str, seconds: float = 600) -> tuple[bool, str]:
    """Wait until a Job has ended; return whether it succeeded, and the log of its last pod."""
    ended: list[str] = []

    def is_ended() -> bool:
        conditions = json.loads(kubectl("get", "job", name, "--output=json"))["status"].get("conditions", [])
        ended[:] = [each["type"] for each in conditions if each["status"] == "True"]
        return "Complete" in ended or "Failed" in ended

    wait_for(is_ended, f"job {name}", seconds)
    pods = sorted(objects("pods", f"--selector=job-name={name}"), key=lambda pod: pod["metadata"]["creationTimestamp"])
    return "Complete" in ended, kubectl("logs", pods[-1]["metadata"]["name"]) if pods else ""


def setting(name: str) -> str:
    """Return a setting of the nights."""
    text = json.loads(kubectl("get", "configmap", "night", "--output=json"))["data"]["night.toml"]
    return str(tomllib.loads(text)[name])


def configure(old: str, new: str) -> None:
    """Replace a text in the settings of the nights, or in the script of a training."""
    files = json.loads(kubectl("get", "configmap", "night", "--output=json"))["data"]
    assert any(old in text for text in files.values())
    changed = {name: text.replace(old, new) for name, text in files.items()}
    kubectl("patch", "configmap", "night", "--type=merge", "-p", json.dumps({"data": changed}))


def set_model(model: str) -> None:
    """Let the nights tag with a model."""
    configure(f'model = "{setting("model")}"', f'model = "{model}"')


def summary(store: s3fs.S3FileSystem) -> dict[str, Any]:
    """Return the summary of the last night."""
    return dict(json.loads(store.cat("music/night/summary.json")))


def models_by_track() -> dict[str, str]:
    """Return the model that tagged each track of the tags table, as DuckDB reads it; no track is there twice."""
    tags = DeltaTable("s3://music/tags", storage_options=stores.delta_options("s3://music/tags"))
    with duckdb.connect() as connection:
        connection.register("tags", tags.to_pyarrow_dataset())
        rows = connection.execute("SELECT track_id, model FROM tags").fetchall()
    assert len(dict(rows)) == len(rows)
    return dict(rows)


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


def start_job(name: str, *command: str, patch: Sequence[Mapping[str, object]] = ()) -> None:
    """Start a command in a pod of its own, as infra/README.md says; `patch` are further changes of its Job."""
    made = kubectl("create", "job", "--from=cronjob/retrain", name, "--dry-run=client", "--output=json")
    arguments = {"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": list(command)}
    patches = json.dumps([arguments, *patch])
    patched = kubectl(
        "patch", "--local", "--filename=-", "--type=json", "--output=json", f"--patch={patches}", text=made
    )
    kubectl("create", "--filename=-", text=patched)


def run_job(
    name: str, *command: str, patch: Sequence[Mapping[str, object]] = (), seconds: float = 600
) -> tuple[bool, str]:
    """Run a command in a pod of its own; return whether it succeeded, and its log."""
    start_job(name, *command, patch=patch)
    return finish_job(name, seconds)


@dataclasses.dataclass
class Observed:
    """Ports and command lines of the pods of one kind."""

    ports: set[int] = dataclasses.field(default_factory=set)
    """Ports on which they listened, not only for themselves."""
    command_lines: str = ""
    """The command lines of their processes."""


KINDS = ("app.kubernetes.io/name", "musictag/role")
"""Labels that tell pods of one kind from those of another."""


def observe(seen: dict[str, Observed]) -> None:
    """Look into all running pods, and add to what was seen of their kinds."""
    for pod in objects("pods", "--field-selector=status.phase=Running"):
        labels = pod["metadata"].get("labels", {})
        kind = " ".join(labels[label] for label in KINDS if label in labels)
        name = pod["metadata"]["name"]
        look = "cat /proc/net/tcp /proc/net/tcp6; echo; echo ---; cat /proc/[0-9]*/cmdline"
        # A pod may end meanwhile; the tests check that something was seen of each kind.
        connections, _, command_lines = kubectl("exec", name, "--", "sh", "-c", look, check=False).partition("---")
        of_kind = seen.setdefault(kind, Observed())
        of_kind.ports |= _listening(connections)
        of_kind.command_lines += command_lines


def _listening(table: str) -> set[int]:
    """Return the ports of a table of connections of Linux that are open to other hosts."""
    ports = set()
    for line in table.splitlines():
        fields = line.split()
        # "0A" is the state of a socket that listens; addresses are hexadecimal, in the byte order of the machine.
        if len(fields) > 3 and fields[3] == "0A":
            address, _, port = fields[1].partition(":")
            is_local = address.endswith("7F") or address == "0" * 24 + "01000000"
            if not is_local:
                ports.add(int(port, 16))
    return ports


def is_available() -> str | None:
    """Return why no test can run here, or None."""
    if "KUBECONFIG" not in os.environ:
        return "KUBECONFIG names no cluster (see infra/README.md)"
    try:
        done = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "kubectl is not installed"
    return None if done.returncode == 0 else f"the cluster of KUBECONFIG does not answer: {done.stderr.strip()}"
