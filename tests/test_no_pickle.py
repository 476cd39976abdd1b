"""What is read of models and checkpoints runs no code: nothing in the sources unpickles, and pickles are refused."""

import ast
import io
import os
import pickle
import re
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import ModelError, MusictagError, TrainingError
from musictag.models.artifact import load_model, save_model
from musictag.training.checkpoints import load_states
from small import SPEC, small_model

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "musictag").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
RUNS_CODE = re.compile(
    r"(ray\.)?(_?pickle|cloudpickle|dill|shelve|marshal|jsonpickle)(?!\.UnpicklingError$)(\.|$)"
    r"|joblib\.(load|dump)$|pandas\.read_pickle$|torch\.(jit\.load|package\..*)$|(builtins\.)?(eval|exec)$"
    r"|mlflow\.(pyfunc|pytorch|sklearn|models)(\.|$)|mlflow\.log_model$"
)


def dangers(source: str) -> list[str]:
    """Whatever of a source could run code that a file holds, by its full name."""
    tree = ast.parse(source)
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origins |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origins |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def name_of(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{name_of(node.value)}.{node.attr}"
        return origins.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    names = [*origins.values(), *map(name_of, ast.walk(tree))]
    found = [name for name in names if RUNS_CODE.match(name)]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {argument.arg: getattr(argument.value, "value", None) for argument in call.keywords}
        if given.get("allow_pickle", False) is not False:
            found.append("allow_pickle")
        if name_of(call.func) == "torch.load" and given.get("weights_only") is not True:
            found.append("torch.load")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import _pickle",
        "from cloudpickle import dumps",
        "import ray.cloudpickle as cp",
        "import ray\nray.cloudpickle.loads(b'')",
        "import dill",
        "def late():\n    import shelve",
        "import joblib\njoblib.load('a')",
        "from joblib import load",
        "import torch\ntorch.load('a')",
        "import torch\ntorch.load('a', weights_only=False)",
        "from torch import load as read\nread('a')",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "import pandas as pd\npd.read_pickle('a')",
        "import mlflow\nmlflow.pyfunc.load_model('a')",
        "from mlflow.pytorch import log_model",
        "eval('1')",
    ],
)
def test_calls_that_run_code_are_found(source):
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        "from pickle import UnpicklingError",
        "import torch\ntorch.load('a', weights_only=True)",
        "import joblib\njoblib.Parallel(2)",
        "import numpy as np\nnp.load('a', allow_pickle=False)",
        "import mlflow\nmlflow.start_run()",
        "model.eval()",
    ],
)
def test_harmless_calls_are_not_found(source):
    assert not dangers(source)


def test_no_source_runs_code_from_a_file():
    assert len(SOURCES) > 50
    found = {str(path.relative_to(ROOT)): dangers(path.read_text()) for path in SOURCES}
    assert not {path: names for path, names in found.items() if names}


class Harmful:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch harmed",)


def dumped(path):
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    return lambda: pickle.loads(path.read_bytes())  # noqa: S301


def saved_by_torch(path):
    torch.save({"weights": Harmful()}, path)
    return lambda: torch.load(io.BytesIO(path.read_bytes()), weights_only=False)


@pytest.mark.parametrize("write", [dumped, saved_by_torch])
@pytest.mark.parametrize("name", ["weights.safetensors", "tagger.json", "fold-0.pt"])
def test_a_pickle_is_refused_without_unpickling(write, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", small_model(), SPEC)
    unpickle = write(tmp_path / "model" / name)
    read, error = (load_states, TrainingError) if name == "fold-0.pt" else (load_model, ModelError)
    with pytest.raises(error, match=re.escape(name)):
        read(tmp_path / "model")
    assert not Path("harmed").exists()
    unpickle()
    assert Path("harmed").exists()


@pytest.fixture
def home(tmp_path, empty_mlflow, monkeypatch):
    """A folder with an MLflow of its own."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    mlflow_runs.connect()
    return tmp_path


# Of MLflow's own code, as its flavour is imported.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_a_registered_pickle_is_refused(home):
    """MLflow's own way of loading is closed to all tests, so that no part of the line can come to depend on it."""
    folder = home / "flavour"
    mlflow.pytorch.save_model(small_model(), folder, serialization_format="pickle", pip_requirements=[])
    with pytest.raises(MlflowException, match="pickle is disallowed"):
        mlflow.pytorch.load_model(str(folder))
    with mlflow_runs.start_run("a run", {}, {}) as run_id:
        MlflowClient().log_artifacts(run_id, str(folder), mlflow_runs.ARTIFACT)
    with pytest.raises(MusictagError, match=r"holds no tagger\.json"):
        load_model(mlflow_registry.fetch(f"runs:/{run_id}/{mlflow_runs.ARTIFACT}").folder)
