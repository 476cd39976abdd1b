import collections
import contextlib
import io
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import sample_tables
from musictag.engines import mlflow_registry, mlflow_runs, ray_scoring
from musictag.engines.ray_cluster import connect, task_errors
from musictag.errors import ModelError
from musictag.features import extract
from musictag.features.limits import Limits
from musictag.features.table import SCHEMA, open_features
from musictag.jobs.output import Output
from musictag.jobs.plan_files import Task, TaskList
from musictag.storage import commits, rewrite, tables
from musictag.tagging.table import TAGS_SCHEMA, ModelIdentity
from processes import committing_often

# Operators that need all rows before they return the first, or that move rows between tasks by key.
SHUFFLES = re.compile(r"AllToAll|Shuffle|Sort|Repartition|Aggregate|GroupBy|Join|Zip", re.IGNORECASE)
ALL = 50


def add_champion(home, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    mlflow_runs.connect()
    with mlflow_runs.start_run("made", {}, {}) as run_id:
        uri = mlflow_runs.log_model(run_id, folder)
    version = mlflow_registry.register(mlflow_registry.fetch(uri))
    mlflow_registry.set_alias(version, "champion")
    return version


def last_line(ended):
    """Return the last line of a successful run."""
    code, out, err = ended
    assert code == 0, err
    assert "Traceback" not in err
    return out.splitlines()[-1]


def rows_of(uri):
    columns = [field.name for field in tables.open_table(str(uri)).schema().fields]
    rows = tables.read_columns(str(uri), columns).to_pylist()
    assert max(collections.Counter(row["track_id"] for row in rows).values(), default=0) <= 1
    return {row["track_id"]: row for row in rows}


@pytest.fixture(scope="module")
def tagged(home, corpus, artifacts):
    """The tags table of a first run; tests must not change it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert add_champion(home, artifacts["trained"], monkeypatch) == "1"
    last = last_line(home.run("tag.py", "--features", corpus.features, "--tags", home.folder / "tags"))
    assert last.startswith("50 listed = 50 written + 0 unchanged + 0 failed (")
    return home.folder / "tags"


@pytest.fixture
def tags(tagged, tmp_path):
    """A copy of the tags table."""
    return shutil.copytree(tagged, tmp_path / "tags")


def test_every_track_is_tagged_by_the_champion(tagged, corpus):
    rows = rows_of(tagged)
    assert set(rows) == tables.track_ids(str(corpus.features))
    held = tables.read_columns(
        str(corpus.features), ("track_id", "audio_etag", "audio_sha256", "feature_hash", "n_clips")
    )
    for feature in held.to_pylist():
        row = rows[feature["track_id"]]
        assert {name: row[name] for name in feature} == feature
        assert (row["model"], row["model_version"]) == ("musictag", "1")
        assert row["tags"] == sorted(row["tags"], key=lambda tag: -tag["score"])
        above = {tag for tag, score in zip(corpus.vocabulary, row["scores"], strict=True) if score > 0.4}
        assert {tag["tag"] for tag in row["tags"]} == above


def test_most_tags_are_right(tagged, corpus):
    rows = rows_of(tagged)
    truth = corpus.targets("test")
    right = [np.array(rows[track]["scores"]) > 0.4 for track in truth] == np.array(list(truth.values()))
    assert right.mean() > 0.75


def test_second_run_tags_nothing(home, call, corpus, tags):
    version = tables.version(str(tags))
    last = last_line(call(home, "tag", "--features", corpus.features, "--tags", tags, "--model", "models:/musictag/1"))
    assert last.startswith("50 listed = 0 written + 50 unchanged + 0 failed (")
    assert tables.version(str(tags)) == version


def test_nothing_to_tag_imports_no_engine_and_no_torch(home, corpus, tags):
    options = ("--features", corpus.features, "--tags", tags, "--model", "models:/musictag/1")
    code, out, err = home.run("tag.py", *options, PYTHONPROFILEIMPORTTIME="1")
    assert code == 0
    assert "50 unchanged" in out
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "duckdb" in imported
    assert not {"torch", "ray", "apache_beam"} & imported


def test_model_that_cannot_be_read_ends_the_run_before_ray_starts(home, call, corpus, artifacts, tmp_path, monkeypatch):
    broken = shutil.copytree(artifacts["fresh"], tmp_path / "broken")
    (broken / "weights.safetensors").write_bytes(b"not weights")
    monkeypatch.setattr(ray_scoring.ray_cluster, "connect", None)
    code, _, err = call(home, "tag", "--features", corpus.features, "--tags", tmp_path / "tags", "--model", broken)
    assert (code, err.count("\n")) == (1, 1)
    assert "weights.safetensors cannot be read" in err


def test_changed_track_is_tagged_again(home, call, corpus, tags, tmp_path):
    uri = str(shutil.copytree(corpus.features, tmp_path / "features"))
    before = rows_of(tags)
    track_uri = before["track-07"]["uri"]
    # The file of track 7 now holds the audio of track 8.
    changed = extract.featurize("track-07", before["track-08"]["uri"], extract.FeatureConfig())
    sample_tables.delete_tracks(uri, ["track-07"])
    commits.append_rows(uri, SCHEMA, [{**changed, "uri": track_uri}])
    sample_tables.delete_tracks(str(tags), ["track-06"])  # deltalake rewrites the file of its features
    last = last_line(call(home, "tag", "--features", uri, "--tags", tags, "--model", "models:/musictag/1"))
    assert last.startswith("50 listed = 2 written + 48 unchanged + 0 failed (")
    after = rows_of(tags)
    assert after["track-07"]["audio_etag"] == changed["audio_etag"] != before["track-07"]["audio_etag"]
    np.testing.assert_allclose(after["track-07"]["scores"], before["track-08"]["scores"], atol=1e-6)
    np.testing.assert_allclose(after["track-06"]["scores"], before["track-06"]["scores"], atol=1e-6)
    others = before.keys() - {"track-06", "track-07"}
    assert {track: after[track] for track in others} == {track: before[track] for track in others}


def test_tags_from_audio_equal_tags_from_features(home, call, corpus, tagged, tmp_path):
    lines = corpus.catalog.read_text().splitlines()
    (tmp_path / "broken.wav").write_text("this is no audio")
    listing = [lines[0], *(line.replace(",track-", f",{corpus.folder}/track-", 1) for line in lines[1:18])]
    (tmp_path / "catalog.csv").write_text("\n".join([*listing, "broken,broken.wav,,,"]) + "\n")
    tags = tmp_path / "tags"
    options = ("--catalog", tmp_path / "catalog.csv", "--tags", tags, "--model", "models:/musictag/1")
    last = last_line(call(home, "tag", *options))
    assert last.startswith("18 listed = 17 written + 0 unchanged + 1 failed (")
    from_features, from_audio = rows_of(tagged), rows_of(tags)
    assert set(from_audio) == {f"track-{n:02d}" for n in range(17)}
    for track, row in from_audio.items():
        np.testing.assert_allclose(row["scores"], from_features[track]["scores"], atol=1e-4)
        assert row["audio_sha256"] == from_features[track]["audio_sha256"]
    (failure,) = rows_of(f"{tags}-failures").values()
    assert (failure["track_id"], failure["error"], failure["attempts"]) == ("broken", "AudioUnsupportedError", 1)
    assert "broken.wav" in failure["message"]
    assert {path.parent.name for path in tmp_path.rglob("_delta_log")} == {"tags", "tags-failures"}  # No features.

    # The same audio at other places is not decoded again.
    moved = shutil.copytree(corpus.folder, tmp_path / "moved", ignore=shutil.ignore_patterns("features*"))
    moved_listing = [line.replace(f",{corpus.folder}/", f",{moved}/") for line in listing]
    (tmp_path / "catalog.csv").write_text("\n".join(moved_listing) + "\n")
    ended = call(home, "tag", *options)
    assert "with the audio of an earlier row: 17 tracks" in ended[1]
    assert last_line(ended).startswith("17 listed = 17 written + 0 unchanged + 0 failed (")
    for track, row in rows_of(tags).items():
        assert row["uri"].startswith(str(moved))
        assert row["scores"] == from_audio[track]["scores"]
        assert row["tagged_at"] > from_audio[track]["tagged_at"]


MODEL = ModelIdentity("musictag", "1", "digest")


def test_nothing_is_shuffled(corpus, artifacts, ray_cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)  # a second Ray in this process would stop the first as it ends
    track_ids = tables.track_ids(str(corpus.features))
    tasks = TaskList.of([Task(track_id, "", None) for track_id in track_ids], 1)
    with connect(num_cpus=1):
        of_features = ray_scoring.from_features(tasks, str(corpus.features), 0.0)
        output = Output("tags", TAGS_SCHEMA, "tagged_at", MODEL.digest)
        of_audio = ray_scoring.from_audio(tasks, extract.FeatureConfig(), None, Limits(), output)
        scored = (of_features, of_audio, of_features.random_shuffle())
        *plans, shuffled = (plan(ray_scoring.score_rows(rows, MODEL, artifacts["fresh"], None, 1)) for rows in scored)
        assert SHUFFLES.search(shuffled)
        assert SHUFFLES.search(plan(of_features.groupby("track_id").count()))
    for text in plans:
        assert "MapBatches" in text
        assert not SHUFFLES.search(text), text


def test_all_cpus_read_for_an_actor_with_a_gpu(corpus, artifacts, ray_cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    tasks = TaskList.of([Task(track_id, "", None) for track_id in tables.track_ids(str(corpus.features))], 1)
    fused = re.compile(r"read_shards\)?->MapBatches\(ScoringActor\)")
    with connect(num_cpus=1):
        rows = ray_scoring.from_features(tasks, str(corpus.features), 0.0)
        for gpu_tracks, is_fused in ((16, False), (None, True)):
            text = plan(ray_scoring.score_rows(rows, MODEL, artifacts["fresh"], gpu_tracks, 1))
            assert bool(fused.search(text)) == is_fused, text


def test_error_of_an_actor_that_cannot_load_its_model_is_raised_as_it_is(
    corpus, artifacts, ray_cluster, monkeypatch, tmp_path
):
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    listed = tables.scan(str(corpus.features), ("track_id", tables.FILE)).read_all().to_pylist()
    tasks = TaskList.of([Task(row["track_id"], "", None, features_file=row[tables.FILE]) for row in listed], 1)
    shutil.copytree(artifacts["fresh"], tmp_path / "broken")
    (tmp_path / "broken/tagger.json").write_text("{}")

    def score():
        rows = ray_scoring.from_features(tasks, str(corpus.features), 0.0)
        with task_errors():
            list(ray_scoring.score_rows(rows, MODEL, tmp_path / "broken", None, 1).iter_batches())

    with connect(num_cpus=1), pytest.raises(ModelError, match=r"tagger\.json"):
        score()


def plan(rows):
    """Return the logical and physical plans of a dataset as text."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        rows.explain()
    return text.getvalue()


def test_killed_run_is_finished_by_the_next(home, call, corpus, tagged, script, tmp_path):
    copy = committing_often(Path(script("tag").__file__), tmp_path, block_tracks=1)
    tags = tmp_path / "tags"
    options = ("--features", corpus.features, "--tags", tags, "--model", "models:/musictag/1")
    process = home.start(copy, *options)
    try:
        second_commit = tags / "_delta_log" / f"{2:020d}.json"  # the first one created the table
        deadline = time.monotonic() + 180
        while not second_commit.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    before = rows_of(tags)
    assert 2 <= len(before) < ALL
    last = last_line(call(home, "tag", *options))
    assert last.startswith(f"50 listed = {ALL - len(before)} written + {len(before)} unchanged + 0 failed (")
    after = rows_of(tags)
    assert set(after) == set(rows_of(tagged))
    assert {track: after[track] for track in before} == before


def test_model_of_other_features_is_refused_before_ray_starts(home, corpus, tagged, call, artifacts, tmp_path):
    uri = str(tmp_path / "features")
    other = extract.FeatureConfig(n_mels=64)
    open_features(uri, other, None)
    code, _, err = call(home, "tag", "--features", uri, "--tags", tmp_path / "tags", "--model", "models:/musictag/1")
    assert code == 1
    assert other.feature_hash in err
    assert extract.FeatureConfig().feature_hash in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "tags").exists()


