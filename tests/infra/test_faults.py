"""One fault a night: the night goes on, or the next one heals; no track is lost, and none is there twice.

Those marked `torture` run with `make torture-infra` alone. The environment variable NODE_LINK holds the command that
cuts a node off: it is called with the number of a node, in the order of the names, and `down` or `up`.
"""

import contextlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from deltalake import DeltaTable

from infra import cluster
from infra.conftest import Library
from musictag.jobs import maintenance
from musictag.storage import stores

N_TRACKS = 100
MODELS = ("mtt-musicnn", "msd-musicnn")
DASK_WORKERS = "app.kubernetes.io/name=dask,musictag/role=worker"
RAY_WORKERS = "app.kubernetes.io/name=ray,musictag/role=worker"
RAY_HEAD = "musictag/role=head"
CHECKPOINTS = "music/checkpoints/[0-9a-f]*/checkpoint_[0-9]*"
RELAY = Path(__file__).parents[1] / "unavailable_store.py"
IS_UNAVAILABLE = "/tmp/is-unavailable"  # noqa: S108 # in a pod


@pytest.fixture(autouse=True)
def healed(store: s3fs.S3FileSystem, library: Library) -> Iterator[None]:
    """After each fault, the next night finishes the work, every track is tagged once, and nothing is left."""
    add_tracks(library, N_TRACKS)
    yield
    succeeded, log = cluster.night(f"heals-{time.time():.0f}", 900)
    assert succeeded, log
    jobs = cluster.summary(store)["jobs"].values()
    assert [(job["failed"], job.get("deferred", 0)) for job in jobs] == [(0, 0), (0, 0)], log
    models = cluster.models_by_track()
    assert models.keys() >= library.rows.keys()
    assert {models[track] for track in library.rows} == {models[next(iter(library.rows))]}
    assert cluster.setting("model") in (models[next(iter(library.rows))], "models:/musictag@champion")
    for table in ("features", "tags"):
        assert maintenance.verify(f"s3://music/{table}").problems == ()
    assert staged(store, "features") == staged(store, "tags") == []
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 180)


def add_tracks(library: Library, n_tracks: int) -> None:
    first = 1_000 + len(library.rows)
    # Without tags, so that a training does not take longer with each fault.
    library.add(*(f"track-{n}" for n in range(first, first + n_tracks)), are_tagged=False)
    library.write()


def staged(store: s3fs.S3FileSystem, table: str) -> list[str]:
    """Return the parts that workers have written and that are not committed."""
    return [path for path in store.find(f"music/{table}/_staged") if path.count("/") > 4]


def running_pods(selector: str) -> list[str]:
    """Return the running pods with a label."""
    pods = cluster.objects("pods", f"--selector={selector}", "--field-selector=status.phase=Running")
    return [pod["metadata"]["name"] for pod in pods]


def kill(pod: str) -> None:
    cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")


def wait_for_features(store: s3fs.S3FileSystem) -> None:
    """Wait until the night that runs has featurized some tracks."""
    cluster.wait_for(lambda: staged(store, "features"), "a part that is featurized", 300)


def prepare_tag(name: str) -> None:
    """Let the next night do nothing but tag all tracks, with another model."""
    succeeded, log = cluster.night(f"{name}-features", 900)
    assert succeeded, log
    cluster.set_model(next(each for each in MODELS if each != cluster.setting("model")))


def wait_for_tags(version: int) -> None:
    """Wait until the night that runs has tagged some tracks, which makes a later version of the table."""
    cluster.wait_for(lambda: table_version("tags") > version, "a commit of tags", 300)


def table_version(table: str) -> int:
    uri = f"s3://music/{table}"
    return DeltaTable(uri, storage_options=stores.delta_options(uri)).version()


def start_tag(name: str) -> None:
    """Start a night that tags all tracks, and wait until some are tagged."""
    prepare_tag(name)
    version = table_version("tags")
    cluster.start_night(name)
    wait_for_tags(version)


def assert_ends_well_or_in_a_sentence(name: str, seconds: float = 900) -> str:
    """Wait for the end of a Job; if it failed, its log says why without a traceback. Return the log."""
    succeeded, log = cluster.finish_job(name, seconds)
    # Shown by pytest -s.
    print(f"{name}: {'succeeded' if succeeded else 'failed'}\n{log}")  # noqa: T201
    assert "Traceback" not in log
    assert succeeded or "error: " in log
    return log


def test_worker_of_dask_that_is_killed(store: s3fs.S3FileSystem) -> None:
    cluster.start_night("dask-killed")
    wait_for_features(store)
    kill(running_pods(DASK_WORKERS)[0])
    assert_ends_well_or_in_a_sentence("dask-killed")


