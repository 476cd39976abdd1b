"""Training on both nodes, evaluation and promotion; the next night tags with the champion, and a rollback goes back."""

import json

import s3fs

from infra import cluster
from infra.conftest import Library
from infra.test_nights import summary


def use_model(model: str) -> None:
    """Let the nights tag with a model."""
    settings = json.loads(cluster.kubectl("get", "configmap", "night", "--output=json"))
    text = settings["data"]["night.toml"].replace('model = "mtt-musicnn"', f'model = "{model}"')
    cluster.kubectl("patch", "configmap", "night", "--type=merge", "-p", json.dumps({"data": {"night.toml": text}}))


def run_in_a_pod_of_retrain(name: str, *command: str) -> tuple[bool, str]:
    """Run a command as infra/README.md says; return whether it succeeded, and its log."""
    made = cluster.kubectl("create", "job", "--from=cronjob/retrain", name, "--dry-run=client", "--output=json")
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": list(command)}]
    patched = cluster.kubectl(
        "patch", "--local", "--filename=-", "--type=json", "--output=json", f"--patch={json.dumps(patch)}", text=made
    )
    cluster.kubectl("create", "--filename=-", text=patched)
    return cluster.finish_night(name)


def test_champion_is_trained_on_both_nodes_and_tags_the_next_night(store: s3fs.S3FileSystem, library: Library) -> None:
    n_tracks = len([track for track in library.rows if store.exists(f"music/songs/{track}.flac")])
    assert n_tracks > 30, "test_nights has made the features"
    cluster.kubectl("create", "job", "--from=cronjob/retrain", "retrain-1")
    succeeded, log = cluster.finish_night("retrain-1", 900)
    assert succeeded, log
    assert "version 1 is the candidate" in log
    assert "version 1 is the champion: promoted: there is no champion yet" in log
    assert not store.glob("music/checkpoints/[0-9a-f]*"), "the checkpoints of a finished run are deleted"
    use_model("models:/musictag@champion")
    succeeded, log = cluster.night("night-champion", 900)
    assert succeeded, log
    assert "by models:/musictag/1" in log
    job = summary(store)["jobs"]["tag"]
    assert job["written"] == job["listed"]


def test_rollback_needs_a_champion_before(store: s3fs.S3FileSystem) -> None:
    succeeded, log = run_in_a_pod_of_retrain("rollback-1", "python", "pipelines/promote.py", "--rollback")
    assert not succeeded
    assert "version 1 is the first champion: there is none before it to roll back to" in log