def test_newest_features_of_a_track_are_tagged_although_their_file_holds_earlier_ones(
    home, call, corpus, tags, tmp_path
):
    uri = str(shutil.copytree(corpus.features, tmp_path / "features"))
    before = rows_of(tags)
    # Featurizing changed audio was killed before it removed the earlier row, and compaction joined the files.
    changed = extract.featurize("track-07", before["track-08"]["uri"], extract.FeatureConfig())
    commits.append_rows(uri, SCHEMA, [{**changed, "uri": before["track-07"]["uri"]}])
    rewrite.compact(uri)
    assert len(tables.files(uri)) == 1
    last = last_line(call(home, "tag", "--features", uri, "--tags", tags, "--model", "models:/musictag/1"))
    assert last.startswith("50 listed = 1 written + 49 unchanged + 0 failed (")
    np.testing.assert_allclose(rows_of(tags)["track-07"]["scores"], before["track-08"]["scores"], atol=1e-6)


def test_damaged_features_end_the_run_with_an_error(home, call, corpus, tags, tmp_path):
    uri = shutil.copytree(corpus.features, tmp_path / "features")
    path = sorted(uri.glob("part-*.parquet"))[0]
    groups = pq.read_metadata(path)
    column = groups.row_group(0).column(groups.schema.to_arrow_schema().get_field_index("clips"))
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    sample_tables.delete_tracks(str(tags), tables.track_ids(str(tags)))
    code, _, err = call(home, "tag", "--features", uri, "--tags", tags, "--model", "models:/musictag/1")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: table {uri}/{path.name}: could not verify page integrity, ")
    assert "Traceback" not in err


