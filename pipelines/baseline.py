"""Fit the classical methods on the descriptors of whole tracks: what a network has to be better than.

python pipelines/baseline.py
python pipelines/baseline.py --catalog catalog.csv --features features --methods rbf-svm,random-forest
python pipelines/baseline.py --alias baseline

Tracks, splits and tags are those of train.py. Each method becomes a version of the model in MLflow, which evaluate.py,
promote.py and tag.py take as any other. With --alias NAME a method's version is called NAME-METHOD; without it the best
on the validation tracks becomes `candidate`.
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
from musictag.engines import mlflow_registry
from musictag.errors import UsageError
from musictag.evaluation import metrics
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.descriptors import VERSION, describe
from musictag.features.table import decode_clips, feature_config
from musictag.jobs import progress
from musictag.jobs.process import n_cores, run_main
from musictag.models.artifact import save_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_descriptors
from musictag.training import baselines
from musictag.training.finetune import Network

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def described(uri: str, track_ids: Collection[str], config: FeatureConfig) -> dict[str, Float32]:
    """Descriptors (D,) of some tracks of the features table, by track_id, made on all cores.

    Memory holds the clips of a few tracks, those that wait for a core.
    """
    found: list[str] = []

    def tasks() -> Iterator[Any]:
        for row in tables.read_rows(uri, SCORE_COLUMNS, track_ids):
            found.append(row["track_id"])
            weights = clip_weights(row["start_s"], row["duration_s"], config)
            yield joblib.delayed(describe)(decode_clips(row["clips"], config), weights, config)

    n_jobs = n_cores()
    # max_nbytes: clips go through pipes, not through files.
    pool = joblib.Parallel(n_jobs, return_as="generator", pre_dispatch=2 * n_jobs, max_nbytes=None)
    of_tracks = list(progress.bar(pool(tasks()), "describe", len(track_ids), "track"))
    return dict(zip(found, of_tracks, strict=True))


def fit_and_log(
    method: str,
    heard: Mapping[str, Float32],
    truth: Mapping[str, Bools],
    vocabulary: tuple[str, ...],
    config: FeatureConfig,
    params: Mapping[str, object],
    args: argparse.Namespace,
) -> tuple[str, float]:
    """Fit one method, log it as a run of its own, and register it; its version, and its macro PR-AUC on validation."""
    started = time.perf_counter()
    model, chosen = baselines.fit(
        method, heard["train"], truth["train"], heard["validation"], truth["validation"], args.seed
    )
    fit_seconds = time.perf_counter() - started
    scores = score_descriptors(model, heard["validation"])
    figures = metrics.validation_metrics(truth["validation"], scores)
    network = Network(architecture=method, params=model.params, feature_config=config, vocabulary=vocabulary)
    run = mlflow_registry.start_run(
        f"baseline {method}", {"model": method, **params, **chosen}, {"feature_hash": config.feature_hash}
    )
    with run as run_id, tempfile.TemporaryDirectory() as folder:
        mlflow_registry.log_features(args.features, tables.version(args.features), config.feature_hash)
        mlflow_registry.log_metrics(run_id, {f"best_{name}": figure for name, figure in figures.items()})
        mlflow_registry.log_metrics(run_id, {"fit_seconds": fit_seconds})
        min_precision = by_tag(args.min_precision, vocabulary)
        spec = network.spec(truth["validation"], scores, {"run_id": run_id}, min_precision)
        save_model(Path(folder), model, spec)
        uri = mlflow_registry.log_model(run_id, Path(folder))
    version = mlflow_registry.register(mlflow_registry.fetch(uri))
    choice = ", ".join(f"{name} {value}" for name, value in chosen.items())
    progress.echo(
        f"{method} ({choice}): validation macro PR-AUC {figures['val_macro_pr_auc']:.3f}, ROC-AUC "
        f"{figures['val_macro_roc_auc']:.3f}; fitted in {fit_seconds:.0f} s; version {version}: {uri}"
    )
    return version, figures["val_macro_pr_auc"]


def parse(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", default=options.CATALOG, help="tracks and their tags (default: %(default)s)")
    parser.add_argument(
        "--features", default=options.FEATURES, help="Delta table of featurize.py (default: %(default)s)"
    )
    parser.add_argument("--methods", type=_methods, metavar="all|METHOD,METHOD", default=list(baselines.GRIDS),
                        help=f"of {', '.join(baselines.GRIDS)} (default: all)")  # fmt: skip
    parser.add_argument("--vocabulary", type=options.names, metavar="TAG,TAG", help="default: all tags")
    parser.add_argument("--min-precision", type=training_options.precisions, metavar="TAG=SHARE,…", default={},
                        help="as train.py has it")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="decides everything random (default: %(default)s)")
    parser.add_argument("--alias", metavar="NAME", help="call each method's version NAME-METHOD")
    return parser.parse_args(argv)


def _methods(text: str) -> list[str]:
    names = list(baselines.GRIDS) if text == "all" else options.names(text)
    if unknown := sorted(set(names) - set(baselines.GRIDS)):
        raise UsageError(f"--methods has {', '.join(unknown)}; there is {', '.join(baselines.GRIDS)}, and all")
    return names


def main(argv: list[str]) -> None:
    """Describe the tracks, then fit, log and register each method."""
    args = parse(argv)
    mlflow_registry.connect()
    config = feature_config(tables.open_table(args.features))
    catalog = read_catalog(args.catalog)
    for problem in catalog.problems:
        progress.echo(f"{args.catalog}, {problem}")
    splits_uri = tables.companion_uri(args.features, "splits")
    labels = splits.tags_by_split(catalog.tracks, tables.track_ids(args.features), splits_uri)
    progress.echo(str(labels))
    (tags,) = splits.folds(labels, 1)
    vocabulary = make_vocabulary(tags["train"].values(), args.vocabulary)
    by_tag(args.min_precision, vocabulary)  # a tag that is none is said before the work

    started = time.perf_counter()
    by_track = described(args.features, [track_id for part in tags.values() for track_id in part], config)
    describe_seconds = time.perf_counter() - started
    heard = {split: np.stack([by_track[track_id] for track_id in part]) for split, part in tags.items()}
    truth = {split: np.stack(list(targets_by_track(part, vocabulary).values())) for split, part in tags.items()}
    params = {"features": args.features, "catalog": args.catalog, "vocabulary": ",".join(vocabulary),
              **{f"n_{split}": len(part) for split, part in tags.items()}, "min_precision": args.min_precision,
              "descriptors": VERSION, "seed": args.seed}  # fmt: skip

    versions, worth = {}, {}
    for method in args.methods:
        versions[method], worth[method] = fit_and_log(method, heard, truth, vocabulary, config, params, args)
        if args.alias:
            mlflow_registry.set_alias(versions[method], f"{args.alias}-{method}")
    # One that is no number, for want of a validation track with a tag, is the least.
    best = max(worth, key=lambda method: np.nan_to_num(worth[method], nan=-1.0))
    if not args.alias:
        mlflow_registry.set_alias(versions[best], "candidate")
    named = f"{args.alias}-METHOD" if args.alias else "the best is the candidate"
    progress.echo(
        f"{len(by_track):,} tracks described in {describe_seconds:.0f} s, {len(versions)} methods fitted; best {best} "
        f"(macro PR-AUC {worth[best]:.3f}); versions {', '.join(versions.values())} of {mlflow_registry.MODEL}, {named}"
    )


if __name__ == "__main__":
    sys.exit(run_main(main))
