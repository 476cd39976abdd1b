"""Train a tagger on Ray Train: clips come from the features table, labels from the catalog.

python pipelines/train.py
python pipelines/train.py --catalog catalog.csv --features s3://bucket/features --num-workers 8 --use-gpu
python pipelines/train.py --catalog catalog.csv --features features --init msd-musicnn,mtt-musicnn

Each worker runs `training.loop.fit` on its share of the tracks, read from the table as it was when training began;
the training loss is the first worker's. A checkpoint after every epoch lets training go on when a worker is lost. What
starts from other models (--init) is trained in folds, one after another: of the train and validation tracks each fold
holds others back, and the model is the mean of their networks. Calibration and thresholds come from the tracks held
back, scored by the networks that did not learn them (though all folds start from one guess, how frequent each tag is).
MLflow names the model `candidate`.
"""

import argparse
import copy
import dataclasses
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from musictag.engines import ray_cluster  # isort: skip # first: it prepares the environment for Ray

import numpy as np
import numpy.typing as npt
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.exceptions import TrainingFailedError
from torch import nn

from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import by_tag, coverage_warnings, make_vocabulary, targets_by_track
from musictag.cli import options
from musictag.cli.training_options import add_options, check_options, n_folds, training_config
from musictag.engines import mlflow_registry
from musictag.errors import MusictagError, TrainingError
from musictag.evaluation import metrics
from musictag.features.table import feature_config
from musictag.jobs import progress
from musictag.jobs.process import n_cores, run_main
from musictag.models.artifact import copy_notices, load_model, save_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches, losses
from musictag.training.checkpoints import TrainingState, load_states, save_states
from musictag.training.config import TrainingConfig
from musictag.training.finetune import Network, average_weights, network_from, network_from_scratch
from musictag.training.loop import fit
from musictag.training.recipes import DEFAULT_MODEL

MAX_WORKER_FAILURES = 3

Truth = dict[str, npt.NDArray[np.bool_]]
"""`truth[track_id]`, (K,) each."""

Fold = dict[str, Truth]
"""`fold[split]`: the truth of the tracks that train a network and of those that validate it."""

Scored = tuple[list[str], npt.NDArray[np.bool_], npt.NDArray[np.float32]]
"""Track ids, targets (N, K) and joined scores (N, K)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker needs to know."""

    network: Network
    features_uri: str
    features_version: int
    training: TrainingConfig
    folds: list[Fold]
    n_cores: int
    run_id: str
    tracking_uri: str

    def rows(self, truth: Truth) -> Iterator[batches.Row]:
        """The rows of some tracks with their targets, in the table's order."""
        rows = tables.read_rows(self.features_uri, SCORE_COLUMNS, truth, self.features_version)
        return batches.labelled_rows(rows, truth)

    def score_validation(self, model: nn.Module, fold: Fold) -> Scored:
        """The tracks that a fold holds back, scored."""
        return score_labelled(model, self.rows(fold["validation"]), self.network.feature_config)


