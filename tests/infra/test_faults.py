"""One fault a night: the night goes on, or the next one heals; no track is lost, and none is there twice."""

import s3fs

from infra import cluster
from infra.conftest import Library
from infra.test_nights import tagged_tracks
from musictag.jobs import maintenance

N_TRACKS = 60


def add_tracks(library: Library) -> None:
    first = 1_000 + len(library.rows)
    library.add(*(f"track-{n}" for n in range(first, first + N_TRACKS)))
    library.write()


def running_pods(selector: str) -> list[str]:
    """Return the running pods with a label."""
    pods = cluster.objects("pods", f"--selector={selector}", "--field-selector=status.phase=Running")
    return [pod["metadata"]["name"] for pod in pods]


def check(library: Library, store: s3fs.S3FileSystem) -> None:
    """Check that every track with audio is tagged once, that the tables are whole and that no engine is left."""
    present = {track for track in library.rows if store.exists(f"music/songs/{track}.flac")}
    assert tagged_tracks() >= present
    for table in ("features", "tags"):
        assert maintenance.verify(f"s3://music/{table}").problems == ()
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 180)


def test_engines_of_a_deleted_pod_end_and_the_next_night_heals(store: s3fs.S3FileSystem, library: Library) -> None:
    add_tracks(library)
    cluster.start_night("night-deleted")
    cluster.wait_for(lambda: running_pods("musictag/role=worker"), "a worker of Dask", 240)
    cluster.kubectl("delete", "pod", "--selector=job-name=night-deleted", "--grace-period=0", "--force")
    succeeded, _ = cluster.finish_night("night-deleted", 300)
    assert not succeeded
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 180)
    succeeded, log = cluster.night("night-after", 900)
    assert succeeded, log
    check(library, store)


def test_two_nights_at_once_leave_each_track_once(store: s3fs.S3FileSystem, library: Library) -> None:
    add_tracks(library)
    for name in ("night-a", "night-b"):
        cluster.start_night(name)
    for name in ("night-a", "night-b"):
        succeeded, log = cluster.finish_night(name, 900)
        assert succeeded, log
    check(library, store)
