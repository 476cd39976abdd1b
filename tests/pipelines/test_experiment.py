import functools
import re

import pytest
from matplotlib.image import imread

from musictag.engines import mlflow_registry, mlflow_runs
from musictag.jobs.entry_point import run_main


@pytest.fixture
def small(script, monkeypatch):
    """Return the experiment, with one network and two methods."""
    experiment = script("experiment")
    monkeypatch.setattr(experiment, "NETWORKS", {"cnn": ("--model", "cnn")})
    monkeypatch.setattr(experiment, "METHODS", ("linear-svm", "ml-knn"))
    return experiment


@pytest.fixture
def commands():
    """Scripts and options that the experiment ran. They run in this process, which has imported their modules."""
    return []


@pytest.fixture
def experiment(small, script, commands):
    """Return a function that runs the experiment with options and returns its exit code."""

    def run(name, *options):
        commands.append((name, *options))
        script(name.removesuffix(".py")).main(list(map(str, options)))

    return lambda *options, run=run: run_main(functools.partial(small.main, run=run), list(map(str, options)))


def test_experiment_trains_what_is_missing_and_writes_a_page(
    own_home, corpus, small, experiment, commands, add_model, artifacts, monkeypatch, capsys
):
    version = add_model(artifacts["trained"], "experiment-cnn")  # as an interrupted run left it
    run_id = mlflow_registry.fetch(f"models:/musictag/{version}").run_id
    mlflow_runs.log_metrics(run_id, {"best_val_macro_pr_auc": 0.75})
    where = "--catalog", corpus.catalog, "--features", corpus.features
    options = *where, "--page", own_home.folder / "docs" / "page.md"
    assert experiment(*options) == 0
    out = capsys.readouterr().out
    assert [name for name, *_ in commands] == ["baseline.py", *["evaluate.py"] * 3]
    assert out.splitlines()[-1].startswith("3 models: ")
    text = (own_home.folder / "docs" / "page.md").read_text()
    for name in ("cnn", "linear-svm", "ml-knn"):
        assert f"\n| {name} |" in text
    assert "| 0.750 |" in text
    assert "](page.png)" in text
    assert imread(own_home.folder / "docs" / "page.png").std() > 0

    commands.clear()
    assert experiment(*options) == 0
    assert commands == []  # everything is done
    assert (own_home.folder / "docs" / "page.md").read_text() == text

    test_track = min(corpus.labels.tags["test"])
    relabelled = own_home.folder / "relabelled.csv"
    lines = corpus.catalog.read_text().splitlines()
    relabelled.write_text("\n".join(re.sub(r"[^,]*$", "noise;quiet", line) if line.startswith(test_track) else line
                                    for line in lines) + "\n")  # fmt: skip
    assert experiment("--catalog", relabelled, *options[2:]) == 0
    assert [name for name, *_ in commands] == ["evaluate.py"] * 3  # the labels of test tracks have changed
    commands.clear()

    monkeypatch.setattr(small, "NETWORKS", {**small.NETWORKS, "resnet": ("--model", "resnet")})
    code = experiment(*options, "--checkpoints", "here", run=lambda *command: commands.append(command))
    err = capsys.readouterr().err
    assert commands[0][0] == "train.py"
    assert commands[0][5:] == ("--checkpoints", "here", "--alias", "experiment-resnet", "--model", "resnet")
    assert code == 1
    assert "experiment-resnet" in err


def test_failed_script_ends_the_experiment(own_home, call, small):
    code, _, err = call(own_home, "experiment", "--catalog", "nowhere.csv", "--features", "nothing")
    assert code == 1
    assert "pipelines/train.py ended with exit code" in err.splitlines()[-1]