def train_worker(loop_config: dict[str, Job]) -> None:
    """One worker's share of the training: fold after fold, all of them from the same weights."""
    job, context = loop_config["job"], ray.train.get_context()
    os.environ["MLFLOW_TRACKING_URI"] = job.tracking_uri
    torch.set_num_threads(max(1, job.n_cores // context.get_local_world_size()))
    bare = job.network.build(job.training.seed)
    fresh = copy.deepcopy(bare.state_dict())
    model = ray.train.torch.prepare_model(bare)
    states = held(ray.train.get_checkpoint())
    for number in range(len(job.folds)):
        bare.load_state_dict(fresh)
        states[number : number + 1] = [train_fold(job, model, number, states)]  # later ones may be of the checkpoint


def train_fold(job: Job, model: nn.Module, number: int, states: Sequence[TrainingState]) -> TrainingState:
    """Train one fold: the pure loop, between the table and Ray's checkpoints; `states` are of those begun before."""
    context = ray.train.get_context()
    rank, n_workers = context.get_world_rank(), context.get_world_size()
    config, fold = job.training, job.folds[number]
    n_rows = len(fold["train"]) // n_workers
    weights = losses.class_weights(np.mean(list(fold["train"].values()), axis=0), config.class_weight)
    loss = functools.partial(losses.mean_loss, name=config.loss, smoothing=config.smoothing, weights=weights)

    def train_batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        mine = batches.shard(fold["train"], rank, n_workers, seed=[config.seed, epoch])
        rows = job.rows({track_id: fold["train"][track_id] for track_id in mine})
        return batches.train_batches(rows, job.network.feature_config, config, epoch=epoch, rank=rank)

    def validate(bare: nn.Module) -> Mapping[str, float]:
        results: list[dict[str, float]] = [{}]
        if rank == 0:
            results = [metrics.validation_metrics(*job.score_validation(bare, fold)[1:])]
        if n_workers > 1:  # all must stop after the same epoch
            torch.distributed.broadcast_object_list(results, src=0)
        return results[0]

    def on_epoch(state: TrainingState) -> None:
        step = number * config.epochs + state.epoch
        clips_per_s = n_workers * state.history[-1]["clips_per_s"]
        epoch = {**state.history[-1], "epoch": step, "clips_per_s": clips_per_s}
        if rank != 0:
            ray.train.report(epoch)
            return
        mlflow_registry.connect()
        mlflow_registry.log_metrics(job.run_id, epoch, step=step)
        with tempfile.TemporaryDirectory() as folder:
            save_states(Path(folder), [*states[:number], state])
            ray.train.report(epoch, checkpoint=ray.train.Checkpoint.from_directory(folder))

    return fit(
        model, config, train_batches=train_batches, steps_per_epoch=batches.count_batches(n_rows, config),
        validate=validate, on_epoch=on_epoch, loss=loss, state=states[number] if number < len(states) else None,
    )  # fmt: skip


def held(checkpoint: ray.train.Checkpoint | None) -> list[TrainingState]:
    """The states that a checkpoint holds of the folds that were begun."""
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as folder:
        return load_states(Path(folder))


def fit_on_ray(job: Job, args: argparse.Namespace) -> list[TrainingState]:
    """Run the workers; the state of each fold after its last epoch."""
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(num_workers=args.num_workers, use_gpu=args.use_gpu),
        run_config=ray.train.RunConfig(
            name=job.run_id,
            storage_path=tables.absolute(args.checkpoints),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=MAX_WORKER_FAILURES),
        ),
    )
    try:
        checkpoint = trainer.fit().checkpoint
    except TrainingFailedError as error:
        causes = list(getattr(error, "worker_failures", {}).values()) or [error]
        ours = [cause for cause in causes if isinstance(cause, MusictagError)]
        raise (ours or [TrainingError(f"the workers failed: {str(causes[0]).strip().splitlines()[-1]}")])[0] from error
    states = held(checkpoint)
    if len(states) < len(job.folds):
        raise TrainingError("training ended without a checkpoint of each fold: no epoch was finished")
    return states


def joined(job: Job, states: list[TrainingState]) -> tuple[nn.Module, Scored]:
    """The mean of the folds' networks; and the tracks that each held back, scored by its own."""
    model, held_back = job.network.build(job.training.seed).eval(), []
    for fold, state in zip(job.folds, states, strict=True):
        model.load_state_dict(state.best_weights)
        held_back.append(job.score_validation(model, fold))
    model.load_state_dict(average_weights([state.best_weights for state in states]))
    track_ids, truth, scores = (np.concatenate(of_folds) for of_folds in zip(*held_back, strict=True))
    return model, (track_ids.tolist(), truth, scores)


