import dataclasses
import re
import shutil

import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from mlflow import MlflowClient

from musictag import catalog, evaluation, features, ledger, registry, stores
from musictag.config import FeatureConfig

FILES = {"scores.parquet", "per_tag.parquet", "report.txt", "precision_recall.png", "curves.png"}


@pytest.fixture
def home(home, empty_mlflow, tmp_path, monkeypatch):
    """A home of each test's own: the registry is what these tests change."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    own = dataclasses.replace(home, folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own.tracking_uri)
    return own


def add_model(folder, alias="candidate"):
    """Log and register a model folder, as train.py does; its version."""
    registry.connect()
    with registry.start_run("made", {}, {}) as run_id:
        uri = registry.log_model(run_id, folder)
    version = registry.register(registry.fetch(uri))
    registry.set_alias(version, alias)
    return version


def where(corpus):
    return "--catalog", corpus.catalog, "--features", corpus.features


def evaluated(home, call, corpus, folder):
    version = add_model(folder)
    assert call(home, "evaluate", *where(corpus), "--model", f"models:/musictag/{version}")[0] == 0
    return version


def champion():
    return registry.alias_version("champion")


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


def test_an_evaluation_prints_each_tag_and_examples(home, corpus, call, artifacts):
    add_model(artifacts["trained"])
    code, out, err = call(home, "evaluate", *where(corpus))
    assert (code, err) == (0, "")
    for tag in corpus.vocabulary:
        assert re.search(rf"^{tag} +\d+ +[\d.\u2013]+ ", out, re.MULTILINE), tag
    assert re.search(r"^macro ", out, re.MULTILINE)
    n_test = len(corpus.labels.tags["test"])
    titles = {f"Song {int(track_id.split('-')[1])}" for track_id in corpus.labels.tags["test"]}
    assert sum(any(line.endswith(title) for title in titles) for line in out.splitlines()) == min(8, n_test)
    assert out.splitlines()[-1].startswith("models:/musictag/1: macro PR-AUC ")
    assert f" on {n_test} test tracks; table and charts are in MLflow run " in out


def test_an_evaluation_is_kept_with_the_models_run(home, corpus, call, artifacts, tmp_path):
    evaluated(home, call, corpus, artifacts["trained"])
    client = MlflowClient(home.tracking_uri)
    run_id = client.get_model_version("musictag", "1").run_id
    folder = tmp_path / client.download_artifacts(run_id, "evaluation/test", str(tmp_path))
    assert {path.name for path in folder.iterdir()} == FILES
    assert all(imread(path).std() > 0 for path in folder.glob("*.png"))
    kept = evaluation.from_table(pq.read_table(folder / "scores.parquet"))
    truth = corpus.targets("test")
    assert set(kept.track_ids) == set(truth)
    assert all((targets == truth[track]).all() for track, targets in zip(kept.track_ids, kept.targets, strict=True))
    logged = client.get_run(run_id).data.metrics
    figures = evaluation.summary(kept)
    assert {name: logged[f"test_{name}"] for name in figures} == pytest.approx(figures)
    assert figures["macro_pr_auc"] > 0.8  # The sounds are easy to tell apart.
    assert pq.read_table(folder / "per_tag.parquet")["tag"].to_pylist() == list(corpus.vocabulary)


def test_two_models_are_compared_on_the_same_tracks(home, corpus, call, artifacts):
    add_model(artifacts["fresh"], "champion")
    add_model(artifacts["trained"])
    code, out, _ = call(home, "evaluate", *where(corpus), "--against", "models:/musictag@champion")
    assert code == 0
    lines = out.splitlines()
    (heading,) = [
        n for n, line in enumerate(lines) if line.split() == ["PR-AUC", "models:/musictag/2", "models:/musictag/1"]
    ]
    assert [line.split()[0] for line in lines[heading + 2 : heading + 6]] == list(corpus.vocabulary)
    (macro,) = [line.split() for line in lines if line.startswith("macro PR-AUC")]
    assert float(macro[2]) > float(macro[3])
    for version in ("1", "2"):
        run_id = registry.fetch(f"models:/musictag/{version}").run_id
        assert registry.evaluation_file(run_id, "test", "scores.parquet") is not None


def test_a_model_in_a_folder_is_evaluated_and_nothing_is_kept(home, corpus, call, artifacts):
    code, out, _ = call(home, "evaluate", *where(corpus), "--model", artifacts["trained"])
    assert code == 0
    assert "MLflow run" not in out


def test_features_of_other_settings_are_refused_with_both_hashes(home, corpus, call, artifacts, tmp_path):
    add_model(artifacts["trained"])
    other = FeatureConfig(log_gain=1_000.0)
    tracks = catalog.read_catalog(str(corpus.catalog)).tracks.to_pylist()
    uri = str(tmp_path / "features")
    features.open_features(uri, other, None)
    rows = (features.featurize(ledger.Work(row["track_id"], row["uri"], None), other) for row in tracks)
    stores.write_part(uri, "all", features.SCHEMA, rows)
    code, _, err = call(home, "evaluate", "--catalog", corpus.catalog, "--features", uri)
    assert code == 1
    assert other.feature_hash in err
    assert FeatureConfig().feature_hash in err
    assert one_error(err)


def test_a_model_that_is_not_there_is_named(home, corpus, call):
    code, _, err = call(home, "evaluate", *where(corpus))
    assert code == 1
    assert "models:/musictag@candidate" in err
    assert one_error(err)


def test_the_first_model_is_promoted_and_once_only(home, corpus, call, artifacts):
    evaluated(home, call, corpus, artifacts["fresh"])
    code, out, err = call(home, "promote")
    assert (code, err, champion()) == (0, "", "1")
    assert "version 1 is the champion: promoted: there is no champion yet" in out
    code, out, err = call(home, "promote")
    assert (code, out, err) == (0, "version 1 is the champion already\n", "")


def test_a_better_model_is_promoted(home, corpus, call, artifacts):
    for folder in ("fresh", "trained"):
        evaluated(home, call, corpus, artifacts[folder])
        code, out, _ = call(home, "promote")
        assert code == 0
    assert champion() == "2"
    assert "is above the champion's" in out
    tags = MlflowClient(home.tracking_uri).get_model_version("musictag", "2").tags
    assert tags["decision"].startswith("promoted: macro PR-AUC")
    assert tags["replaced"] == "1"


@pytest.mark.parametrize(("folder", "relation"), [("trained", "equal to"), ("fresh", "below")])
def test_a_model_that_is_not_better_is_refused_with_the_reason(home, corpus, call, artifacts, folder, relation):
    evaluated(home, call, corpus, artifacts["trained"])
    assert call(home, "promote")[0] == 0
    evaluated(home, call, corpus, artifacts[folder])
    code, out, err = call(home, "promote")
    assert (code, out, champion()) == (1, "", "1")
    assert re.search(rf"version 2 was not promoted: macro PR-AUC [\d.]+ is {relation} the champion's [\d.]+", err)
    assert one_error(err)
    tags = MlflowClient(home.tracking_uri).get_model_version("musictag", "2").tags
    assert tags["decision"].startswith("not promoted")


def test_force_needs_a_reason(home, corpus, call, artifacts):
    evaluated(home, call, corpus, artifacts["trained"])
    for reason in ((), ("--reason", " ")):
        code, _, err = call(home, "promote", "--force", *reason)
        assert (code, champion()) == (2, None)
        assert "--force needs --reason TEXT" in err
        assert one_error(err)


def test_force_promotes_a_worse_model_and_keeps_the_reason(home, corpus, call, artifacts):
    evaluated(home, call, corpus, artifacts["trained"])
    assert call(home, "promote")[0] == 0
    add_model(artifacts["fresh"])
    code, out, _ = call(home, "promote", "--force", "--reason", "agreed with the editors")
    assert (code, champion()) == (0, "2")
    assert "version 2 is the champion: forced: agreed with the editors" in out
    tags = MlflowClient(home.tracking_uri).get_model_version("musictag", "2").tags
    assert tags == {"decision": "forced: agreed with the editors", "replaced": "1"}


def test_a_model_that_was_not_evaluated_is_answered_with_the_command(home, call, artifacts):
    add_model(artifacts["trained"])
    code, _, err = call(home, "promote")
    assert (code, champion()) == (1, None)
    assert "run `python pipelines/evaluate.py --model models:/musictag/1`" in err
    assert one_error(err)
