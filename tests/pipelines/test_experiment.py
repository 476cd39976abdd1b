import re

import pytest
from matplotlib.image import imread

from musictag.engines import mlflow_registry


@pytest.fixture
def small(script, monkeypatch):
    """The experiment with one network and two methods."""
    experiment = script("experiment")
    monkeypatch.setattr(experiment, "NETWORKS", {"cnn": ("--model", "cnn")})
    monkeypatch.setattr(experiment, "METHODS", ("linear-svm", "ml-knn"))
    return experiment


@pytest.fixture
def ran(small, script, monkeypatch):
    """The scripts that were run, in this process, which has imported already what they need."""
    names = []

    def run(name, *options):
        names.append((name, options))
        script(name.removesuffix(".py")).main(list(map(str, options)))

    monkeypatch.setattr(small, "run", run)
    return names


def test_an_experiment_does_what_is_missing_and_writes_a_page(
    own_home, corpus, call, small, ran, add_model, artifacts, monkeypatch
):
    version = add_model(artifacts["trained"], "experiment-cnn")  # as a run that was stopped left it
    run_id = mlflow_registry.fetch(f"models:/musictag/{version}").run_id
    mlflow_registry.log_metrics(run_id, {"best_val_macro_pr_auc": 0.75})
    where = "--catalog", corpus.catalog, "--features", corpus.features
    options = *where, "--page", own_home.folder / "docs" / "page.md"
    code, out, _ = call(own_home, "experiment", *options)
    assert code == 0
    assert [name for name, _ in ran] == ["baseline.py", *["evaluate.py"] * 3]
    assert out.splitlines()[-1].startswith("3 models: ")
    text = (own_home.folder / "docs" / "page.md").read_text()
    for name in ("cnn", "linear-svm", "ml-knn"):
        assert f"\n| {name} |" in text
    assert "| 0.750 |" in text
    assert "](page.png)" in text
    assert imread(own_home.folder / "docs" / "page.png").std() > 0

    ran.clear()
    assert call(own_home, "experiment", *options)[0] == 0
    assert ran == []  # all is done
    assert (own_home.folder / "docs" / "page.md").read_text() == text

    test_track = min(corpus.labels.tags["test"])
    relabelled = own_home.folder / "relabelled.csv"
    lines = corpus.catalog.read_text().splitlines()
    relabelled.write_text("\n".join(re.sub(r"[^,]*$", "noise;quiet", line) if line.startswith(test_track) else line
                                    for line in lines) + "\n")  # fmt: skip
    assert call(own_home, "experiment", "--catalog", relabelled, *options[2:])[0] == 0
    assert [name for name, _ in ran] == ["evaluate.py"] * 3  # what the test tracks say is another
    ran.clear()

    monkeypatch.setattr(small, "NETWORKS", {**small.NETWORKS, "resnet": ("--model", "resnet")})
    monkeypatch.setattr(small, "run", lambda *command: ran.append(command))
    code, _, err = call(own_home, "experiment", *options, "--checkpoints", "here")
    assert ran[0][0] == "train.py"
    assert ran[0][5:] == ("--checkpoints", "here", "--alias", "experiment-resnet", "--model", "resnet")
    assert code == 1
    assert "experiment-resnet" in err


def test_a_script_that_fails_ends_the_experiment(own_home, call, small):
    code, _, err = call(own_home, "experiment", "--catalog", "nowhere.csv", "--features", "nothing")
    assert code == 1
    assert "pipelines/train.py ended with exit code" in err.splitlines()[-1]
