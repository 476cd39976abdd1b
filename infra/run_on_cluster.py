"""Run a script on an engine that exists only as long as it is needed; started by a pod of Kubernetes.

python infra/run_on_cluster.py MANIFEST SCRIPT [ARGUMENT...]

MANIFEST is a YAML file. In it, $ENGINE is replaced by a new name, so that two nights have engines of their own; $IMAGE
by the image of this pod; and any other $NAME by the environment variable MUSICTAG_NAME. Without MUSICTAG_RAY_IMAGE,
$RAY_IMAGE is the image of this pod, too.

If it holds a RayJob, the script is its entrypoint. Otherwise its Deployments are waited for, and the script runs in
this pod, with the arguments of the annotation musictag/arguments added. Then everything is deleted. This pod, which
POD_NAME names, owns the objects: if it is deleted, Kubernetes deletes them. If it is killed and its object stays, the
next night deletes them. The exit code is that of the script; of a RayJob it is 0 or 1.
"""

import contextlib
import os
import secrets
import shlex
import string
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes
import yaml
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from urllib3.exceptions import HTTPError

from musictag.errors import UsageError, WorkerLostError
from musictag.jobs.commands import run_command
from musictag.jobs.entry_point import run_main
from musictag.jobs.progress import echo
from musictag.storage.retry import wait_for_store

Manifest = dict[str, Any]

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
START_LIMIT_S = 1800.0
"""Time in which the pods of an engine must start: machines may have to be added, and fetch an image of gigabytes."""
REPORT_S = 60.0
"""Time after which a run says again why its engine has not started."""
POLL_S = 2.0
API_LIMIT_S = 300.0
"""Time for which an API server that does not answer is asked again."""
LOG_LIMIT_S = 10.0
"""Time for which the end of a log is waited for."""
LOST_HEAD = "the head of the Ray cluster does not answer any more"
CLIENT_ERRORS = {
    "ConnectionError: Failed to connect to Ray": LOST_HEAD,
    "RuntimeError: WebSocket connection closed unexpectedly": LOST_HEAD,
    "ValueError: Job with submission_id": "Ray has the job already: its client lost the connection and asked again",
}
"""Errors by which Ray's client ends if it loses the head of its cluster, and what they mean."""
CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
"""Lines between the tracebacks of an error and of its cause."""
REPEATED_LOG = ", last available logs"
"""Text before the end of a log in messages of Ray and KubeRay about a job that failed."""
ENDED = ("Complete", "Failed")
"""States of a RayJob that has ended."""
KINDS = (("apps/v1", "Deployment"), ("v1", "Service"), ("ray.io/v1", "RayJob"))
"""Kinds of the objects of engines."""
PREFIX = "MUSICTAG_"
"""Prefix of the environment variables that are put into manifests."""
ENGINE = "musictag/engine"
"""Label with the name of an engine."""
ARGUMENTS = "musictag/arguments"
"""Annotation with the arguments by which a script finds the engine."""


class Pod(NamedTuple):
    """The pod of this process."""

    name: str
    uid: str
    image: str


def main(argv: list[str]) -> int:
    """Create the engine, run the script, delete the engine; return the exit code of the script."""
    if len(argv) < 2:
        raise UsageError("usage: run_on_cluster.py MANIFEST SCRIPT [ARGUMENT...]")
    path, *command = argv
    name = f"{Path(path).stem}-{secrets.token_hex(3)}"
    try:
        kubernetes.config.load_incluster_config()
    except kubernetes.config.ConfigException as error:
        raise UsageError(f"run_on_cluster.py runs in a pod of Kubernetes, with an identity: {error}") from error
    namespace = NAMESPACE_FILE.read_text().strip()
    with api_errors("the API server"):
        client = DynamicClient(kubernetes.client.ApiClient())
    manifests = read_manifests(Path(path), name, command, this_pod(client, namespace))
    delete_orphans(client, namespace)
    with created(client, namespace, manifests):
        for manifest in manifests:
            if manifest["kind"] == "RayJob":
                return wait_for_ray_job(client, namespace, manifest["metadata"]["name"])
        for manifest in manifests:
            if manifest["kind"] == "Deployment":
                wait_for_deployment(client, namespace, manifest["metadata"]["name"])
        return run_command([sys.executable, *command, *engine_arguments(manifests)])


def this_pod(client: DynamicClient, namespace: str) -> Pod:
    """Return the pod that POD_NAME names."""
    name = os.environ.get("POD_NAME")
    if not name:
        raise UsageError("POD_NAME must name this pod, which owns the engine")
    pods = client.resources.get(api_version="v1", kind="Pod")
    found = ask(lambda: pods.get(name=name, namespace=namespace), f"pod {name}")
    # There may be other containers, for example of a service mesh.
    (image,) = {
        container.image
        for container in found.spec.containers
        if any(variable.name == "POD_NAME" for variable in container.env or [])
    }
    return Pod(name, found.metadata.uid, image)