def counted(out):
    """Return (now, gain, lose, then) by tag from the table that --diff prints."""
    rows = re.findall(r"^(\S+) +(\d+) +(\d+) +(\d+) +(\d+) +[\d.]+%$", out, re.MULTILINE)
    return {tag: tuple(map(int, numbers)) for tag, *numbers in rows}


def given(rows):
    return {track: {tag["tag"] for tag in row["tags"]} for track, row in rows.items()}


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_new_champion_changes_what_its_diff_predicted(home, call, corpus, artifacts, tags, tmp_path, monkeypatch):
    version = add_champion(home, artifacts["fresh"], monkeypatch)
    before, files = rows_of(tags), files_of(tmp_path)
    options = ("--features", corpus.features, "--tags", tags)
    code, out, err = call(home, "tag", *options, "--diff")
    assert code == 0, err
    assert files_of(tmp_path) == files
    assert f"{tags}: 50 tracks, tagged by musictag 1 (50); 50 of them are in {corpus.features}" in out
    assert out.splitlines()[-1].endswith("of these tracks; nothing was written")

    assert last_line(call(home, "tag", *options)).startswith("50 listed = 50 written + 0 unchanged + 0 failed (")
    after = rows_of(tags)
    assert set(after) == set(before)
    assert {row["model_version"] for row in after.values()} == {version}
    assert all(after[track]["scores"] != before[track]["scores"] for track in after)
    old, new = given(before), given(after)
    expected = {
        tag: (
            sum(tag in old[track] for track in old),
            sum(tag in new[track] - old[track] for track in old),
            sum(tag in old[track] - new[track] for track in old),
            sum(tag in new[track] for track in old),
        )
        for tag in corpus.vocabulary
    }
    assert counted(out) == expected
    n_changed = sum(old[track] != new[track] for track in old)
    assert n_changed > 0
    assert f"{n_changed} of 50 sampled tracks ({n_changed / 50:.1%}) would change" in out


