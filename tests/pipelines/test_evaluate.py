import csv
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from mlflow import MlflowClient

from musictag.catalog import reader
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.evaluation import results
from musictag.evaluation.calibration import calibrate
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, open_features
from musictag.models.artifact import load_model, save_model
from musictag.storage import commits

FILES = {"scores.parquet", "per_tag.parquet", "report.txt", "precision_recall.png", "curves.png"}


def where(corpus):
    return "--catalog", corpus.catalog, "--features", corpus.features


def run_of(version):
    return mlflow_registry.fetch(f"models:/musictag/{version}").run_id


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


def test_evaluation_prints_each_tag_and_examples(own_home, corpus, call, artifacts, add_model):
    add_model(artifacts["trained"])
    code, out, err = call(own_home, "evaluate", *where(corpus))
    assert (code, err) == (0, "")
    for tag in corpus.vocabulary:
        assert re.search(rf"^{tag} +\d+ +[\d.\u2013]+ ", out, re.MULTILINE), tag
    assert re.search(r"^macro ", out, re.MULTILINE)
    n_test = len(corpus.labels.tags["test"])
    titles = {f"Song {int(track_id.split('-')[1])}" for track_id in corpus.labels.tags["test"]}
    assert sum(any(line.endswith(title) for title in titles) for line in out.splitlines()) == min(8, n_test)
    assert out.splitlines()[-1].startswith("models:/musictag/1: macro PR-AUC ")
    assert f" on {n_test} test tracks; table and charts are in MLflow run " in out


def test_evaluation_is_logged_to_the_run_of_the_model(own_home, corpus, call, artifacts, tmp_path, evaluated):
    evaluated(artifacts["trained"])
    client = MlflowClient(own_home.tracking_uri)
    run_id = client.get_model_version("musictag", "1").run_id
    folder = tmp_path / client.download_artifacts(run_id, "evaluation/test", str(tmp_path))
    assert {path.name for path in folder.iterdir()} == FILES
    assert all(imread(path).std() > 0 for path in folder.glob("*.png"))
    kept = results.from_table(pq.read_table(folder / "scores.parquet"))
    truth = corpus.targets("test")
    assert set(kept.track_ids) == set(truth)
    assert all((targets == truth[track]).all() for track, targets in zip(kept.track_ids, kept.targets, strict=True))
    assert dict(zip(kept.track_ids, kept.groups, strict=True)).items() <= corpus.labels.groups.items()
    np.testing.assert_allclose(kept.raw_scores, kept.scores, atol=1e-6)  # calibration of this model is the identity
    logged = client.get_run(run_id).data.metrics
    figures = results.summary(kept)
    assert {name: logged[f"test_{name}"] for name in figures} == pytest.approx(figures)
    assert figures["macro_pr_auc"] > 0.8  # the sounds are easy to distinguish
    assert pq.read_table(folder / "per_tag.parquet")["tag"].to_pylist() == list(corpus.vocabulary)


def test_calibrated_and_raw_scores_are_stored(own_home, corpus, call, artifacts, tmp_path, add_model):
    model, spec = load_model(artifacts["trained"])
    calibration = tuple((2.0, 0.5 * k - 1) for k in range(len(corpus.vocabulary)))
    save_model(tmp_path / "calibrated", model, dataclasses.replace(spec, calibration=calibration))
    kept = []
    for folder in (artifacts["trained"], tmp_path / "calibrated"):
        version = add_model(folder)
        assert call(own_home, "evaluate", *where(corpus), "--model", f"models:/musictag/{version}")[0] == 0
        found = mlflow_runs.evaluation_file(run_of(version), "test", results.SCORES_FILE)
        kept.append(results.read(found, "a model"))
    plain, calibrated = kept
    np.testing.assert_array_equal(calibrated.raw_scores, plain.raw_scores)
    np.testing.assert_allclose(calibrated.scores, calibrate(plain.raw_scores, calibration), atol=1e-6)
    assert np.abs(calibrated.scores - plain.scores).max() > 0.1


def test_two_models_are_compared_on_the_same_tracks(own_home, corpus, call, artifacts, tmp_path, add_model):
    add_model(artifacts["fresh"], "champion")
    add_model(artifacts["trained"])
    code, out, _ = call(own_home, "evaluate", *where(corpus), "--against", "models:/musictag@champion")
    assert code == 0
    lines = out.splitlines()
    blocks = [n for n, line in enumerate(lines) if line.split()[1:3] == ["models:/musictag/2", "models:/musictag/1"]]
    assert [lines[n].split()[0] for n in blocks] == ["PR-AUC", "ROC-AUC", "F1"]
    assert [line.split()[0] for line in lines[blocks[0] + 2 : blocks[0] + 6]] == list(corpus.vocabulary)
    macro = lines[blocks[0] + 7].split()
    assert macro[0] == "macro"
    assert float(macro[1]) > float(macro[2])
    assert re.match(r"PR-AUC: \d of 4 tags better \(\d with an interval above 0\),", lines[blocks[0] + 8])
    folder = Path(MlflowClient(own_home.tracking_uri).download_artifacts(run_of("2"), "evaluation/test", str(tmp_path)))
    kept = "comparison-models-musictag-1"
    assert {path.name for path in folder.iterdir()} == {*FILES, f"{kept}.parquet", f"{kept}.txt", f"{kept}.png"}
    assert (folder / f"{kept}.txt").read_text().strip() in out
    assert imread(folder / f"{kept}.png").std() > 0
    table = pq.read_table(folder / f"{kept}.parquet").to_pylist()
    (row,) = [row for row in table if (row["figure"], row["tag"]) == ("pr_auc", None)]
    assert macro[1] == f"{row['candidate']:.3f}"
    for version in ("1", "2"):
        assert mlflow_runs.evaluation_file(run_of(version), "test", "scores.parquet") is not None


