"""Train and evaluate every kind of model on one catalog, networks beside classical methods, and write a page of it.

python pipelines/experiment.py
python pipelines/experiment.py --catalog my/catalog.csv --features my/features --page my/experiment.md

It runs train.py, baseline.py and evaluate.py. A model that has its alias, and its evaluation, is done: a run that was
stopped goes on. To begin anew, name another MLflow store (MLFLOW_TRACKING_URI).
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

import musictag
from musictag import baseline, charts, cli, console, evaluation, page, registry
from musictag.errors import TrainingError
from musictag.page import CLASSICAL, NETWORK, Entry

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
METHODS = tuple(baseline.GRIDS)


def run(script: str, *options: str) -> None:
    """Run another script of this folder, with the output of this one."""
    console.say(f"\n$ python pipelines/{script} {' '.join(options)}")
    if code := subprocess.run([sys.executable, HERE / script, *options], check=False).returncode:
        raise TrainingError(f"pipelines/{script} ended with exit code {code}: see above; what is done stays done")


def uri_of(name: str) -> str:
    """What a model of the experiment is called."""
    return f"models:/{registry.MODEL}@{ALIAS}-{name}"


def train(args: argparse.Namespace) -> None:
    """Train and evaluate what is not there yet."""
    where = "--catalog", args.catalog, "--features", args.features
    for name, options in NETWORKS.items():
        if registry.alias_version(f"{ALIAS}-{name}") is None:
            run("train.py", *where, "--checkpoints", args.checkpoints, "--alias", f"{ALIAS}-{name}", *options)
    if missing := [name for name in METHODS if registry.alias_version(f"{ALIAS}-{name}") is None]:
        run("baseline.py", *where, "--alias", ALIAS, "--methods", ",".join(missing))
    for name in (*NETWORKS, *METHODS):
        if evaluated(name) is None:
            run("evaluate.py", *where, "--model", uri_of(name))


def evaluated(name: str) -> Path | None:
    """The file of a model's evaluation on the test split, or None."""
    source = registry.fetch(uri_of(name))
    return registry.evaluation_file(source.run_id, "test", evaluation.SCORES_FILE) if source.run_id else None


def entry(name: str) -> Entry:
    """A model of the experiment, as MLflow knows it."""
    run_id, scores = registry.fetch(uri_of(name)).run_id, evaluated(name)
    if run_id is None or scores is None:
        raise TrainingError(f"{uri_of(name)} has no evaluation on the test split")
    cost = registry.cost(run_id)
    return Entry(
        name=name,
        kind=NETWORK if name in NETWORKS else CLASSICAL,
        evaluation=evaluation.from_table(pq.read_table(scores)),
        validation_pr_auc=cost["best_val_macro_pr_auc"],
        minutes=cost["seconds"] / 60,
    )


def parse(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", default=cli.CATALOG, help="tracks and their tags (default: %(default)s)")
    parser.add_argument("--features", default=cli.FEATURES, help="Delta table of featurize.py (default: %(default)s)")
    parser.add_argument("--checkpoints", default="data/checkpoints", help="folder or url that all workers reach")
    parser.add_argument("--page", type=Path, default=Path("experiment.md"), help="what to write (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Do what is missing, then write the page and its chart."""
    args = parse(argv)
    registry.connect()
    train(args)
    entries = [entry(name) for name in (*NETWORKS, *METHODS)]
    network, classical = page.best(entries, NETWORK), page.best(entries, CLASSICAL)
    chart = args.page.with_suffix(".png")
    args.page.parent.mkdir(parents=True, exist_ok=True)
    names = network.name, classical.name
    charts.save_figure(charts.comparison_chart(network.evaluation, classical.evaluation, names), chart)
    tracks, tags = network.evaluation.targets.shape
    about = (
        f"Catalog `{args.catalog}`; {tags} tags; judged on {tracks} test tracks of "
        f"{len(set(network.evaluation.groups))} artists, none of whom any model met. musictag {musictag.__version__}. "
        "Made by `python pipelines/experiment.py`."
    )
    args.page.write_text(page.page("The experiment", about, entries, chart.name), encoding="utf-8")
    console.say(f"\n{page.verdict(network, classical)}\n{len(entries)} models: {args.page}, {chart}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
