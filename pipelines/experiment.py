"""Train and evaluate networks and classical methods on one catalog, and write a page with the results.

python pipelines/experiment.py
python pipelines/experiment.py --catalog my/catalog.csv --features my/features --page my/experiment.md

Runs train.py, baseline.py and evaluate.py. Models that have their alias, and an evaluation on the current test tracks,
are skipped: an interrupted run continues. To start again, use another MLflow store (MLFLOW_TRACKING_URI).
"""

import argparse
import math
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import musictag
from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.cli import options as cli_options
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import TrainingError
from musictag.evaluation import charts, experiment_report, results
from musictag.evaluation.experiment_report import CLASSICAL, NETWORK, Entry
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main
from musictag.jobs.labels import read_labels
from musictag.training import baselines

HERE = Path(__file__).parent
ALIAS = "experiment"
NETWORKS = {
    "three-path": ("--model", "three-path"),
    "cnn": ("--model", "cnn"),
    # Narrower than published, and fewer epochs, so that two CPU cores can train them.
    "resnet": ("--model", "resnet", "--model-params", '{"channels": [16, 32, 64, 64, 64, 64, 128]}', "--epochs", "12"),
    "musicnn": ("--model", "musicnn", "--model-params", '{"timbral": [16, 16], "temporal": [8, 8, 8]}',
                "--epochs", "12", "--clips-per-epoch", "4"),
    "msd-musicnn": ("--init", "msd-musicnn"),
    "msd-and-mtt-musicnn": ("--init", "msd-musicnn,mtt-musicnn"),
}  # fmt: skip
METHODS = tuple(baselines.GRIDS)


Run = Callable[..., None]
"""Runs a script of this folder with options; raises an error if it fails."""


def run_script(script: str, *options: str) -> None:
    """Run another script of this folder; it writes to the same stdout and stderr."""
    progress.echo(f"\n$ {shlex.join(('python', f'pipelines/{script}', *options))}")
    if code := subprocess.run([sys.executable, HERE / script, *options], check=False).returncode:
        raise TrainingError(f"pipelines/{script} ended with exit code {code}: see above; finished models are kept")


def model_uri(name: str) -> str:
    return f"models:/{mlflow_registry.MODEL}@{ALIAS}-{name}"


def train_missing(args: argparse.Namespace, run: Run) -> None:
    """Train the models that have no alias yet."""
    where = "--catalog", args.catalog, "--features", args.features
    for name, options in NETWORKS.items():
        if mlflow_registry.alias_version(f"{ALIAS}-{name}") is None:
            run("train.py", *where, "--checkpoints", args.checkpoints, "--alias", f"{ALIAS}-{name}", *options)
    if missing := [name for name in METHODS if mlflow_registry.alias_version(f"{ALIAS}-{name}") is None]:
        run("baseline.py", *where, "--alias", ALIAS, "--methods", ",".join(missing))


def evaluate(name: str, args: argparse.Namespace, labels: splits.Labels, run: Run) -> Entry:
    """Return a model with its evaluation; evaluate it if there is none on the current test tracks."""
    source = mlflow_registry.fetch(model_uri(name))
    if source.run_id is None:
        raise TrainingError(f"{source.uri} has no MLflow run: train it with this script")

    def read_stored() -> results.Evaluation | None:
        scores = mlflow_runs.evaluation_file(str(source.run_id), "test", results.SCORES_FILE)
        return results.read(scores, source.uri) if scores else None

    evaluation = read_stored()
    if evaluation is None or not results.has_labels(evaluation, labels.tags["test"]):
        run("evaluate.py", "--catalog", args.catalog, "--features", args.features, "--model", model_uri(name))
        evaluation = read_stored()
    if evaluation is None:
        raise TrainingError(f"{source.uri} has no evaluation on the test split, although evaluate.py succeeded")
    cost = mlflow_runs.cost(source.run_id)
    return Entry(
        name=name,
        kind=NETWORK if name in NETWORKS else CLASSICAL,
        evaluation=evaluation,
        validation_pr_auc=cost.get("best_val_macro_pr_auc", math.nan),
        minutes=cost["seconds"] / 60,
    )


def describe_run(args: argparse.Namespace, evaluation: results.Evaluation, labels: splits.Labels) -> str:
    """Return the introduction of the page: catalog, tags, tracks, artists, version."""
    artists = set(evaluation.groups)
    known = artists & {labels.groups[track_id] for split in ("train", "validation") for track_id in labels.tags[split]}
    tracks, tags = evaluation.targets.shape
    return (
        f"Catalog `{args.catalog}`; {tags} tags; judged on {tracks} test tracks of {len(artists)} artists, "
        f"{len(known) or 'none'} of whom have train or validation tracks as well. What the published networks (`msd`, "
        f"`mtt`) had learned before is not known. musictag {musictag.__version__}. Made by `python "
        "pipelines/experiment.py`."
    )


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", default=cli_options.CATALOG, help="tracks and their tags (default: %(default)s)")
    parser.add_argument(
        "--features", type=cli_options.location, default=cli_options.FEATURES,
        help="Delta table of featurize.py (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoints", type=cli_options.location, default="data/checkpoints",
        help="folder or URL that all workers can reach (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, default=Path("experiment.md"), help="Markdown file to write (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: list[str], run: Run = run_script) -> None:
    """Train and evaluate the models that are missing; write the page and its chart."""
    args = parse(argv)
    mlflow_runs.connect()
    train_missing(args, run)
    labels = read_labels(read_catalog(args.catalog, columns=splits.LABEL_COLUMNS), args.features)
    entries = [evaluate(name, args, labels, run) for name in (*NETWORKS, *METHODS)]
    network, classical = experiment_report.best(entries, NETWORK), experiment_report.best(entries, CLASSICAL)
    chart = args.page.with_suffix(".png")
    args.page.parent.mkdir(parents=True, exist_ok=True)
    names = network.name, classical.name
    charts.save_figure(charts.comparison_chart(network.evaluation, classical.evaluation, names), chart)
    text = experiment_report.page("The experiment", describe_run(args, network.evaluation, labels), entries, chart.name)
    args.page.write_text(text, encoding="utf-8")
    progress.echo(f"\n{experiment_report.verdict(network, classical)}\n{len(entries)} models: {args.page}, {chart}")


if __name__ == "__main__":
    sys.exit(run_main(main))