@pytest.mark.torture
def test_head_of_ray_that_is_killed() -> None:
    start_tag("head-killed")
    kill(running_pods(RAY_HEAD)[0])
    assert_ends_well_or_in_a_sentence("head-killed")


# The kernel kills the process with the highest score when the container is over its limit: here the worker, not this.
FILL_MEMORY = """
for process in /proc/[0-9]*; do [ $process = /proc/$$ ] || echo 1000 > $process/oom_score_adj; done
exec python -c 'b"x" * (3 << 30)'
"""


@pytest.mark.torture
def test_worker_of_dask_over_its_memory_limit(store: s3fs.S3FileSystem) -> None:
    cluster.start_night("dask-memory")
    wait_for_features(store)
    pod = running_pods(DASK_WORKERS)[0]
    cluster.kubectl("exec", pod, "--", "sh", "-c", FILL_MEMORY, check=False)
    cluster.wait_for(lambda: "OOMKilled" in cluster.kubectl("get", "pod", pod, "--output=json"), "OOMKilled", 30)
    assert_ends_well_or_in_a_sentence("dask-memory")


@pytest.mark.torture
def test_worker_of_ray_that_is_killed() -> None:
    start_tag("ray-killed")
    kill(running_pods(RAY_WORKERS)[0])
    assert_ends_well_or_in_a_sentence("ray-killed")


@contextlib.contextmanager
def cut_off(node: str) -> Iterator[None]:
    """Cut a node off the network while the body runs."""
    number = str(nodes().index(node) + 1)
    command = shlex.split(os.environ["NODE_LINK"])
    subprocess.run([*command, number, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, number, "up"], check=True)
        cluster.wait_for(lambda: is_ready(node), f"{node} is ready", 120)


def nodes() -> list[str]:
    return sorted(node["metadata"]["name"] for node in cluster.objects("nodes"))


def is_ready(node: str) -> bool:
    conditions = json.loads(cluster.kubectl("get", "node", node, "--output=json"))["status"]["conditions"]
    return ("Ready", "True") in {(each["type"], each["status"]) for each in conditions}


@pytest.fixture
def other_node() -> str:
    """A node on which S3 does not run."""
    if "NODE_LINK" not in os.environ:
        pytest.skip("NODE_LINK names no command that cuts a node off")
    busy = json.loads(cluster.kubectl("get", "pod", "s3-0", "--output=json"))["spec"]["nodeName"]
    return next(node for node in nodes() if node != busy)


def start_night_outside(node: str, name: str) -> None:
    """Start a night whose own pod, unlike its engines, is not on a node."""
    cluster.kubectl("cordon", node)
    try:
        cluster.start_night(name)
        cluster.wait_for(lambda: running_pods(f"job-name={name}"), "the pod of the night", 60)
    finally:
        cluster.kubectl("uncordon", node)


@pytest.mark.torture
def test_node_that_is_cut_off_in_featurize(store: s3fs.S3FileSystem, other_node: str) -> None:
    start_night_outside(other_node, "cut-featurize")
    wait_for_features(store)
    with cut_off(other_node):
        time.sleep(60)
    assert_ends_well_or_in_a_sentence("cut-featurize")


@pytest.mark.torture
def test_node_that_is_cut_off_in_tag(other_node: str) -> None:
    prepare_tag("cut-tag")
    version = table_version("tags")
    start_night_outside(other_node, "cut-tag")
    wait_for_tags(version)
    with cut_off(other_node):
        time.sleep(60)
    assert_ends_well_or_in_a_sentence("cut-tag")


@pytest.fixture
def relay() -> Iterator[str]:
    """The name of a pod through which all requests to S3 go."""
    cluster.kubectl("create", "configmap", "s3-relay", f"--from-file={RELAY}")
    address = json.loads(cluster.kubectl("get", "pod", "s3-0", "--output=json"))["status"]["podIP"]
    mlflow = json.loads(cluster.kubectl("get", "deployment", "mlflow", "--output=json"))["spec"]["template"]["spec"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # By the first label, jobs may reach this pod; by the second, it may reach S3.
        "metadata": {"name": "s3-relay", "labels": {"app.kubernetes.io/name": "s3", "musictag/relay": "yes"}},
        "spec": {
            **{key: mlflow[key] for key in ("automountServiceAccountToken", "securityContext")},
            "volumes": [*mlflow["volumes"], {"name": "relay", "configMap": {"name": "s3-relay"}}],
            "containers": [
                {
                    "name": "relay",
                    "image": "musictag:0.1",
                    "command": ["python", "/relay/unavailable_store.py", "8333", address, "8333", IS_UNAVAILABLE],
                    "securityContext": mlflow["containers"][0]["securityContext"],
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                        {"name": "relay", "mountPath": "/relay"},
                    ],
                }
            ],
        },
    }
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "s3-relay"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "s3"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"musictag/relay": "yes"}}}]}],
        },
    }
    for manifest in (pod, policy):
        cluster.kubectl("create", "--filename=-", text=json.dumps(manifest))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/s3-relay", "--timeout=60s")
    select_s3({"musictag/relay": "yes"})
    yield "s3-relay"
    select_s3({"musictag/relay": None})
    for kind in ("pod", "networkpolicy", "configmap"):
        cluster.kubectl("delete", kind, "s3-relay")


