import pytest
from matplotlib.image import imread
from mlflow import MlflowClient


@pytest.fixture
def small(script, monkeypatch):
    """The experiment with one network and two methods."""
    experiment = script("experiment")
    monkeypatch.setattr(experiment, "NETWORKS", {"cnn": ("--model", "cnn", "--epochs", "1", "--folds", "1")})
    monkeypatch.setattr(experiment, "METHODS", ("linear-svm", "ml-knn"))
    return experiment


@pytest.fixture
def in_process(small, script, monkeypatch):
    """Scripts without an engine are run in this process, which has imported already what they need."""
    apart = small.run

    def run(name, *options):
        if name == "train.py":
            apart(name, *options)
        else:
            script(name.removesuffix(".py")).main(list(options))

    monkeypatch.setattr(small, "run", run)


@pytest.mark.usefixtures("in_process")
def test_an_experiment_trains_what_is_missing_and_writes_a_page(own_home, corpus, call, small, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", own_home.ray_address)
    where = "--catalog", corpus.catalog, "--features", corpus.features
    options = *where, "--checkpoints", own_home.folder / "checkpoints", "--page", own_home.folder / "docs" / "page.md"
    code, out, _ = call(own_home, "experiment", *options)
    assert code == 0
    assert out.splitlines()[-1].startswith("3 models: ")
    text = (own_home.folder / "docs" / "page.md").read_text()
    for name in ("cnn", "linear-svm", "ml-knn"):
        assert f"\n| {name} |" in text
    assert "](page.png)" in text
    assert imread(own_home.folder / "docs" / "page.png").std() > 0

    ran = []
    monkeypatch.setattr(small, "run", lambda script, *options: ran.append((script, options)))
    assert call(own_home, "experiment", *options)[0] == 0
    assert ran == []  # all is done
    assert (own_home.folder / "docs" / "page.md").read_text() == text

    MlflowClient(own_home.tracking_uri).delete_registered_model_alias("musictag", "experiment-ml-knn")
    code, _, err = call(own_home, "experiment", *options)
    assert ran[0][0] == "baseline.py"
    assert ran[0][1][-1] == "ml-knn"
    assert code == 1
    assert "experiment-ml-knn" in err


def test_a_script_that_fails_ends_the_experiment(own_home, call, small):
    code, _, err = call(own_home, "experiment", "--catalog", "nowhere.csv", "--features", "nothing")
    assert code == 1
    assert "pipelines/train.py ended with exit code" in err.splitlines()[-1]
