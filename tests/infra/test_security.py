"""Rights, open ports and keys of a deployment. The pods were looked into during the first night of test_nights."""

import json
import re
from pathlib import Path

import pytest
import s3fs
import yaml

from infra import cluster
from musictag.storage import tables

README = Path(__file__).parents[2] / "infra/README.md"
KEYS = ("only-for-a-try",)
"""The keys of the local overlay."""
OWN_RIGHTS = {
    # Every identity of a cluster may ask for its own rights.
    ("selfsubjectreviews.authentication.k8s.io", ("create",)),
    ("selfsubjectaccessreviews.authorization.k8s.io", ("create",)),
    ("selfsubjectrulesreviews.authorization.k8s.io", ("create",)),
}
NIGHTLY_RIGHTS = {
    ("deployments.apps", ("create", "delete", "get", "list")),
    ("services", ("create", "delete", "get", "list")),
    ("rayjobs.ray.io", ("create", "delete", "get", "list")),
    ("pods", ("get", "list")),
    ("pods/log", ("get",)),
}


@pytest.mark.parametrize(
    ("identity", "rights"), [("nightly", NIGHTLY_RIGHTS), ("worker", set()), ("mlflow", set()), ("default", set())]
)
def test_identities_have_the_rights_that_they_need(overlay: None, identity: str, rights: set[object]) -> None:
    user = f"system:serviceaccount:{cluster.NAMESPACE}:{identity}"
    found = set()
    for line in cluster.kubectl("auth", "can-i", "--list", "--no-headers", f"--as={user}").splitlines():
        resource, _, verbs = line.partition(" ")
        if resource and not resource.startswith("["):  # addresses of the API server, such as its version
            found.add((resource, tuple(sorted(verbs.rpartition("[")[2].rstrip("]").split()))))
    assert found - OWN_RIGHTS == rights
    for verb, resource in (("create", "pods/exec"), ("get", "secrets"), ("create", "pods"), ("patch", "configmaps")):
        assert cluster.kubectl("auth", "can-i", verb, resource, f"--as={user}", check=False).strip() != "yes"


def stated_ports() -> dict[str, set[int]]:
    """Return the ports that the README states, by the kind of pod; 20000-20999 means any of them."""
    section = README.read_text().partition("## Ports")[2].partition("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and (ports := re.findall(r"\d+(?: to \d+)?", cells[1])):
            ranges = [[int(end) for end in each.split(" to ")] for each in ports]
            found[cells[0].split("`")[1]] = {port for each in ranges for port in range(each[0], each[-1] + 1)}
    return found


def test_nothing_listens_on_a_port_that_is_not_stated(observed: dict[str, cluster.Observed]) -> None:
    assert observed, "test_nights has seen the pods of a night"
    stated = stated_ports()
    assert {"mlflow", "dask scheduler", "dask worker", "ray head", "ray worker"} <= stated.keys() <= observed.keys()
    for kind, seen in observed.items():
        assert seen.ports <= stated.get(kind, set()), kind
        assert seen.command_lines, kind
    for kind, ports in stated.items():
        assert ports & observed[kind].ports, kind
    assert observed["nightly"].ports == set()


def test_keys_are_in_no_command_line(observed: dict[str, cluster.Observed]) -> None:
    assert "musictag" in observed["nightly"].command_lines
    for kind, seen in observed.items():
        assert not any(key in seen.command_lines for key in KEYS), kind


def test_keys_are_in_no_log_event_or_object(overlay: None) -> None:
    kinds = "pods,jobs,cronjobs,deployments,statefulsets,services,rayjobs,rayclusters,events"
    text = cluster.kubectl("get", kinds, "--output=json")
    for pod in cluster.objects("pods"):
        for container in pod["spec"]["containers"]:
            text += cluster.kubectl("logs", pod["metadata"]["name"], f"--container={container['name']}", check=False)
    assert not any(key in text for key in KEYS)


def test_keys_are_in_no_table_report_or_run(store: s3fs.S3FileSystem) -> None:
    for table in ("features", "tags", "features-failures", "tags-failures"):
        uri = f"s3://music/{table}"
        if tables.table_exists(uri):
            schema = tables.open_table(uri).to_pyarrow_dataset().schema
            columns = [field.name for field in schema if str(field.type) in ("string", "list<element: string>")]
            assert not any(key in str(tables.read_columns(uri, columns).to_pylist()) for key in KEYS)
    texts = [
        path
        for bucket in ("music", "mlflow")
        for path, found in store.find(bucket, detail=True).items()
        if found["size"] and not path.endswith((".parquet", ".flac"))  # markers of folders are empty
    ]
    assert texts
    for path in texts:
        assert not any(key.encode() in store.cat(path) for key in KEYS), path
    dump = cluster.kubectl(
        "exec",
        "postgres-0",
        "--",
        "sh",
        "-c",
        "PGPASSWORD=$(cat /etc/postgres/password) pg_dump --host=127.0.0.1 --username=mlflow mlflow",
    )
    assert "CREATE TABLE public.runs" in dump
    assert not any(key in dump for key in KEYS)


def test_pod_that_is_not_restricted_is_refused(overlay: None) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "root", "image": "musictag:0.1"}]},
    }
    refused = cluster.kubectl("create", "--filename=-", text=json.dumps(pod), check=False)
    assert "violates PodSecurity" in refused


def test_manifests_hold_no_secret() -> None:
    """Apart from the overlay that is for a try, and says so."""
    rendered = cluster.kubectl("kustomize", str(cluster.ROOT / "infra/overlays/aws"))
    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(rendered)]
    assert "CronJob" in kinds
    assert "Secret" not in kinds
    example = yaml.safe_load((cluster.ROOT / "infra/overlays/aws/secret.example.yaml").read_text())
    assert example["stringData"] == {"database": "postgresql://USER:PASSWORD@HOST:5432/mlflow"}