def parse(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", default=options.CATALOG, help="tracks and their tags (default: %(default)s)")
    parser.add_argument(
        "--features", default=options.FEATURES, help="Delta table of featurize.py (default: %(default)s)"
    )
    add_options(parser)
    options.add_workers(parser, 1, "processes that train together")
    parser.add_argument("--checkpoints", default="data/checkpoints", help="folder or url that all workers reach")
    parser.add_argument("--alias", default="candidate", help="what to name the model (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.use_gpu:
        ray_cluster.check_gpus(args.num_workers, torch.cuda.device_count())
    check_options(args)
    return args


def main(argv: list[str]) -> None:
    """Train, fit thresholds, log, and name the model."""
    args = parse(argv)
    training = training_config(args, fine_tuning=bool(args.init))
    tracking_uri = mlflow_registry.connect()
    table = tables.open_table(args.features)
    config = feature_config(table)
    sources = [mlflow_registry.fetch(uri) for uri in args.init]
    init = {"init": ",".join(source.uri for source in sources)} if sources else {}
    catalog = read_catalog(args.catalog)
    for problem in catalog.problems:
        progress.echo(f"{args.catalog}, {problem}")
    splits_uri = tables.companion_uri(args.features, "splits")
    labels = splits.tags_by_split(catalog.tracks, tables.track_ids(args.features, table.version()), splits_uri)
    progress.echo(str(labels))
    parts = splits.folds(labels, n_folds(args, fine_tuning=bool(args.init)))
    vocabulary = make_vocabulary([tags for part in parts for tags in part["train"].values()], args.vocabulary)
    for sentence in coverage_warnings(vocabulary, parts, labels.tags):
        progress.echo(sentence)
    min_precision = by_tag(args.min_precision, vocabulary)
    folds = [{split: targets_by_track(tags, vocabulary) for split, tags in part.items()} for part in parts]
    if sources:
        learned = {track_id: targets for fold in folds for track_id, targets in fold["train"].items()}
        loaded = [load_model(source.folder) for source in sources]
        network = network_from(loaded, config, vocabulary, learned.values())
    else:
        network = network_from_scratch(args.model or DEFAULT_MODEL, args.model_params, config, vocabulary)
    network.build(training.seed)  # what it cannot be built of is said here, before anything starts

    params = {"model": network.architecture, **init, "features": args.features, "catalog": args.catalog,
              **{f"n_{split}": len(labels.tags[split]) for split in ("train", "validation")}, "folds": len(folds),
              "num_workers": args.num_workers, "use_gpu": args.use_gpu, "vocabulary": ",".join(vocabulary),
              "min_precision": args.min_precision, **dataclasses.asdict(training)}  # fmt: skip
    run = mlflow_registry.start_run(f"train {network.architecture}", params, {"feature_hash": config.feature_hash})
    with run as run_id, ray_cluster.connect(num_cpus=args.num_workers):
        mlflow_registry.log_features(str(args.features), table.version(), config.feature_hash)
        job = Job(network=network, features_uri=tables.absolute(args.features), features_version=table.version(),
                  training=training, folds=folds, n_cores=n_cores(), run_id=run_id,
                  tracking_uri=tracking_uri)  # fmt: skip
        epochs = len(folds) * training.epochs
        with progress.polling_bar("train", epochs, lambda: mlflow_registry.latest_step(run_id), unit="epoch"):
            states = fit_on_ray(job, args)
        model, (track_ids, truth, scores) = joined(job, states)
        judged = np.isin(track_ids, list(labels.tags["validation"]))  # the same tracks for all models
        of_validation = metrics.validation_metrics(truth[judged], scores[judged])
        figures = {f"best_{name}": figure for name, figure in of_validation.items()}
        mlflow_registry.log_metrics(run_id, figures)
        best = ", ".join(str(state.epoch - state.epochs_since_best) for state in states)
        with tempfile.TemporaryDirectory() as folder:
            provenance = {"run_id": run_id, "best_epoch": best, **init}
            save_model(Path(folder), model, network.spec(truth, scores, provenance, min_precision))
            for source in sources:
                copy_notices(source.folder, Path(folder))
            uri = mlflow_registry.log_model(run_id, Path(folder))
    version = mlflow_registry.register(mlflow_registry.fetch(uri))
    mlflow_registry.set_alias(version, args.alias)
    clips_per_s = [args.num_workers * epoch["clips_per_s"] for state in states for epoch in state.history]
    progress.echo(
        f"{len(clips_per_s)} epochs, best {best} (validation loss {figures['best_val_loss']:.4f}, macro PR-AUC "
        f"{figures['best_val_macro_pr_auc']:.3f}, ROC-AUC {figures['best_val_macro_roc_auc']:.3f}), "
        f"{np.mean(clips_per_s):.0f} clips/s; version {version} is the {args.alias}: {uri}"
    )


if __name__ == "__main__":
    sys.exit(run_main(main))