def select_s3(labels: dict[str, str | None]) -> None:
    """Let the service of S3 lead to the pods that have these labels, too."""
    cluster.kubectl("patch", "service", "s3", "--type=merge", "-p", json.dumps({"spec": {"selector": labels}}))


@pytest.mark.torture
def test_store_that_answers_503_for_ten_seconds(store: s3fs.S3FileSystem, relay: str) -> None:
    cluster.start_night("store-503")
    wait_for_features(store)
    version = table_version("tags")
    make_unavailable(relay)
    wait_for_tags(version)
    make_unavailable(relay)
    succeeded, log = cluster.finish_job("store-503", 900)
    assert succeeded, log
    assert [job["failed"] for job in cluster.summary(store)["jobs"].values()] == [0, 0], log


def make_unavailable(relay: str) -> None:
    """Let S3 answer 503 for ten seconds, in which something asks it."""
    n_before = cluster.kubectl("logs", relay).count("503")
    cluster.kubectl("exec", relay, "--", "touch", IS_UNAVAILABLE)
    time.sleep(10)
    cluster.kubectl("exec", relay, "--", "rm", IS_UNAVAILABLE)
    assert cluster.kubectl("logs", relay).count("503") > n_before


@pytest.fixture
def long_training() -> Iterator[None]:
    """Let a training take some more epochs."""
    cluster.configure("--epochs 6", "--epochs 14")
    yield
    cluster.configure("--epochs 14", "--epochs 6")


def start_training(store: s3fs.S3FileSystem, name: str) -> None:
    """Start a training with the features of the night before, and wait until it has ended an epoch."""
    succeeded, log = cluster.night(f"{name}-features", 900)
    assert succeeded, log
    cluster.kubectl("create", "job", "--from=cronjob/retrain", name)
    cluster.wait_for(lambda: store.glob(CHECKPOINTS), "a checkpoint", 300)


@pytest.mark.torture
@pytest.mark.usefixtures("long_training")
def test_database_that_is_restarted_in_training(store: s3fs.S3FileSystem) -> None:
    start_training(store, "database-restarted")
    kill("postgres-0")
    _, log = cluster.finish_job("database-restarted", 900)
    assert "is the candidate" in log, log
    assert not store.glob(CHECKPOINTS)


@pytest.mark.torture
@pytest.mark.usefixtures("long_training")
def test_training_goes_on_when_the_head_of_ray_is_killed(store: s3fs.S3FileSystem) -> None:
    start_training(store, "training-head-killed")
    kill(running_pods(RAY_HEAD)[0])
    _, log = cluster.finish_job("training-head-killed", 900)
    assert "continuing the interrupted run" in log, log
    assert "is the candidate" in log, log
    assert not store.glob(CHECKPOINTS)


def test_engines_of_a_deleted_pod_end() -> None:
    cluster.start_night("night-deleted")
    cluster.wait_for(lambda: running_pods(DASK_WORKERS), "a worker of Dask", 240)
    cluster.kubectl("delete", "pod", "--selector=job-name=night-deleted", "--grace-period=0", "--force")
    succeeded, _ = cluster.finish_job("night-deleted", 300)
    assert not succeeded
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 180)


@pytest.mark.torture
def test_engine_of_a_pod_that_is_killed_and_stays_is_deleted_by_the_next_night() -> None:
    cluster.start_night("night-killed")
    cluster.wait_for(lambda: running_pods(DASK_WORKERS), "a worker of Dask", 240)
    (pod,) = running_pods("job-name=night-killed")
    cluster.kubectl("exec", pod, "--", "sh", "-c", "kill -9 -1", check=False)  # all but process 1, tini
    succeeded, _ = cluster.finish_job("night-killed", 120)
    assert not succeeded
    assert cluster.engines()
    succeeded, log = cluster.night("night-after-killed", 900)
    assert succeeded, log
    assert "deleted, because the pod that made it has ended" in log


@pytest.mark.torture
def test_two_nights_at_once() -> None:
    for name in ("night-a", "night-b"):
        cluster.start_night(name)
    for name in ("night-a", "night-b"):
        succeeded, log = cluster.finish_job(name, 900)
        assert succeeded, log
