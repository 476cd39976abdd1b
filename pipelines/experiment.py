"""Train and evaluate every kind of model on one catalog, networks beside classical methods, and write a page of it.

python pipelines/experiment.py
python pipelines/experiment.py --catalog my/catalog.csv --features my/features --page my/experiment.md

It runs train.py, baseline.py and evaluate.py. A model that has its alias, and an evaluation on the catalog as it is, is
done: a run that was stopped goes on. To begin anew, name another MLflow store (MLFLOW_TRACKING_URI).
"""

import argparse
import math
import shlex
import subprocess
import sys
from pathlib import Path

import musictag
from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.cli import options as cli_options
from musictag.engines import mlflow_registry
from musictag.errors import TrainingError
from musictag.evaluation import charts, experiment_report, results
from musictag.evaluation.experiment_report import CLASSICAL, NETWORK, Entry
from musictag.jobs import progress
from musictag.jobs.process import run_main
from musictag.storage import tables
from musictag.training import baselines

HERE = Path(__file__).parent
ALIAS = "experiment"
NETWORKS = {
    "three-path": ("--model", "three-path"),
    "cnn": ("--model", "cnn"),
    # Some of the published widths, and fewer epochs: what two processor cores can train.
    "resnet": ("--model", "resnet", "--model-params", '{"channels": [16, 32, 64, 64, 64, 64, 128]}', "--epochs", "12"),
    "musicnn": ("--model", "musicnn", "--model-params", '{"timbral": [16, 16], "temporal": [8, 8, 8]}',
                "--epochs", "12", "--clips-per-epoch", "4"),
    "msd-musicnn": ("--init", "msd-musicnn"),
    "msd-and-mtt-musicnn": ("--init", "msd-musicnn,mtt-musicnn"),
}  # fmt: skip
METHODS = tuple(baselines.GRIDS)


def run(script: str, *options: str) -> None:
    """Run another script of this folder, with the output of this one."""
    progress.echo(f"\n$ {shlex.join(('python', f'pipelines/{script}', *options))}")
    if code := subprocess.run([sys.executable, HERE / script, *options], check=False).returncode:
        raise TrainingError(f"pipelines/{script} ended with exit code {code}: see above; what is done stays done")


def uri_of(name: str) -> str:
    """What a model of the experiment is called."""
    return f"models:/{mlflow_registry.MODEL}@{ALIAS}-{name}"


def train(args: argparse.Namespace) -> None:
    """Train what is not there yet."""
    where = "--catalog", args.catalog, "--features", args.features
    for name, options in NETWORKS.items():
        if mlflow_registry.alias_version(f"{ALIAS}-{name}") is None:
            run("train.py", *where, "--checkpoints", args.checkpoints, "--alias", f"{ALIAS}-{name}", *options)
    if missing := [name for name in METHODS if mlflow_registry.alias_version(f"{ALIAS}-{name}") is None]:
        run("baseline.py", *where, "--alias", ALIAS, "--methods", ",".join(missing))


def judged(name: str, args: argparse.Namespace, labels: splits.Labels) -> Entry:
    """A model of the experiment with its evaluation, made anew if there is none of today's test tracks."""
    source = mlflow_registry.fetch(uri_of(name))
    if source.run_id is None:
        raise TrainingError(f"{source.uri} comes from no MLflow run: train it by this script")

    def kept() -> results.Evaluation | None:
        scores = mlflow_registry.evaluation_file(str(source.run_id), "test", results.SCORES_FILE)
        return results.read(scores, source.uri) if scores else None

    known = kept()
    if known is None or not results.is_of(known, labels.tags["test"]):
        run("evaluate.py", "--catalog", args.catalog, "--features", args.features, "--model", uri_of(name))
        known = kept()
    if known is None:
        raise TrainingError(f"{source.uri} has no evaluation on the test split, though evaluate.py ended well")
    cost = mlflow_registry.cost(source.run_id)
    return Entry(
        name=name,
        kind=NETWORK if name in NETWORKS else CLASSICAL,
        evaluation=known,
        validation_pr_auc=cost.get("best_val_macro_pr_auc", math.nan),
        minutes=cost["seconds"] / 60,
    )


def about(args: argparse.Namespace, judged_by: results.Evaluation, labels: splits.Labels) -> str:
    """What was run, and on what."""
    artists = set(judged_by.groups)
    met = artists & {labels.groups[track_id] for split in ("train", "validation") for track_id in labels.tags[split]}
    tracks, tags = judged_by.targets.shape
    return (
        f"Catalog `{args.catalog}`; {tags} tags; judged on {tracks} test tracks of {len(artists)} artists, "
        f"{len(met) or 'none'} of whom have train or validation tracks as well. What the published networks (`msd`, "
        f"`mtt`) had learned before is not known. musictag {musictag.__version__}. Made by `python "
        "pipelines/experiment.py`."
    )


def parse(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", default=cli_options.CATALOG, help="tracks and their tags (default: %(default)s)")
    parser.add_argument(
        "--features", default=cli_options.FEATURES, help="Delta table of featurize.py (default: %(default)s)"
    )
    parser.add_argument("--checkpoints", default="data/checkpoints", help="folder or url that all workers reach")
    parser.add_argument("--page", type=Path, default=Path("experiment.md"), help="what to write (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Do what is missing, then write the page and its chart."""
    args = parse(argv)
    mlflow_registry.connect()
    train(args)
    tracks = read_catalog(args.catalog).tracks
    labels = splits.tags_by_split(
        tracks, tables.track_ids(args.features), tables.companion_uri(args.features, "splits")
    )
    entries = [judged(name, args, labels) for name in (*NETWORKS, *METHODS)]
    network, classical = experiment_report.best(entries, NETWORK), experiment_report.best(entries, CLASSICAL)
    chart = args.page.with_suffix(".png")
    args.page.parent.mkdir(parents=True, exist_ok=True)
    names = network.name, classical.name
    charts.save_figure(charts.comparison_chart(network.evaluation, classical.evaluation, names), chart)
    text = experiment_report.page("The experiment", about(args, network.evaluation, labels), entries, chart.name)
    args.page.write_text(text, encoding="utf-8")
    progress.echo(f"\n{experiment_report.verdict(network, classical)}\n{len(entries)} models: {args.page}, {chart}")


if __name__ == "__main__":
    sys.exit(run_main(main))
