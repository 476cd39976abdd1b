import os
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient

from musictag.evaluation import metrics
from musictag.evaluation.calibration import calibrate, fit_thresholds
from musictag.models.artifact import load_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.tagging.tagger import Tagger
from musictag.training import batches
from musictag.training.recipes import FROM_SCRATCH
from processes import command_line

# The options of `TRAINING` in conftest.py, which trains the same network without Ray.
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
    """Return the runs, newest first."""
    client = MlflowClient(home.tracking_uri)
    experiment = client.get_experiment_by_name("musictag")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])


def curve(home, run_id, name):
    """Return steps and values, in the order in which they were logged."""
    history = MlflowClient(home.tracking_uri).get_metric_history(run_id, name)
    return [(point.step, point.value) for point in sorted(history, key=lambda point: point.timestamp)]


def artifact(home, run_id, folder):
    return MlflowClient(home.tracking_uri).download_artifacts(run_id, "model", str(folder))


def n_versions(home):
    return len(MlflowClient(home.tracking_uri).search_model_versions("name = 'musictag'"))


@pytest.fixture(scope="module")
def checkout(script, tmp_path_factory):
    """Return the script in a git checkout, and its commit."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(script("train").__file__, folder / "train.py")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a commit"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return folder / "train.py", commit


@pytest.fixture(scope="module")
def resumed(home, corpus, checkout):
    """Return the MLflow run and the output of a training whose worker was killed in the third epoch or later."""
    started = time.time()
    process = home.start(checkout[0], *where(corpus), *OPTIONS)
    try:
        # Ray handles reports in order: when the third epoch is logged, the second is reported, and the checkpoint of
        # the first is stored.
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


def test_run_registers_the_candidate(home, resumed, tmp_path):
    run, out = resumed
    client = MlflowClient(home.tracking_uri)
    version = client.get_model_version_by_alias("musictag", "candidate")
    assert version.run_id == run.info.run_id
    assert f"version {version.version} is the candidate: runs:/{run.info.run_id}/model" in out
    assert "left out: 2 without tags, 0 tagged but without features" in out
    _, spec = load_model(tmp_path / artifact(home, run.info.run_id, tmp_path))
    assert spec.vocabulary == ("clicks", "noise", "quiet", "tone")
    assert spec.provenance["run_id"] == run.info.run_id


def test_run_logs_params_and_dataset(home, corpus, resumed, checkout):
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
        "batch_size_per_worker": 8,
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


def test_killed_worker_resumes_from_its_checkpoint(home, resumed):
    epochs = [step for step, _ in curve(home, resumed[0].info.run_id, "epoch")]
    assert sorted(set(epochs)) == [1, 2, 3, 4]
    assert epochs.count(1) == 1  # it did not start again


def test_ray_and_a_killed_worker_do_not_change_the_losses(home, resumed, trained):
    run_id = resumed[0].info.run_id
    for name in ("train_loss", "val_loss"):
        losses = [value for _, value in sorted(dict(curve(home, run_id, name)).items())]
        np.testing.assert_allclose(losses, [epoch[name] for epoch in trained.history], rtol=1e-6, err_msg=name)
    assert trained.history[-1]["train_loss"] < 0.8 * trained.history[0]["train_loss"]


def test_artifact_is_the_best_epoch_with_validation_thresholds(home, corpus, resumed, tmp_path):
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
    np.testing.assert_allclose(tagger.spec.thresholds, fit_thresholds(truth, calibrated), atol=1e-4)


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
    sizes = [run.data.params[name] for name in ("num_workers", "batch_size", "batch_size_per_worker")]
    assert sizes == ["2", "8", "4"]
    curves = {name: curve(home, run.info.run_id, name) for name in CURVES}
    for name, points in curves.items():
        assert [step for step, _ in points] == [1, 2, 3, 4], name
    assert curves["train_loss"][-1][1] < 0.8 * curves["train_loss"][0][1]
    check_artifact(home, corpus, run.info.run_id, tmp_path)


def epochs_of_a_run_since(home, started):
    if MlflowClient(home.tracking_uri).get_experiment_by_name("musictag") is None:
        return 0
    runs = [run for run in runs_of(home) if run.info.start_time >= 1000 * started]
    return runs[0].data.metrics.get("epoch", 0) if runs else 0


def wait_for(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.02)


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


def test_batch_that_the_workers_cannot_divide_is_refused(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--batch-size", 64, "--num-workers", 3)
    assert code == 2
    assert "a batch of 64 clips cannot be divided by 3 workers" in err
    assert one_error(err)


def test_unknown_tag_is_refused_with_a_suggestion(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--vocabulary", "noise,tonne")
    assert code == 2
    assert "'tonne' (close: 'tone')" in err
    assert one_error(err)


def test_missing_features_are_named(home, corpus, call, tmp_path):
    code, _, err = call(home, "train", "--catalog", corpus.catalog, "--features", tmp_path / "nothing")
    assert code == 1
    assert f"{tmp_path / 'nothing'}: there is none" in err
    assert one_error(err)


def test_missing_catalog_is_named(home, corpus, call, tmp_path):
    code, _, err = call(home, "train", "--catalog", tmp_path / "nothing.csv", "--features", corpus.features)
    assert code == 2
    assert "nothing.csv" in err
    assert one_error(err)


def test_unreachable_mlflow_is_named(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), tracking_uri="http://127.0.0.1:9")
    assert code == 1
    assert "MLflow at http://127.0.0.1:9" in err
    assert one_error(err)
