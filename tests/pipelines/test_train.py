import os
import shutil
import signal
import subprocess
import time
import types

import numpy as np
import psutil
import pytest
import torch
from mlflow import MlflowClient

from musictag.evaluation import metrics
from musictag.evaluation.calibration import calibrate
from musictag.models.artifact import load_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.tagging.tagger import Tagger
from musictag.training import batches
from musictag.training.recipes import FROM_SCRATCH
from processes import command_line

# As `TRAINING` in conftest.py, which trains the same without Ray.
OPTIONS = (
    "--model",
    "cnn",
    "--epochs",
    4,
    "--batch-size",
    8,
    "--clips-per-epoch",
    2,
    "--learning-rate",
    0.003,
    "--seed",
    3,
)
CURVES = ("epoch", "train_loss", "val_loss", "val_macro_pr_auc", "val_macro_roc_auc", "learning_rate", "clips_per_s",
          "seconds")  # fmt: skip


def where(corpus):
    return "--catalog", corpus.catalog, "--features", corpus.features


def newest_run(home):
    return runs_of(home)[0]


def runs_of(home):
    """The newest first."""
    client = MlflowClient(home.tracking_uri)
    experiment = client.get_experiment_by_name("musictag")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])


def curve(home, run_id, name):
    """Values by step, in the order in which they were logged."""
    history = MlflowClient(home.tracking_uri).get_metric_history(run_id, name)
    return [(point.step, point.value) for point in sorted(history, key=lambda point: point.timestamp)]


def artifact(home, run_id, folder):
    return MlflowClient(home.tracking_uri).download_artifacts(run_id, "model", str(folder))


def n_versions(home):
    return len(MlflowClient(home.tracking_uri).search_model_versions("name = 'musictag'"))


