"""Files that version 0.1 wrote (tests/fixtures/version_0_1) are still read, and tables and stores can be added to."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

import sample_tables
from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.catalog.validation import PROBLEMS_SCHEMA
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import ModelError
from musictag.evaluation import results
from musictag.features import table as features_table
from musictag.features.config import FeatureConfig
from musictag.features.table import decode_clips, feature_config
from musictag.jobs import ledger, maintenance
from musictag.jobs.plan import load_listed, make_plan
from musictag.models.artifact import load_model
from musictag.storage import queries, tables
from musictag.tagging.scorers import SCORE_COLUMNS
from musictag.tagging.table import load_rows
from musictag.tagging.tagger import Tagger
from musictag.training import checkpoints, loop
from musictag.training.config import TrainingConfig

pytestmark = pytest.mark.slow

FIXTURE = Path(__file__).parent / "fixtures" / "version_0_1"
FEATURE_HASH = "fe981f109277f9a9"
TRACKS = {f"track-{number}" for number in range(1, 12)}
VOCABULARY = ("flöte", "noise")
NETWORK_RUN, SVM_RUN = "cfb96f3f161340ab9bfef9b1c6ebc204", "a7f330962e514bc98457fa411c7ccf89"
# Files and rows of each table, as it was when it was written.
TABLES = {
    "features": (3, 11),
    "features-failures": (2, 3),
    "features-splits": (1, 6),
    "tags": (1, 11),
    "tags-failures": (2, 3),
    "baseline-tags": (1, 11),
    "baseline-tags-failures": (0, 0),
}


@pytest.fixture
def old(tmp_path):
    """A copy of the old files, which a test may change."""
    return shutil.copytree(FIXTURE, tmp_path / "old")


@pytest.fixture
def store(old, monkeypatch):
    """The folder of the old files with the old MLflow store, to which MLflow is connected."""
    sql = (old / "mlflow.sql").read_text(encoding="utf-8").replace("{ROOT}", str(old))
    with contextlib.closing(sqlite3.connect(old / "mlflow.db")) as database:
        database.executescript(sql)
    monkeypatch.chdir(old)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old}/mlflow.db")
    mlflow_runs.connect()
    return old


def rows_of(uri, version=None):
    """All rows of a table by track."""
    names = [field.name for field in tables.open_table(str(uri), version).schema().fields]
    found = tables.read_rows(str(uri), names, tables.track_ids(str(uri), version), version)
    return {row["track_id"]: row for row in found}


def model_folder(root, run_id):
    return root / "mlartifacts" / run_id / "artifacts" / "model"


def test_old_features_are_read(old):
    rows = rows_of(old / "features")
    assert rows.keys() == TRACKS
    assert {row["feature_hash"] for row in rows.values()} == {FEATURE_HASH}
    assert {track_id for track_id, row in rows.items() if row["n_clips"] == 2} == {"track-3", "track-10"}
    assert rows["track-3"]["duration_s"] == 3.5
    assert rows["track-3"]["start_s"] == pytest.approx([0, 2.992])
    assert rows["track-3"]["uri"].endswith("/data/demo/track-3.wav")
    assert rows["track-3"]["audio_sha256"] == "1777efb27932e2f2d7675651028334ddee3922c8cac650a99b673ace9f3cd495"


def test_old_cells_hold_the_same_clips(old):
    row = rows_of(old / "features")["track-3"]
    clips = decode_clips(row["clips"], FeatureConfig())
    assert clips.shape == (2, 187, 96)
    np.testing.assert_allclose(clips[0, 100, [0, 10, 50, 95]], [2.002, 2.1191, 1.2949, 2.3652], atol=1e-3)
    assert not clips[1, 40:].any()  # silence after the end of the track


def test_old_feature_settings_equal_the_current_ones(old):
    config = feature_config(tables.open_table(str(old / "features")))
    assert config == FeatureConfig()
    assert config.feature_hash == FEATURE_HASH


@pytest.mark.parametrize("name", TABLES)
def test_old_table_is_verified(name, old):
    found = maintenance.verify(str(old / name))
    assert found.problems == ()
    assert (found.n_files, found.n_rows) == TABLES[name]


def test_damage_to_an_old_table_is_found(old):
    for path in (old / "tags").glob("*.parquet"):
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    (problem,) = maintenance.verify(str(old / "tags")).problems
    assert "changed" in problem


def test_old_failures_are_read(old):
    rows = rows_of(old / "features-failures")
    assert {track_id: (row["stage"], row["error"]) for track_id, row in rows.items()} == {
        "broken": ("decode", "AudioTruncatedError"),
        "missing": ("fetch", "AudioUnreachableError"),
        "no-uri": ("catalog", "CatalogError"),
    }
    assert "its part 'data' ends at byte 64,044, the file at byte 32,022" in rows["broken"]["message"]
    assert rows["no-uri"]["message"] == "row 15: uri is empty"


def test_old_features_are_planned_as_unchanged(old):
    uri = str(old / "features")
    listed = tables.read_columns(uri, ("track_id", "uri", "audio_etag"))
    with queries.connect() as connection:
        queries.load(connection, "problems", PROBLEMS_SCHEMA.empty_table())
        ledger.load_earlier_failures(connection, f"{uri}-failures")
        config = feature_config(tables.open_table(uri))
        features_table.load_rows(connection, "rows_before", uri, config)
        load_listed(connection, [listed])
        assert make_plan(connection, config.feature_hash, 3).n_unchanged == len(TRACKS)


def attempts(uri):
    with queries.connect() as connection:
        ledger.load_earlier_failures(connection, uri)
        return dict(connection.sql("SELECT track_id, attempts FROM failed").fetchall())


def test_attempts_continue_from_old_failures(old):
    assert attempts(str(old / "features-failures")) == {"broken": 2, "missing": 2, "no-uri": 2}
    assert set(attempts(str(old / "tags-failures")).values()) == {1}


@pytest.mark.parametrize("name", ["tags", "baseline-tags"])
def test_tags_of_an_old_model_are_up_to_date_unless_model_or_audio_changed(name, store):
    listed = tables.read_columns(str(store / "features"), ("track_id", "uri", "audio_etag"))
    with queries.connect() as connection:
        queries.load(connection, "problems", PROBLEMS_SCHEMA.empty_table())
        ledger.load_earlier_failures(connection, None)
        load_rows(connection, "rows_before", str(store / name), mlflow_registry.find_digest)
        load_listed(connection, [listed])
        ((producer,),) = connection.sql("SELECT DISTINCT producer FROM rows_before").fetchall()
        assert make_plan(connection, producer, 3).n_unchanged == len(TRACKS)
        assert make_plan(connection, "another digest", 3).n_tasks == len(TRACKS)
        assert connection.sql("SELECT count(*) FROM plan WHERE is_stale").fetchall() == [(0,)]
        connection.execute("UPDATE listed SET audio_etag = audio_etag || '-2'")
        make_plan(connection, producer, 3)
        stale = connection.sql("SELECT track_id FROM plan WHERE is_stale").fetchall()
        assert {track_id for (track_id,) in stale} == TRACKS


def test_old_splits_are_read(old):
    found = tables.read_columns(str(old / "features-splits"), ("group", "split")).to_pylist()
    assert {row["group"]: row["split"] for row in found} == {
        "artist:ada": "train", "artist:bea": "train", "artist:cid": "validation", "artist:dan": "train",
        "artist:eve": "test", "artist:gus": "train",
    }  # fmt: skip


def test_old_splits_are_kept_when_the_catalog_is_read_again(old):
    catalog = read_catalog(str(old / "catalog.csv"))
    labels = splits.tags_by_split(
        catalog.tracks, sample_tables.features(dict.fromkeys(TRACKS)), str(old / "features-splits")
    )
    assert {split: set(tags) for split, tags in labels.tags.items()} == {
        "train": {"track-1", "track-2", "track-3", "track-4", "track-7", "track-8"},
        "validation": {"track-5", "track-6"},
        "test": {"track-9", "track-10"},
    }  # fmt: skip


def test_old_version_of_a_table_is_read_and_restored(old):
    uri = str(old / "features")
    assert rows_of(uri)["track-2"]["duration_s"] == 2.5
    assert rows_of(uri, version=2)["track-2"]["duration_s"] == 2.0
    maintenance.roll_back(uri, 2)
    assert rows_of(uri)["track-2"]["duration_s"] == 2.0
    assert maintenance.verify(uri).problems == ()


def test_rows_are_deleted_from_an_old_table(old):
    uri = str(old / "features")
    sample_tables.delete_tracks(uri, {"track-4"})
    assert tables.track_ids(uri) == TRACKS - {"track-4"}
    assert maintenance.verify(uri).problems == ()


def test_old_tags_are_read(old):
    rows = rows_of(old / "tags")
    assert rows.keys() == TRACKS
    assert {(row["model"], row["model_version"]) for row in rows.values()} == {("musictag", "1")}
    assert rows["track-3"]["scores"] == pytest.approx([0.8794358, 0.0978842], abs=1e-6)
    assert [tag["tag"] for tag in rows["track-3"]["tags"]] == ["flöte"]
    assert [tag["score"] for tag in rows["track-3"]["tags"]] == pytest.approx([0.8794358], abs=1e-6)


@pytest.mark.parametrize(("table", "run_id"), [("tags", NETWORK_RUN), ("baseline-tags", SVM_RUN)])
def test_old_model_gives_the_scores_and_tags_of_the_old_table(table, run_id, old):
    tagger = Tagger.load(model_folder(old, run_id))
    features = list(tables.read_rows(str(old / "features"), SCORE_COLUMNS, TRACKS))
    tags = rows_of(old / table)
    scores = tagger.track_scores(features)
    assert scores.max() - scores.min() > 0.05
    for row, of_track in zip(features, scores, strict=True):
        expected = tags[row["track_id"]]
        np.testing.assert_allclose(of_track, expected["scores"], rtol=0, atol=1e-5)
        assert [tag for tag, _ in tagger.tags_above(of_track)] == [tag["tag"] for tag in expected["tags"]]


def test_old_network_is_read(old):
    network, spec = load_model(model_folder(old, NETWORK_RUN))
    assert (spec.architecture, spec.params) == ("cnn", {"channels": [2, 2], "hidden": 4})
    assert spec.vocabulary == VOCABULARY
    assert spec.thresholds == pytest.approx([0.5000017, 0.5], abs=1e-6)
    assert spec.calibration[0] == pytest.approx([0.6055650, 1.9428081])
    assert spec.provenance == {"musictag": "0.1.0", "run_id": NETWORK_RUN, "best_epoch": "2"}
    assert sum(weight.numel() for weight in network.parameters()) == 652


def test_old_support_vector_machine_is_read(old):
    model, spec = load_model(model_folder(old, SVM_RUN))
    assert spec.architecture == "linear-svm"
    assert spec.vocabulary == VOCABULARY
    assert model.sizes == {"descriptors": 590, "learned": 2}
    assert model.bias.tolist() == pytest.approx([-0.0140855, 0.8880097], abs=1e-6)


def old_states(root):
    (folder,) = (root / "checkpoints" / NETWORK_RUN).glob("checkpoint_2*")
    return checkpoints.load_states(folder)


def test_old_checkpoint_is_read(old):
    (state,) = old_states(old)
    assert (state.epoch, state.epochs_since_best) == (2, 0)
    assert state.best_val_loss == pytest.approx(0.2784081)
    assert [epoch["epoch"] for epoch in state.history] == [1, 2]
    assert [epoch["train_loss"] for epoch in state.history] == pytest.approx([0.5213840, 0.3411662])
    network, _ = load_model(model_folder(old, NETWORK_RUN))
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(state.best_weights[name], weight, rtol=0, atol=0)
    path = next((old / "checkpoints").rglob("fold-0.pt"))
    assert "averaged" in torch.load(path, weights_only=True)  # which training does not write any more


def test_training_continues_from_an_old_checkpoint(old):
    network, _ = load_model(model_folder(old, NETWORK_RUN))
    batch = torch.ones(2, 187, 96), torch.eye(2)
    state = loop.fit(
        network,
        TrainingConfig(epochs=3),
        train_batches=lambda epoch: [batch],
        steps_per_epoch=1,
        validate=lambda model: {"val_loss": 1.0},
        on_epoch=lambda state: None,
        state=old_states(old)[0],
    )
    assert [epoch["epoch"] for epoch in state.history] == [1, 2, 3]


def test_old_evaluation_is_read(old):
    path = old / "mlartifacts" / NETWORK_RUN / "artifacts" / "evaluation" / "test" / results.SCORES_FILE
    found = results.read(path, "the old network")
    assert (found.split, found.vocabulary) == ("test", VOCABULARY)
    assert found.groups == ("artist:eve",) * 2
    place = found.track_ids.index("track-10")
    assert found.targets[place].tolist() == [False, True]
    assert found.scores[place].tolist() == pytest.approx([0.7690945, 0.2221269], abs=1e-6)
    assert found.raw_scores[place].tolist() == pytest.approx([0.2277002, 0.8663758], abs=1e-6)
    assert results.summary(found)["macro_f1"] == pytest.approx(1 / 3)


def test_old_evaluation_is_found_in_the_old_store(store):
    path = mlflow_runs.evaluation_file(NETWORK_RUN, "test", results.SCORES_FILE)
    assert len(results.read(path, "the old network").track_ids) == 2


@pytest.mark.parametrize(
    ("alias", "version", "run_id"),
    [("candidate", "1", NETWORK_RUN), ("baseline-linear-svm", "2", SVM_RUN), ("champion", "2", SVM_RUN)],
)
def test_old_registered_model_is_fetched_by_its_alias(alias, version, run_id, store):
    source = mlflow_registry.fetch(f"models:/musictag@{alias}")
    assert (source.uri, source.version, source.run_id) == (f"models:/musictag/{version}", version, run_id)
    for path in model_folder(store, run_id).iterdir():
        assert (source.folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["weights.safetensors", "tagger.json"])
def test_old_registered_model_that_changed_is_refused(name, store):
    with (model_folder(store, NETWORK_RUN) / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ModelError, match=name):
        mlflow_registry.fetch("models:/musictag@candidate")


def test_old_run_has_its_figures(store):
    assert mlflow_runs.latest_step(NETWORK_RUN) == 2
    figures = mlflow_runs.cost(NETWORK_RUN)
    assert figures["best_val_loss"] == pytest.approx(0.2784081)
    assert figures["test_macro_f1"] == pytest.approx(1 / 3)


def test_old_run_keeps_its_version(store):
    assert mlflow_registry.register(mlflow_registry.fetch(f"runs:/{NETWORK_RUN}/model")) == "1"


def test_old_champion_is_rolled_back(store):
    assert mlflow_registry.roll_back("champion") == ("2", "1")
    assert mlflow_registry.alias_version("champion") == "1"


def test_old_store_accepts_a_new_version(store):
    folder = shutil.copytree(model_folder(store, NETWORK_RUN), store / "another")
    assert mlflow_registry.register_any(mlflow_registry.fetch(str(folder))) == "3"