def read_manifests(path: Path, name: str, command: Sequence[str], pod: Pod) -> list[Manifest]:
    """Return the objects of an engine, which `pod` owns; a RayJob gets the command as its entrypoint.

    Args:
        path: the file of the manifests.
        name: name of the engine.
        command: the script and its arguments.
        pod: the pod of this process.
    """
    settings = {
        variable.removeprefix(PREFIX): value for variable, value in os.environ.items() if variable.startswith(PREFIX)
    }
    values = {"RAY_IMAGE": pod.image, **settings, "ENGINE": name, "IMAGE": pod.image}
    try:
        text = string.Template(path.read_text()).substitute(values)
        manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise UsageError(f"{path}: needs the environment variable {PREFIX}{error.args[0]}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}") from error
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
    for manifest in manifests:
        manifest["metadata"]["ownerReferences"] = [owner]
        manifest["metadata"].setdefault("labels", {})[ENGINE] = name
        if manifest["kind"] == "RayJob":
            manifest["spec"]["entrypoint"] = shlex.join(["python", *command])
    return manifests


def engine_arguments(manifests: Sequence[Manifest]) -> list[str]:
    """Return the arguments by which a script finds the engine."""
    return [
        argument
        for manifest in manifests
        for argument in shlex.split(manifest["metadata"].get("annotations", {}).get(ARGUMENTS, ""))
    ]


@contextlib.contextmanager
def created(client: DynamicClient, namespace: str, manifests: Sequence[Manifest]) -> Iterator[None]:
    """Create objects, and delete them after the body."""
    try:
        for manifest in manifests:
            resource = resource_of(client, manifest)
            with api_errors(f"{manifest['kind']} {manifest['metadata']['name']}"):
                made = resource.create(body=manifest, namespace=namespace)
            if manifest["kind"] == "RayJob" and not made.spec.rayClusterSpec.authOptions:
                echo(
                    "this KubeRay has no token authentication (before 1.5.1): only network policies protect Ray's ports"
                )
        yield
    finally:
        for manifest in reversed(manifests):
            delete(client, namespace, manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def delete(client: DynamicClient, namespace: str, api_version: str, kind: str, name: str) -> None:
    """Delete an object; if that fails, say so. The next night deletes it (`delete_orphans`)."""
    resource = client.resources.get(api_version=api_version, kind=kind)
    try:
        ask(lambda: resource.delete(name=name, namespace=namespace, propagation_policy="Background"), f"{kind} {name}")
    except WorkerLostError as error:
        if not (isinstance(error.__cause__, ApiException) and error.__cause__.status == HTTPStatus.NOT_FOUND):
            echo(f"not deleted: {error}")


def delete_orphans(client: DynamicClient, namespace: str) -> None:
    """Delete the engines whose pod has ended without deleting them, for example because memory ran out."""
    engines = []
    for api_version, kind in KINDS:
        resource = client.resources.get(api_version=api_version, kind=kind)
        with api_errors(kind):
            engines += resource.get(namespace=namespace, label_selector=ENGINE).items
    # After the engines: the pod of each engine that exists now is among these pods.
    pods = client.resources.get(api_version="v1", kind="Pod")
    with api_errors("pods"):
        running = {
            pod.metadata.uid
            for pod in pods.get(namespace=namespace).items
            if pod.status.phase not in ("Failed", "Succeeded")
        }
    for each in engines:
        owners = {owner.uid for owner in each.metadata.ownerReferences or []}
        if owners and not owners & running:
            echo(f"{each.kind} {each.metadata.name}: deleted, because the pod that made it has ended")
            delete(client, namespace, each.apiVersion, each.kind, each.metadata.name)


def resource_of(client: DynamicClient, manifest: Manifest) -> Any:
    """Return the client of a kind of objects."""
    return client.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])


@contextlib.contextmanager
def api_errors(subject: str) -> Iterator[None]:
    """Raise an error of Kubernetes in the body as one sentence."""
    try:
        yield
    except ApiException as error:
        raise WorkerLostError(f"{subject}: Kubernetes refuses it: {error.reason}: {error.body}") from error
    except HTTPError as error:
        raise WorkerLostError(f"{subject}: the API server of Kubernetes does not answer: {error}") from error


def ask(fn: Callable[[], Any], subject: str) -> Any:
    """Call `fn`, which asks the API server; ask again for some minutes while it does not answer, or is overloaded."""

    def is_gone(error: Exception) -> bool:
        return isinstance(error, HTTPError) or (isinstance(error, ApiException) and (error.status or 0) >= 500)

    with api_errors(subject):
        return wait_for_store(fn, is_gone, API_LIMIT_S)


def wait_for_start(subject: str, is_started: Callable[[], bool], reason: Callable[[], str]) -> None:
    """Wait until an engine has started; say each minute why it has not. Raises `WorkerLostError` after the limit."""
    started = time.monotonic()
    next_report = started + REPORT_S
    while not is_started():
        now = time.monotonic()
        if now > started + START_LIMIT_S:
            raise WorkerLostError(f"{subject}: has not started after {START_LIMIT_S:g} s: {reason()}")
        if now > next_report:
            echo(f"{subject}: has not started yet: {reason()}")
            next_report = now + REPORT_S
        time.sleep(POLL_S)


