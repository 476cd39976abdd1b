import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {
    "apache_beam": {
        "musictag/engines/beam_cluster.py",
        "musictag/engines/beam_runner.py",
        "musictag/engines/beam_workers.py",
        "pipelines/featurize.py",
    },
    "ray": {
        "musictag/engines/ray_cluster.py",
        "musictag/engines/ray_scoring.py",
        "musictag/engines/ray_training.py",
        "pipelines/train.py",
    },
    "mlflow": {"musictag/engines/mlflow_registry.py", "musictag/engines/mlflow_runs.py"},
}
NOT_SOURCE = {"tests", "data", "build", "dist"}
SOURCES = sorted(
    path
    for folder in ROOT.iterdir()
    if folder.is_dir() and not folder.name.startswith(".") and folder.name not in NOT_SOURCE
    for path in folder.rglob("*.py")
)


def tree(path):
    return ast.parse(path.read_text(), path.name)


def imports(path):
    """First names of all modules that a file imports, at its top or anywhere within."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module.partition(".")[0]


def test_sources_are_found():
    names = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert set().union(*HOMES.values()) <= names
    assert "musictag/models/cnn.py" in names


@pytest.mark.parametrize("engine", HOMES)
def test_engine_is_imported_only_at_its_home(engine):
    assert {str(path.relative_to(ROOT)) for path in SOURCES if engine in imports(path)} == HOMES[engine]


def test_pipelines_do_not_import_each_other():
    pipelines = {path.stem for path in (ROOT / "pipelines").glob("*.py")}
    assert pipelines >= {"featurize", "train", "evaluate", "promote", "tag"}
    for path in (ROOT / "pipelines").glob("*.py"):
        assert not pipelines.union({"pipelines", "."}) & set(imports(path)), path.name


def test_nothing_prints():
    for path in SOURCES:
        calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"], path


def test_import_contracts_hold():
    lint = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout


PACKAGES = (
    "storage", "audio", "catalog", "features", "jobs", "evaluation", "models", "training", "tagging", "engines", "cli",
    "corpora",
)  # fmt: skip


def test_packages_are_those_of_the_design():
    folders = {path.parent.name for path in (ROOT / "musictag").glob("*/__init__.py")}
    assert folders == set(PACKAGES)
    assert {path.name for path in (ROOT / "musictag").glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_init_of_a_package_holds_only_a_docstring():
    for path in (ROOT / "musictag").glob("*/**/__init__.py"):
        (docstring,) = tree(path).body
        assert isinstance(docstring.value, ast.Constant), path


@pytest.mark.slow
def test_featurize_needs_no_torch():
    code = "import sys; sys.path.insert(0, 'pipelines'); import featurize; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
