import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from musictag.catalog.reader import read_catalog
from musictag.corpora.demo import make_demo
from musictag.storage import tables

SCRIPTS = Path(__file__).parents[2] / "pipelines"
N_TRACKS = 20


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a small demo catalog at the scripts' default path."""
    make_demo(tmp_path / "data/demo", n_tracks=N_TRACKS, seconds=4, workers=1)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(script, *options):
    """Run a script as a user does; return the lines it prints."""
    command = [sys.executable, str(SCRIPTS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_from_audio_to_tags(home):
    assert run("featurize.py", "--runner=DirectRunner")[-1].startswith(
        f"{N_TRACKS} listed = {N_TRACKS} written + 0 unchanged + 0 failed ("
    )
    assert "version 1 is the candidate" in run("train.py", "--epochs", "1")[-1]
    assert re.search(r"macro PR-AUC 0\.\d+.* test tracks; table and charts are in MLflow run", run("evaluate.py")[-1])
    assert run("promote.py")[-1].startswith("version 1 is the champion: promoted: there is no champion yet")
    assert run("tag.py")[-1].startswith(f"{N_TRACKS} listed = {N_TRACKS} written + 0 unchanged + 0 failed (")

    champion = MlflowClient("sqlite:///data/mlflow.db").get_model_version_by_alias("musictag", "champion")
    assert str(champion.version) == "1"
    assert (
        os.environ["MLFLOW_ALLOW_MODEL_CODE_EXECUTION"] == os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    )
    kept = [path for path in (home / "data/mlartifacts").rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"weights.safetensors", "tagger.json"}
    # MLflow runs code only of models with an MLmodel file; no file here is code or a pickle.
    assert {path.suffix for path in kept} <= {".safetensors", ".json", ".parquet", ".png", ".txt", ".csv"}

    tracks = read_catalog("data/demo/catalog.csv").tracks.to_pylist()
    rows = tables.read_columns("data/tags", ("track_id", "model", "model_version", "scores", "tags")).to_pylist()
    assert sorted(row["track_id"] for row in rows) == sorted(track["track_id"] for track in tracks)
    vocabulary = {tag for track in tracks for tag in track["tags"]}
    for row in rows:
        assert (row["model"], row["model_version"]) == ("musictag", "1")
        assert all(0 <= score <= 1 for score in row["scores"])
        assert {tag["tag"] for tag in row["tags"]} <= vocabulary
    splits = {
        row["group"]: row["split"]
        for row in tables.read_columns("data/features-splits", ("group", "split")).to_pylist()
    }
    tested = {track["track_id"] for track in tracks if splits[f"artist:{track['artist'].casefold()}"] == "test"}
    assert tested
    assert any(row["tags"] for row in rows if row["track_id"] in tested)
