"""Training on both nodes, evaluation and promotion; the next night tags with the champion, and a rollback goes back."""

import pytest
import s3fs

from infra import cluster
from infra.conftest import Library

PROMOTE = ("python", "pipelines/promote.py")


def test_champion_is_trained_on_both_nodes_and_tags_the_next_night(store: s3fs.S3FileSystem, library: Library) -> None:
    n_tracks = len([track for track in library.rows if store.exists(f"music/songs/{track}.flac")])
    assert n_tracks > 30, "test_nights has made the features"
    cluster.kubectl("create", "job", "--from=cronjob/retrain", "retrain-1")
    succeeded, log = cluster.finish_job("retrain-1", 900)
    assert succeeded, log
    assert "version 1 is the candidate" in log
    assert "version 1 is the champion: promoted: there is no champion yet" in log
    assert not store.glob("music/checkpoints/[0-9a-f]*"), "the checkpoints of a finished run are deleted"
    cluster.set_model("models:/musictag@champion")
    assert_tags_all(store, "night-champion", "models:/musictag/1")


def assert_tags_all(store: s3fs.S3FileSystem, night: str, model: str) -> None:
    """Run a night, which tags all tracks with a model."""
    succeeded, log = cluster.night(night, 900)
    assert succeeded, log
    assert f"by {model}" in log
    job = cluster.summary(store)["jobs"]["tag"]
    assert job["written"] == job["listed"]


def test_rollback_needs_a_champion_before(store: s3fs.S3FileSystem) -> None:
    succeeded, log = cluster.run_job("rollback-1", "python", "pipelines/promote.py", "--rollback")
    assert not succeeded
    assert "version 1 is the first champion: there is none before it to roll back to" in log


@pytest.mark.torture
def test_nights_tag_with_a_new_champion_and_after_a_rollback_with_the_one_before(store: s3fs.S3FileSystem) -> None:
    cluster.set_model("models:/musictag@champion")
    for name, command in (
        ("register-2", ["musictag", "register", "mtt-vgg"]),
        ("promote-2", [*PROMOTE, "--model", "models:/musictag/2", "--force", "--reason", "a try of the rollback"]),
    ):
        succeeded, log = cluster.run_job(name, *command)
        assert succeeded, log
    assert_tags_all(store, "night-2nd-champion", "models:/musictag/2")
    succeeded, log = cluster.run_job("rollback-2", *PROMOTE, "--rollback")
    assert succeeded, log
    assert_tags_all(store, "night-rolled-back", "models:/musictag/1")