def test_comparisons_do_not_overwrite_each_other(own_home, corpus, call, artifacts, tmp_path, add_model):
    add_model(artifacts["fresh"])
    add_model(artifacts["trained"])
    for other in ("models:/musictag/1", "models:/musictag/2", artifacts["fresh"]):
        assert call(own_home, "evaluate", *where(corpus), "--against", other)[0] == 0
    folder = Path(MlflowClient(own_home.tracking_uri).download_artifacts(run_of("2"), "evaluation/test", str(tmp_path)))
    stems = sorted(path.stem for path in folder.glob("comparison-*.txt"))
    assert stems[1:] == ["comparison-models-musictag-1", "comparison-models-musictag-2"]
    assert re.fullmatch(r"comparison-fresh-[0-9a-f]{16}", stems[0])
    of_version, of_folder = (pq.read_table(folder / f"{stems[n]}.parquet") for n in (1, 0))
    assert of_version.to_pylist() == of_folder.to_pylist()  # the same model
    assert (folder / f"{stems[2]}.txt").read_text() != (folder / f"{stems[1]}.txt").read_text()


def test_model_in_a_folder_is_compared_with_itself(own_home, corpus, call, artifacts):
    folder = artifacts["trained"]
    code, out, err = call(own_home, "evaluate", *where(corpus), "--model", folder, "--against", folder)
    assert (code, err) == (0, "")
    assert "PR-AUC: 0 of 4 tags better (0 with an interval above 0), 0 worse (0 with an interval below 0)." in out


def test_evaluation_of_a_model_in_a_folder_is_not_logged(own_home, corpus, call, artifacts):
    code, out, _ = call(own_home, "evaluate", *where(corpus), "--model", artifacts["trained"])
    assert code == 0
    assert "MLflow run" not in out


def write_catalog(path, corpus, **columns):
    """Write the corpus's catalog with the same values of some columns for all tracks."""
    with Path(corpus.catalog).open(newline="") as stream:
        rows = [{**row, **columns, "uri": str(corpus.folder / row["uri"])} for row in csv.DictReader(stream)]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_empty_test_split_is_refused(own_home, corpus, call, artifacts, tmp_path, add_model):
    add_model(artifacts["trained"])
    own = shutil.copytree(corpus.features, tmp_path / "features")
    catalog_path = write_catalog(tmp_path / "catalog.csv", corpus, artist="everybody")
    code, _, err = call(own_home, "evaluate", "--catalog", catalog_path, "--features", own)
    assert code == 2
    assert "no track of the test split has both tags and features (tracks: 48 train, 0 validation, 0 test;" in err
    assert one_error(err)


def test_one_artist_gives_no_intervals(own_home, corpus, call, artifacts, tmp_path, evaluated):
    for folder in ("fresh", "trained"):
        evaluated(artifacts[folder])
    columns = {"artist": "everybody", "split": "test", "tags": "tone"}
    catalog_path = write_catalog(tmp_path / "catalog.csv", corpus, **columns)
    options = "--catalog", catalog_path, "--features", corpus.features
    code, out, err = call(own_home, "evaluate", *options, "--against", "models:/musictag/1")
    assert (code, err) == (0, "")
    assert out.count("No 95 % intervals: all tracks are of one artist") == 2
    assert "No test track has clicks, noise, quiet: their figures are undefined." in out
    mlflow_registry.set_alias("1", "champion")
    code, _, err = call(own_home, "promote")
    assert (code, mlflow_registry.alias_version("champion")) == (1, "1")
    assert "without an interval, since all tracks are of one artist" in err
    assert one_error(err)


def test_features_of_other_settings_are_refused(own_home, corpus, call, artifacts, tmp_path, add_model):
    add_model(artifacts["trained"])
    other = FeatureConfig(log_gain=1_000.0)
    tracks = reader.read_catalog(str(corpus.catalog)).tracks.to_pylist()
    uri = str(tmp_path / "features")
    open_features(uri, other, None)
    rows = (extract.featurize(row["track_id"], row["uri"], other) for row in tracks)
    commits.append_rows(uri, SCHEMA, rows)
    code, _, err = call(own_home, "evaluate", "--catalog", corpus.catalog, "--features", uri)
    assert code == 1
    assert other.feature_hash in err
    assert FeatureConfig().feature_hash in err
    assert one_error(err)


def test_missing_model_is_named(own_home, corpus, call):
    code, _, err = call(own_home, "evaluate", *where(corpus))
    assert code == 1
    assert "models:/musictag@candidate" in err
    assert one_error(err)