def test_version_of_a_new_mlflow_store_is_another_model(own_home, call, corpus, artifacts, tags, monkeypatch, capsys):
    """`tags` was written by version 1 of another store; here, version 1 is another model, and 2 is the same."""
    before, options = rows_of(tags), ("--features", corpus.features, "--tags", tags)
    assert add_champion(own_home, artifacts["fresh"], monkeypatch) == "1"
    code, out, err = call(own_home, "tag", *options)
    assert code == 0, err
    assert "50 to tag by models:/musictag/1: 50 by another model" in out
    after = rows_of(tags)
    assert all(after[track]["scores"] != before[track]["scores"] for track in before)
    assert add_champion(own_home, artifacts["trained"], monkeypatch) == "2"
    assert last_line(call(own_home, "tag", *options)).startswith("50 listed = 50 written + 0 unchanged + 0 failed (")
    assert {track: row["scores"] for track, row in rows_of(tags).items()} == pytest.approx(
        {track: pytest.approx(row["scores"]) for track, row in before.items()}
    )
    assert add_champion(own_home, artifacts["trained"], monkeypatch) == "3"  # another label of the same model
    assert last_line(call(own_home, "tag", *options)).startswith("50 listed = 0 written + 50 unchanged + 0 failed (")


def test_diff_from_audio_skips_failures_and_names_tags_of_one_model(home, call, corpus, artifacts, tags, tmp_path):
    folder = shutil.copytree(artifacts["trained"], tmp_path / "renamed")
    described = (folder / "tagger.json").read_text()
    (folder / "tagger.json").write_text(described.replace('"clicks"', '"bells"'))
    (tmp_path / "broken.wav").write_text("this is no audio")
    (tmp_path / "catalog.csv").write_text(
        f"track_id,uri\ntrack-00,broken.wav\ntrack-01,{corpus.folder}/track-01.wav\nelsewhere,broken.wav\n"
    )
    files = files_of(tmp_path)
    options = ("--catalog", tmp_path / "catalog.csv", "--tags", tags, "--model", folder, "--diff", "20")
    code, out, err = call(home, "tag", *options)
    assert code == 0, err
    assert files_of(tmp_path) == files
    assert "50 tracks, tagged by musictag 1 (50); 2 of them are in" in out
    assert re.search(r"1 of 2 sampled tracks failed and are left out, such as: .*broken\.wav", out)
    assert "Tags that only the new model knows (1): bells." in out
    assert "Tags that only the old model knows (1): clicks." in out
    had = given(rows_of(tags))["track-01"]
    expected = {tag: (int(tag in had), 0, 0, int(tag in had)) for tag in ("noise", "quiet", "tone")}
    assert {tag: numbers for tag, numbers in counted(out).items() if tag in expected} == expected
    clicks = int("clicks" in had)
    assert (counted(out)["clicks"], counted(out)["bells"]) == ((clicks, 0, clicks, 0), (0, clicks, 0, clicks))


def test_vocabulary_of_a_deleted_model_is_empty_with_a_message(home, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    mlflow_runs.connect()
    assert mlflow_registry.vocabulary_of("musictag", "99") == ()
    assert capsys.readouterr().out.startswith("musictag 99 is gone (model models:/musictag/99: ")


def test_diff_without_tags_is_refused(home, corpus, tagged, call, tmp_path):
    options = ("--model", "models:/musictag/1", "--diff")
    code, _, err = call(home, "tag", "--features", corpus.features, "--tags", tmp_path / "none", *options)
    assert (code, err) == (2, f"error: --diff compares with tags, and {tmp_path / 'none'} holds none: "
                              "name another table with --tags, or run without --diff first\n")  # fmt: skip
    (tmp_path / "catalog.csv").write_text("track_id,uri\nelsewhere,broken.wav\n")
    code, _, err = call(home, "tag", "--catalog", tmp_path / "catalog.csv", "--tags", tagged, *options)
    assert code == 2
    assert f"{tagged} and {tmp_path / 'catalog.csv'} have no track in common" in err
    assert {path.name for path in tmp_path.iterdir()} == {"catalog.csv"}
