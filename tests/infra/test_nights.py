"""Nights on a cluster: Dask featurizes, Ray tags, and both are gone afterwards. The tests build on each other."""

import json
import time

import s3fs

from infra import cluster
from infra.conftest import Library
from musictag.jobs import maintenance

N_TRACKS = 40


def test_overlay_that_is_applied_again_changes_nothing(overlay: None) -> None:
    first = cluster.apply()
    assert len(first) > 20
    assert cluster.apply() == first


def test_typo_in_a_manifest_is_refused(overlay: None) -> None:
    text = cluster.kubectl("kustomize", str(cluster.OVERLAY))
    for right, wrong in (
        ("concurrencyPolicy", "concurencyPolicy"),
        ("readOnlyRootFilesystem", "readonlyRootFilesystem"),
    ):
        assert right in text
        refused = cluster.kubectl(
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            text=text.replace(right, wrong),
            check=False,
        )
        assert "not declared in schema" in refused
        assert wrong in refused


def test_first_night_featurizes_and_tags_on_both_nodes(
    store: s3fs.S3FileSystem, library: Library, observed: dict[str, cluster.Observed]
) -> None:
    library.add(*(f"track-{n}" for n in range(N_TRACKS)))
    library.write()
    assert len(library.rows) == N_TRACKS, "the tests need a namespace that no test has used"
    cluster.start_night("night-1")
    nodes: dict[str, set[str]] = {"dask": set(), "ray": set()}

    def are_seen() -> bool:
        cluster.observe(observed)
        time.sleep(5)  # to look costs the machine time
        for pod in cluster.objects("pods"):
            labels = pod["metadata"].get("labels", {})
            name, role = labels.get("app.kubernetes.io/name"), labels.get("musictag/role")
            if name in nodes and role == "worker" and pod["spec"].get("nodeName"):
                nodes[name].add(pod["spec"]["nodeName"])
        job = json.loads(cluster.kubectl("get", "job", "night-1", "--output=json"))
        return bool(job["status"].get("conditions"))

    cluster.wait_for(are_seen, "night-1", 900)
    succeeded, log = cluster.finish_job("night-1")
    assert succeeded, log
    assert {name: len(on) for name, on in nodes.items()} == {"dask": 2, "ray": 2}
    night = cluster.summary(store)
    for job in ("featurize", "tag"):
        assert (night["jobs"][job]["listed"], night["jobs"][job]["written"]) == (N_TRACKS, N_TRACKS), log
    assert set(cluster.models_by_track()) == set(library.rows)
    for table in ("features", "tags"):
        assert maintenance.verify(f"s3://music/{table}").problems == ()


def test_engines_are_gone_after_a_night(overlay: None) -> None:
    cluster.wait_for(lambda: not cluster.engines(), "the end of the engines", 120)


def test_second_night_starts_no_engine(store: s3fs.S3FileSystem) -> None:
    started = time.monotonic()
    succeeded, log = cluster.night("night-2")
    assert succeeded, log
    assert time.monotonic() - started < 90
    assert [job["was_needed"] for job in cluster.summary(store)["jobs"].values()] == [False, False]
    assert "running" not in log


def test_new_changed_and_vanished_tracks_are_accounted_for(store: s3fs.S3FileSystem, library: Library) -> None:
    library.add(f"track-{N_TRACKS}", f"track-{N_TRACKS + 1}")
    library.add("track-3", seed=1)
    library.remove("track-5")
    store.rm("music/songs/track-6.flac")
    library.write()
    succeeded, log = cluster.night("night-3", 900)
    assert succeeded, log
    job = cluster.summary(store)["jobs"]["featurize"]
    assert (job["listed"], job["written"], job["failed"]) == (N_TRACKS + 1, 3, 1), log
    assert job["failed_by_error"] == {"AudioMissingError": 1}
    assert set(cluster.models_by_track()) >= set(library.rows) - {"track-6"}
    library.add("track-6")