@pytest.fixture(scope="module")
def checkout(script, tmp_path_factory):
    """A git checkout that holds the script, and its commit."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(script("train").__file__, folder / "train.py")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a commit"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return folder / "train.py", commit


@pytest.fixture(scope="module")
def resumed(home, corpus, checkout):
    """A run whose one worker was killed in its third epoch or later: its MLflow run and what it printed."""
    started = time.time()
    process = home.start(checkout[0], *where(corpus), *OPTIONS)
    try:
        # Ray takes one report after the other: when the third epoch is logged, the second is reported, so the first is
        # taken, and its checkpoint with it.
        wait_for(lambda: epochs_of_a_run_since(home, started) >= 3, process)
        children = psutil.Process().children(recursive=True)
        (worker,) = [child for child in children if "RayTrainWorker" in command_line(child)]
        os.kill(worker.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return newest_run(home), out


def test_a_run_makes_the_candidate(home, resumed, tmp_path):
    run, out = resumed
    client = MlflowClient(home.tracking_uri)
    version = client.get_model_version_by_alias("musictag", "candidate")
    assert version.run_id == run.info.run_id
    assert f"version {version.version} is the candidate: runs:/{run.info.run_id}/model" in out
    assert "left out: 2 without tags, 0 tagged but without features" in out
    _, spec = load_model(tmp_path / artifact(home, run.info.run_id, tmp_path))
    assert spec.vocabulary == ("clicks", "noise", "quiet", "tone")
    assert spec.provenance["run_id"] == run.info.run_id


def test_mlflow_has_what_the_run_was_made_of(home, corpus, resumed, checkout):
    run = resumed[0]
    assert run.info.status == "FINISHED"
    default = FROM_SCRATCH
    expected = {
        "model": "cnn",
        "catalog": corpus.catalog,
        "features": corpus.features,
        "num_workers": 1,
        "epochs": 4,
        "batch_size": 8,
        "clips_per_track": 2,
        "learning_rate": 0.003,
        "seed": 3,
        "weight_decay": default.weight_decay,
        "patience": default.patience,
        **{f"n_{split}": len(corpus.labels.tags[split]) for split in ("train", "validation")},
        "vocabulary": "clicks,noise,quiet,tone",
    }
    assert {name: run.data.params[name] for name in expected} == {name: str(value) for name, value in expected.items()}
    (used,) = run.inputs.dataset_inputs
    assert f'"delta_table_version": {tables.version(str(corpus.features))}' in used.dataset.source
    feature_hash = tables.read_columns(str(corpus.features), ("feature_hash",))["feature_hash"][0].as_py()
    assert run.data.tags["feature_hash"] == used.dataset.digest == feature_hash
    assert run.data.tags["mlflow.source.git.commit"] == checkout[1]
    assert run.data.metrics["system/cpu_utilization_percentage"] > 0


def test_a_worker_that_is_killed_goes_on_from_its_checkpoint(home, resumed):
    epochs = [step for step, _ in curve(home, resumed[0].info.run_id, "epoch")]
    assert sorted(set(epochs)) == [1, 2, 3, 4]
    assert epochs.count(1) == 1  # It went on, and did not begin again.


def test_neither_ray_nor_a_killed_worker_changes_what_is_learned(home, resumed, trained):
    run_id = resumed[0].info.run_id
    for name in ("train_loss", "val_loss"):
        losses = [value for _, value in sorted(dict(curve(home, run_id, name)).items())]
        np.testing.assert_allclose(losses, [epoch[name] for epoch in trained.history], rtol=1e-6, err_msg=name)
    assert trained.history[-1]["train_loss"] < 0.8 * trained.history[0]["train_loss"]


def test_the_artifact_is_the_best_epoch_with_thresholds_of_the_validation_tracks(home, corpus, resumed, tmp_path):
    run_id = resumed[0].info.run_id
    check_artifact(home, corpus, run_id, tmp_path)


def check_artifact(home, corpus, run_id, tmp_path):
    tagger = Tagger.load(tmp_path / artifact(home, run_id, tmp_path))
    targets = corpus.targets("validation")
    rows = batches.labelled_rows(tables.read_rows(str(corpus.features), SCORE_COLUMNS, targets), targets)
    _, truth, scores = score_labelled(tagger.model, rows, tagger.spec.feature_config)
    best = min(value for _, value in curve(home, run_id, "val_loss"))
    assert metrics.log_loss(truth, scores) == pytest.approx(best, rel=1e-5)
    calibrated = calibrate(scores, tagger.spec.calibration)
    np.testing.assert_allclose(tagger.spec.thresholds, metrics.fit_thresholds(truth, calibrated), atol=1e-4)


def test_two_workers_train_one_model(home, call, corpus, tmp_path):
    before = n_versions(home)
    code, out, err = call(home, "train", *where(corpus), *OPTIONS, "--num-workers", 2, "--alias", "pair")
    assert code == 0, err
    assert "Traceback" not in err
    run = newest_run(home)
    assert n_versions(home) == before + 1
    version = MlflowClient(home.tracking_uri).get_model_version_by_alias("musictag", "pair")
    assert version.run_id == run.info.run_id
    assert f"version {version.version} is the pair: " in out
    assert run.data.params["num_workers"] == "2"
    curves = {name: curve(home, run.info.run_id, name) for name in CURVES}
    for name, points in curves.items():
        assert [step for step, _ in points] == [1, 2, 3, 4], name
    assert curves["train_loss"][-1][1] < 0.8 * curves["train_loss"][0][1]
    check_artifact(home, corpus, run.info.run_id, tmp_path)


def test_no_fold_of_a_checkpoint_begins_anew(script, monkeypatch):
    train, given = script("train"), []

    def train_fold(_job, _model, number, states):
        given.append(list(states))
        return f"{states[number] if number < len(states) else number}, ended"

    fold = types.SimpleNamespace(build=lambda _seed: torch.nn.Linear(1, 1))
    job = types.SimpleNamespace(tracking_uri="", n_cores=torch.get_num_threads(), folds=[{}] * 4, network=fold,
                                training=types.SimpleNamespace(seed=0))  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which a worker sets
    monkeypatch.setattr(train, "train_fold", train_fold)
    monkeypatch.setattr(train, "held", lambda _checkpoint: ["a", "b", "c"])
    monkeypatch.setattr(train.ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(train.ray.train, "get_context", lambda: types.SimpleNamespace(get_local_world_size=lambda: 1))
    monkeypatch.setattr(train.ray.train.torch, "prepare_model", lambda model: model)
    train.train_worker({"job": job})
    assert given == [["a", "b", "c"], ["a, ended", "b", "c"], ["a, ended", "b, ended", "c"],
                     ["a, ended", "b, ended", "c, ended"]]  # fmt: skip


def epochs_of_a_run_since(home, started):
    if MlflowClient(home.tracking_uri).get_experiment_by_name("musictag") is None:
        return 0
    runs = [run for run in runs_of(home) if run.info.start_time >= 1000 * started]
    return runs[0].data.metrics.get("epoch", 0) if runs else 0


def wait_for(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


def test_a_tag_that_is_not_there_is_answered_with_the_close_one(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--vocabulary", "noise,tonne")
    assert code == 2
    assert "'tonne' (close: 'tone')" in err
    assert one_error(err)


def test_a_wrong_number_is_answered_with_its_name(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--batch-size", 1)
    assert code == 2
    assert "batch_size is 1" in err
    assert one_error(err)


def test_features_that_are_not_there_are_named(home, corpus, call, tmp_path):
    code, _, err = call(home, "train", "--catalog", corpus.catalog, "--features", tmp_path / "nothing")
    assert code == 1
    assert f"{tmp_path / 'nothing'}: there is none" in err
    assert one_error(err)


def test_a_catalog_that_is_not_there_is_named(home, corpus, call, tmp_path):
    code, _, err = call(home, "train", "--catalog", tmp_path / "nothing.csv", "--features", corpus.features)
    assert code == 2
    assert "nothing.csv" in err
    assert one_error(err)


def test_an_mlflow_that_does_not_answer_is_named(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), tracking_uri="http://127.0.0.1:9")
    assert code == 1
    assert "MLflow at http://127.0.0.1:9" in err
    assert one_error(err)
