"""Train a tagger on Ray Train: clips come from the features table, labels from the catalog.

python pipelines/train.py
python pipelines/train.py --catalog catalog.csv --features s3://bucket/features --num-workers 8 --use-gpu
python pipelines/train.py --catalog catalog.csv --features features --init msd-musicnn,mtt-musicnn

Each worker trains on its share of the tracks, and opens only the files of the table that hold them, as they were at the
start of the run. Several workers share each batch: the number of workers changes the speed, not the steps. Each epoch
ends with a checkpoint, from which training continues if a worker is lost. If training is interrupted as a whole, the
same command continues it, in the same MLflow run; --fresh starts anew.

With --init, networks are trained in folds, one after another. Each fold holds back other tracks of the train and
validation splits. The model is the mean of their weights. Calibration and thresholds are fitted on the tracks that were
held back, scored by the network that did not learn them (except that the head of every fold starts from tag frequencies
that are counted in the tracks of all folds).

The new version gets the alias `candidate` in MLflow.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from musictag.engines import ray_cluster  # isort: skip # first: it prepares the environment for Ray

import numpy as np
import numpy.typing as npt
import ray.train
import ray.train.torch
import torch
from torch import nn

from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import by_tag, coverage_warnings
from musictag.cli import options, training_options
from musictag.engines import interrupted_training, mlflow_registry, mlflow_runs, ray_training
from musictag.errors import TrainingError
from musictag.evaluation import metrics
from musictag.features.config import FeatureConfig
from musictag.features.reader import group_by_file
from musictag.features.table import feature_config
from musictag.jobs import progress
from musictag.jobs.cost import Cost
from musictag.jobs.entry_point import run_main
from musictag.jobs.labels import echo_problems, read_labels, tag_counts_csv
from musictag.jobs.machine import n_cores
from musictag.jobs.near_duplicates import echo_near_duplicates, find_near_duplicates
from musictag.models.artifact import save_model
from musictag.models.artifact_files import copy_notices
from musictag.storage import heartbeats, tables
from musictag.training.checkpoints import Scored, TrainingState, load_scored, load_states, save_scored, save_states
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset, make_dataset
from musictag.training.finetune import Network, average_weights, make_network
from musictag.training.fingerprint import fingerprint
from musictag.training.folds import score_fold, score_held_back, train_folds, validation_metrics
from musictag.training.loader import loading
from musictag.training.loop import fit


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a worker needs."""

    network: Network
    dataset: Dataset
    training: TrainingConfig
    run_id: str
    tracking_uri: str


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_labels(parser)
    training_options.add_options(parser)
    options.add_workers(parser, 1, "processes that train together")
    parser.add_argument(
        "--checkpoints", type=options.location, default="data/checkpoints",
        help="folder or URL that all workers can reach (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--fresh", action="store_true", help="do not continue an interrupted training of the same model"
    )
    parser.add_argument("--alias", default="candidate", help="alias of the new version (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.use_gpu:
        ray_cluster.check_gpus(args.num_workers, torch.cuda.device_count())
    training_options.check_options(args)
    return args


@dataclasses.dataclass(frozen=True)
class Plan:
    """The model to train, and the tracks to train it on."""

    labels: splits.Labels
    features_version: int
    dataset: Dataset
    network: Network
    training: TrainingConfig
    min_precision: npt.NDArray[np.float64]
    """Minimum precision (K,) of each tag, or NaN."""
    sources: Sequence[mlflow_registry.ModelSource]
    """The models that the network starts from."""
    n_near_duplicates: int

    @property
    def init(self) -> dict[str, str]:
        """Return the sources as params and provenance."""
        return {"init": ",".join(source.uri for source in self.sources)} if self.sources else {}

    @property
    def n_epochs(self) -> int:
        """Return the maximum number of epochs of all folds."""
        return len(self.dataset.folds) * self.training.epochs


def main(argv: list[str]) -> None:
    """Train, fit thresholds, log and register the model."""
    args = parse(argv)
    tracking_uri = mlflow_runs.connect()
    plan = make_plan(args)
    checkpoints = tables.absolute(args.checkpoints)
    key = fingerprint(plan.network, plan.dataset, plan.training, args.min_precision, plan.labels.row_versions)
    interrupted = interrupted_training.take_over(key, checkpoints, fresh=args.fresh)
    seconds_before = mlflow_runs.logged_seconds(interrupted) if interrupted else 0.0
    run = mlflow_runs.continue_run(interrupted) if interrupted else start_run(plan, args, key, checkpoints)
    with run as run_id, heartbeats.running(checkpoints, run_id):
        if interrupted:
            n_logged = mlflow_runs.latest_step(run_id)
            progress.echo(
                f"continuing the interrupted run {run_id}: {n_logged} of {plan.n_epochs} epochs are logged; --fresh "
                "starts anew"
            )
        # Before the first epoch, because it also shows that the artifact store takes files.
        mlflow_runs.log_text(run_id, tag_counts_csv(plan.labels, plan.dataset.vocabulary), "training/tags.csv")
        mlflow_runs.wait_for_server()
        started = time.monotonic()
        job = Job(plan.network, plan.dataset, plan.training, run_id, tracking_uri)
        with (
            ray_cluster.connect(num_cpus=args.num_workers),
            progress.polling_bar("train", plan.n_epochs, lambda: mlflow_runs.latest_step(run_id), unit="epoch"),
        ):
            states, held_back = train_on_ray(job, args, checkpoints)
        seconds = seconds_before + time.monotonic() - started
        cost = training_cost(len(plan.dataset.train_targets()), seconds, args)
        figures = validation_metrics(held_back, plan.labels.tags["validation"])
        mlflow_runs.log_metrics(run_id, {**figures, "core_seconds": cost.core_seconds, "gpu_seconds": cost.gpu_seconds})
        best = ", ".join(str(state.epoch - state.epochs_since_best) for state in states)
        uri = log_artifact(run_id, plan, states, held_back, best)
        version = mlflow_registry.register(mlflow_registry.fetch(uri))
        mlflow_registry.set_alias(version, args.alias)
    interrupted_training.delete_checkpoints(checkpoints, run_id)
    clips_per_s = [epoch["clips_per_s"] for state in states for epoch in state.history]
    progress.echo(
        f"{len(clips_per_s)} epochs, best {best} (validation loss {figures['best_val_loss']:.4f}, macro PR-AUC "
        f"{figures['best_val_macro_pr_auc']:.3f}, ROC-AUC {figures['best_val_macro_roc_auc']:.3f}), "
        f"{np.mean(clips_per_s):.0f} clips/s, {cost}; version {version} is the {args.alias}: {uri}"
    )


def make_plan(args: argparse.Namespace) -> Plan:
    """Read the labels, and prepare the dataset and the network; print what is left out."""
    training = training_options.training_config(args, fine_tuning=bool(args.init))
    training.per_worker(args.num_workers)  # raises if the workers cannot divide a batch
    table = tables.open_table(args.features)
    version, config = table.version(), feature_config(table)
    sources = [mlflow_registry.fetch(uri) for uri in args.init]
    catalog = read_catalog(args.catalog, columns=splits.LABEL_COLUMNS)
    echo_problems(catalog, merge_tag_case=args.merge_tag_case)
    spelling = (args.vocabulary or ()) if args.merge_tag_case else None
    labels = read_labels(catalog, args.features, version, merge_tag_case=spelling)
    progress.echo(str(labels))
    files = group_by_file(args.features, version, labels.file_by_track)
    dataset = split_tracks(labels, args, files, config)
    min_precision = by_tag(args.min_precision, dataset.vocabulary)
    network = make_network(dataset, [source.folder for source in sources], args.model, args.model_params)
    network.build(training.seed)  # raises here what would fail in the workers
    near_duplicates = find_near_duplicates(labels, args.features, files, config)
    echo_near_duplicates(near_duplicates, labels)
    return Plan(labels, version, dataset, network, training, min_precision, sources, len(near_duplicates))


@contextlib.contextmanager
def start_run(plan: Plan, args: argparse.Namespace, key: str, checkpoints: str) -> Iterator[str]:
    """Start the MLflow run, with its params, tags and dataset; yield its id."""
    params = {"model": plan.network.architecture, **plan.init, "features": args.features, "catalog": args.catalog,
              "checkpoints": checkpoints,
              **{f"n_{split}": len(plan.labels.tags[split]) for split in ("train", "validation")},
              "near_duplicates": plan.n_near_duplicates,
              "folds": len(plan.dataset.folds), "num_workers": args.num_workers, "use_gpu": args.use_gpu,
              "batch_size_per_worker": plan.training.per_worker(args.num_workers).batch_size,
              "vocabulary": ",".join(plan.dataset.vocabulary), "min_precision": args.min_precision,
              **dataclasses.asdict(plan.training)}  # fmt: skip
    feature_hash = plan.dataset.feature_config.feature_hash
    tags = {"feature_hash": feature_hash, mlflow_runs.FINGERPRINT: key}
    with mlflow_runs.start_run(f"train {plan.network.architecture}", params, tags) as run_id:
        mlflow_runs.log_features(str(args.features), plan.features_version, feature_hash)
        yield run_id


def training_cost(n_tracks: int, seconds: float, args: argparse.Namespace) -> Cost:
    """Return the cost of training: a worker takes a core of a cluster, and all cores of this machine."""
    n_cores_used = args.num_workers if "RAY_ADDRESS" in os.environ else n_cores()
    return Cost(n_tracks, n_cores_used * seconds, args.num_workers * seconds if args.use_gpu else 0.0)


def split_tracks(
    labels: splits.Labels, args: argparse.Namespace, files: Mapping[str, Sequence[str]], config: FeatureConfig
) -> Dataset:
    """Split the labelled tracks into folds; print warnings about tags with too few tracks."""
    folds = splits.folds(labels, training_options.n_folds(args, fine_tuning=bool(args.init)))
    uri = tables.absolute(args.features)
    dataset = make_dataset(folds, args.vocabulary, features_uri=uri, files=files, feature_config=config)
    for warning in coverage_warnings(dataset.vocabulary, folds, labels.tags):
        progress.echo(warning)
    return dataset


def log_artifact(run_id: str, plan: Plan, states: Sequence[TrainingState], held_back: Scored, best_epoch: str) -> str:
    """Log the trained model to its run, with the licenses of the models that it started from; return its URI."""
    model = plan.network.build(plan.training.seed).eval()
    model.load_state_dict(average_weights([state.best_weights for state in states]))
    provenance = {"run_id": run_id, "best_epoch": best_epoch, **plan.init}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_model(folder, model, plan.network.spec(*held_back[1:], provenance, plan.min_precision))
        for source in plan.sources:
            copy_notices(source.folder, folder)
        return mlflow_runs.log_model(run_id, folder)


def train_on_ray(job: Job, args: argparse.Namespace, checkpoints: str) -> tuple[list[TrainingState], Scored]:
    """Run the workers; return the last state of each fold, and the tracks that the folds held back, with scores."""
    checkpoint = ray_training.run_workers(
        train_worker,
        {"job": job},
        name=job.run_id,
        storage=checkpoints,
        num_workers=args.num_workers,
        use_gpu=args.use_gpu,
    )
    states, held_back = read_checkpoint(checkpoint)
    if held_back is None:
        raise TrainingError("training ended without a checkpoint of each fold: no epoch was finished")
    return states, held_back


def read_checkpoint(checkpoint: ray.train.Checkpoint | None) -> tuple[list[TrainingState], Scored | None]:
    """Return the states of the folds that were begun, and the scores of held-back tracks, if all are finished."""
    if checkpoint is None:
        return [], None
    with checkpoint.as_directory() as folder:
        return load_states(Path(folder)), load_scored(Path(folder))


def train_worker(loop_config: dict[str, Job]) -> None:
    """Train all folds in one worker of Ray, each from the same initial weights; score the tracks they held back."""
    job, context = loop_config["job"], ray.train.get_context()
    rank, n_workers = context.get_world_rank(), context.get_world_size()
    os.environ["MLFLOW_TRACKING_URI"] = job.tracking_uri
    mlflow_runs.wait_for_server()
    torch.set_num_threads(max(1, n_cores() // context.get_local_world_size()))
    bare = job.network.build(job.training.seed)
    if n_workers > 1 and ray.train.torch.get_device().type == "cuda":  # there is none for CPUs
        bare = nn.SyncBatchNorm.convert_sync_batchnorm(bare)
    initial_weights = copy.deepcopy(bare.state_dict())
    model = ray.train.torch.prepare_model(bare)

    def train(number: int, finished: Sequence[TrainingState], state: TrainingState | None) -> TrainingState:
        bare.load_state_dict(initial_weights)
        return train_fold(job, model, number, finished, state)

    saved, held_back = read_checkpoint(ray.train.get_checkpoint())
    if held_back is not None:  # all is done, and was not logged
        return
    states = train_folds(len(job.dataset.folds), saved, train)
    held_back = score_held_back(bare, job.dataset, states, rank=rank, n_workers=n_workers)
    report_checkpoint({}, states, held_back)


def report_checkpoint(
    epoch: Mapping[str, float], states: Sequence[TrainingState], held_back: Scored | None = None
) -> None:
    """Report to Ray, on all workers; the first one adds a checkpoint."""
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(dict(epoch))
        return
    with tempfile.TemporaryDirectory() as folder:
        save_states(Path(folder), states)
        if held_back is not None:
            save_scored(Path(folder), held_back)
        ray.train.report(dict(epoch), checkpoint=ray.train.Checkpoint.from_directory(folder))


def train_fold(
    job: Job, model: nn.Module, number: int, finished: Sequence[TrainingState], state: TrainingState | None
) -> TrainingState:
    """Train one fold; report each epoch to MLflow and Ray, with a checkpoint of all folds so far."""
    context = ray.train.get_context()
    rank, n_workers = context.get_world_rank(), context.get_world_size()
    dataset, training = job.dataset, job.training
    device = next(model.parameters()).device
    draw = functools.partial(dataset.draw_batches, fold=number, training=training, rank=rank, n_workers=n_workers)
    n_steps = dataset.count_train_batches(number, training, n_workers=n_workers)
    epochs = range(state.epoch if state else 0, training.epochs)

    def validate(bare: nn.Module) -> Mapping[str, float]:
        scored = score_fold(bare, dataset, number, rank=rank, n_workers=n_workers)
        return metrics.validation_metrics(*scored[1:])

    def report(state: TrainingState) -> None:
        step = number * training.epochs + state.epoch
        epoch = {**state.history[-1], "epoch": step}
        if rank == 0:
            mlflow_runs.connect()
            mlflow_runs.log_metrics(job.run_id, epoch, step=step)
        report_checkpoint(epoch, [*finished, state])

    with loading(draw, epochs, n_steps, device, ahead=device.type == "cuda") as train_batches:
        return fit(model, training, train_batches=train_batches, steps_per_epoch=n_steps, validate=validate,
                   on_epoch=report, state=state)  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_main(main))
