"""Fit the classical methods on descriptors of whole tracks, as a baseline for networks.

python pipelines/baseline.py
python pipelines/baseline.py --catalog catalog.csv --features features --methods rbf-svm,random-forest
python pipelines/baseline.py --alias baseline

Tracks, splits and tags are the same as in train.py. Each method becomes a version of the model in MLflow, for
evaluate.py, promote.py and tag.py. With --alias NAME, the version of each method gets the alias NAME-METHOD; without
it, the best method on the validation tracks gets the alias `candidate`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import by_tag, make_vocabulary, targets_by_track
from musictag.cli import options, training_options
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import UsageError
from musictag.evaluation import metrics
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.descriptors import VERSION, describe
from musictag.features.reader import group_by_file, read_tracks
from musictag.features.table import decode_clips, feature_config
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main
from musictag.jobs.labels import echo_problems, read_labels
from musictag.jobs.machine import n_cores
from musictag.models.artifact import save_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_descriptors
from musictag.training import baselines
from musictag.training.finetune import Network

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def describe_tracks(uri: str, files: Mapping[str, Collection[str]], config: FeatureConfig) -> dict[str, Float32]:
    """Compute the descriptors (D,) of tracks in files of the features table on all cores; return them by track_id.

    Memory holds the clips of a few tracks per core.
    """
    found: list[str] = []

    def tasks() -> Iterator[Any]:
        for row in read_tracks(uri, SCORE_COLUMNS, files):
            found.append(row["track_id"])
            weights = clip_weights(row["start_s"], row["duration_s"], config)
            yield joblib.delayed(describe)(decode_clips(row["clips"], config), weights, config)

    n_jobs = n_cores()
    # max_nbytes=None sends clips through pipes instead of files.
    pool = joblib.Parallel(n_jobs, return_as="generator", pre_dispatch=2 * n_jobs, max_nbytes=None)
    descriptors = list(progress.bar(pool(tasks()), "describe", sum(map(len, files.values())), "track"))
    return dict(zip(found, descriptors, strict=True))


def fit_and_log(
    method: str,
    descriptors: Mapping[str, Float32],
    targets: Mapping[str, Bools],
    vocabulary: tuple[str, ...],
    config: FeatureConfig,
    features_version: int,
    params: Mapping[str, object],
    args: argparse.Namespace,
) -> tuple[str, float]:
    """Fit one method on the train split, log it as an MLflow run, register it.

    Descriptors (N, D) and targets (N, K) are given by split. `features_version` is the version of the features table.
    Returns the version of the model, and the macro PR-AUC on the validation split.
    """
    started = time.perf_counter()
    model, chosen = baselines.fit(
        method, descriptors["train"], targets["train"], descriptors["validation"], targets["validation"], args.seed
    )
    fit_seconds = time.perf_counter() - started
    scores = score_descriptors(model, descriptors["validation"])
    figures = metrics.validation_metrics(targets["validation"], scores)
    network = Network(architecture=method, params=model.params, feature_config=config, vocabulary=vocabulary)
    run = mlflow_runs.start_run(
        f"baseline {method}", {"model": method, **params, **chosen}, {"feature_hash": config.feature_hash}
    )
    with run as run_id, tempfile.TemporaryDirectory() as folder:
        mlflow_runs.log_features(args.features, features_version, config.feature_hash)
        mlflow_runs.log_metrics(run_id, {f"best_{name}": figure for name, figure in figures.items()})
        mlflow_runs.log_metrics(run_id, {"fit_seconds": fit_seconds})
        min_precision = by_tag(args.min_precision, vocabulary)
        spec = network.spec(targets["validation"], scores, {"run_id": run_id}, min_precision)
        save_model(Path(folder), model, spec)
        uri = mlflow_runs.log_model(run_id, Path(folder))
    version = mlflow_registry.register(mlflow_registry.fetch(uri))
    choice = ", ".join(f"{name} {value}" for name, value in chosen.items())
    progress.echo(
        f"{method} ({choice}): validation macro PR-AUC {figures['val_macro_pr_auc']:.3f}, ROC-AUC "
        f"{figures['val_macro_roc_auc']:.3f}; fitted in {fit_seconds:.0f} s; version {version}: {uri}"
    )
    return version, figures["val_macro_pr_auc"]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_labels(parser)
    parser.add_argument("--methods", type=_methods, metavar="all|METHOD,METHOD", default=list(baselines.GRIDS),
                        help=f"methods to fit: {', '.join(baselines.GRIDS)} (default: all)")  # fmt: skip
    parser.add_argument("--vocabulary", type=options.names, metavar="TAG,TAG", help="tags to learn (default: all)")
    parser.add_argument("--min-precision", type=training_options.precisions, metavar="TAG=SHARE,…", default={},
                        help="minimum precision of some tags, see train.py")  # fmt: skip
    parser.add_argument(
        "--seed",
        type=options.number(int, minimum=0),
        default=0,
        help="seed of all random numbers (default: %(default)s)",
    )
    parser.add_argument("--alias", metavar="NAME", help="give each method's version the alias NAME-METHOD")
    return parser.parse_args(argv)


def _methods(text: str) -> list[str]:
    names = list(baselines.GRIDS) if text == "all" else options.names(text)
    if unknown := sorted(set(names) - set(baselines.GRIDS)):
        raise UsageError(f"--methods has {', '.join(unknown)}; there is {', '.join(baselines.GRIDS)}, and all")
    return names


def main(argv: list[str]) -> None:
    """Describe the tracks, then fit, log and register each method."""
    args = parse(argv)
    mlflow_runs.connect()
    config = feature_config(tables.open_table(args.features))
    catalog = read_catalog(args.catalog, columns=splits.LABEL_COLUMNS)
    echo_problems(catalog, merge_tag_case=args.merge_tag_case)
    spelling = (args.vocabulary or ()) if args.merge_tag_case else None
    version = tables.version(args.features)
    labels = read_labels(catalog, args.features, version, merge_tag_case=spelling)
    progress.echo(str(labels))
    (tags,) = splits.folds(labels, 1)
    vocabulary = make_vocabulary(tags["train"].values(), args.vocabulary)
    by_tag(args.min_precision, vocabulary)  # refuses unknown tags before the work starts

    started = time.perf_counter()
    learned = {track_id: labels.file_by_track[track_id] for part in tags.values() for track_id in part}
    files = group_by_file(args.features, version, learned)
    by_track = describe_tracks(args.features, files, config)
    describe_seconds = time.perf_counter() - started
    descriptors = {split: np.stack([by_track[track_id] for track_id in part]) for split, part in tags.items()}
    targets = {split: np.stack(list(targets_by_track(part, vocabulary).values())) for split, part in tags.items()}
    params = {"features": args.features, "catalog": args.catalog, "vocabulary": ",".join(vocabulary),
              **{f"n_{split}": len(part) for split, part in tags.items()}, "min_precision": args.min_precision,
              "descriptors": VERSION, "seed": args.seed}  # fmt: skip

    versions, pr_auc = {}, {}
    for method in args.methods:
        versions[method], pr_auc[method] = fit_and_log(
            method, descriptors, targets, vocabulary, config, version, params, args
        )
        if args.alias:
            mlflow_registry.set_alias(versions[method], f"{args.alias}-{method}")
    # NaN, if no validation track has a tag, counts as the lowest.
    best = max(pr_auc, key=lambda method: np.nan_to_num(pr_auc[method], nan=-1.0))
    if not args.alias:
        mlflow_registry.set_alias(versions[best], "candidate")
    alias = f"{args.alias}-METHOD" if args.alias else "the best is the candidate"
    progress.echo(
        f"{len(by_track):,} tracks described in {describe_seconds:.0f} s, {len(versions)} methods fitted; best {best} "
        f"(macro PR-AUC {pr_auc[best]:.3f}); versions {', '.join(versions.values())} of {mlflow_registry.MODEL}, "
        f"{alias}"
    )


if __name__ == "__main__":
    sys.exit(run_main(main))