def wait_for_deployment(client: DynamicClient, namespace: str, name: str) -> None:
    """Wait until all pods of a Deployment are ready."""
    deployments = client.resources.get(api_version="apps/v1", kind="Deployment")

    def get() -> Any:
        return ask(lambda: deployments.get(name=name, namespace=namespace), f"Deployment {name}")

    def is_started() -> bool:
        found = get()
        return bool((found.status.readyReplicas or 0) >= found.spec.replicas)

    def reason() -> str:
        found = get()
        selector = ",".join(f"{key}={value}" for key, value in found.spec.selector.matchLabels.to_dict().items())
        n_ready, why = found.status.readyReplicas or 0, pending_reason(client, namespace, selector)
        return f"{n_ready} of {found.spec.replicas} pods are ready: {why}"

    wait_for_start(f"Deployment {name}", is_started, reason)


def wait_for_ray_job(client: DynamicClient, namespace: str, name: str) -> int:
    """Wait until a RayJob ends, and print its log meanwhile; return 0 if it succeeded, else 1."""
    jobs = client.resources.get(api_version="ray.io/v1", kind="RayJob")
    subject = f"RayJob {name}"

    def status() -> Any:
        return ask(lambda: jobs.get(name=name, namespace=namespace), subject).status or {}

    ended = threading.Event()
    log = threading.Thread(target=print_log, args=(client, namespace, f"job-name={name}", ended), daemon=True)
    log.start()
    wait_for_start(
        subject,
        lambda: status().get("jobDeploymentStatus") in ("Running", *ENDED),
        lambda: pending_reason(client, namespace, f"{ENGINE}={name}"),
    )
    while (found := status()).get("jobDeploymentStatus") not in ENDED:
        time.sleep(POLL_S)
    ended.set()
    log.join(LOG_LIMIT_S)
    if found.get("jobDeploymentStatus") == "Complete" and found.get("jobStatus") == "SUCCEEDED":
        return 0
    message, _, _ = (found.get("message") or "see its log").partition(REPEATED_LOG)
    reason = f"{found.get('reason') or found.get('jobStatus')}: {message}"
    echo(f"{subject}: {reason}; what is committed stays, and the next run goes on")
    return 1


def print_log(client: DynamicClient, namespace: str, selector: str, ended: threading.Event) -> None:
    """Print the logs of the pods with a label as they are written, one after another, until `ended` is set."""
    api = kubernetes.client.CoreV1Api()
    pods = client.resources.get(api_version="v1", kind="Pod")
    seen: set[str] = set()
    is_last = False
    while not is_last:
        is_last = ended.wait(POLL_S)
        with reported_errors():
            for pod in pods.get(namespace=namespace, label_selector=selector).items:
                if pod.metadata.name not in seen and pod.status.phase != "Pending":
                    seen.add(pod.metadata.name)
                    lines = kubernetes.watch.Watch().stream(
                        api.read_namespaced_pod_log, name=pod.metadata.name, namespace=namespace
                    )
                    for line in readable(lines):
                        sys.stdout.write(f"{line}\n")
                        sys.stdout.flush()


def readable(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of the log of Ray's client.

    A traceback of `CLIENT_ERRORS` becomes one sentence, and the end of the job's log, which the client prints
    again after its failure, is left out.
    """
    traceback: list[str] = []
    for line in lines:
        is_in_traceback = traceback and (
            not line.strip(" .") or line.startswith((" ", *CHAINED)) or traceback[-1].startswith(" ")
        )
        if is_in_traceback or line.startswith("Traceback"):
            traceback.append(line)
            continue
        yield from _shown(traceback)
        traceback = []
        line, _, is_repeated = line.partition(REPEATED_LOG)
        yield line
        if is_repeated:
            return
    yield from _shown(traceback)


def _shown(traceback: list[str]) -> list[str]:
    """Return what is shown of the lines of a traceback."""
    for start, meaning in CLIENT_ERRORS.items():
        if any(line.startswith(start) for line in traceback):
            return [meaning]
    return traceback


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Print an error of Kubernetes in the body: a log that breaks off must not end a run."""
    try:
        yield
    except (ApiException, HTTPError) as error:
        echo(f"the log of the job broke off, or cannot be read: {error}")


def pending_reason(client: DynamicClient, namespace: str, selector: str) -> str:
    """Return why the pods with a label do not start, in the scheduler's words."""
    pods = client.resources.get(api_version="v1", kind="Pod")
    for pod in ask(lambda: pods.get(namespace=namespace, label_selector=selector), "pods").items:
        for condition in pod.status.conditions or []:
            if condition.status == "False" and condition.message:
                return f"pod {pod.metadata.name}: {condition.message}"
    return "look at the events of its pods"


if __name__ == "__main__":
    sys.exit(run_main(main))
