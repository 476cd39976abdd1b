"""Tag a catalog on Ray Data: score stored features, or audio, with the champion.

python pipelines/tag.py
python pipelines/tag.py --features s3://bucket/features --tags s3://bucket/tags --use-gpu
python pipelines/tag.py --catalog music/ --tags data/music-tags
python pipelines/tag.py --model models:/musictag@candidate --diff

One row is one track with all its clips, from reading to scores: there is no shuffle and no group-by. Scores are
committed every few seconds as they arrive. A second run tags what is new or changed, and everything that another model
tagged; until it ends, readers see two rows of a track, of which the newer one counts. `--diff` scores a sample and
prints how many tracks would gain and lose each tag; it writes nothing.
"""

import argparse
import contextlib
import datetime
import functools
import itertools
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Ray reads this variable when it is imported. Otherwise it logs, as an error, the way in which Ray Data starts the
# actors of `map_batches`.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

from musictag.engines import ray_cluster  # isort: skip # first: it prepares the environment for Ray

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from musictag.catalog.reader import Catalog, read_catalog
from musictag.cli import options
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.features import table
from musictag.features.config import FeatureConfig
from musictag.jobs import copy_sources, ledger
from musictag.jobs.committer import Committer
from musictag.jobs.entry_point import n_cores, run_main
from musictag.jobs.featurizing import featurize_tasks
from musictag.jobs.plan_files import PlanFiles, Task, TaskList
from musictag.jobs.progress import bar
from musictag.jobs.run import Run, Workers, execute
from musictag.models.specs import TaggerSpec
from musictag.storage import etags, tables
from musictag.storage.data_files import table_of
from musictag.storage.outages import ask_table_store
from musictag.tagging import diff
from musictag.tagging.scorers import SCORE_COLUMNS
from musictag.tagging.table import IDENTITY_COLUMNS, TAGS_SCHEMA, ModelIdentity, feature_rows, load_rows, tag_rows
from musictag.tagging.tagger import Tagger, check_features

# Clips that an actor with a GPU scores in one call, about: two of the network's batches.
SCORE_CLIPS = 2_048
# Clips of a track of four minutes, where tracks have all their clips.
SONG_CLIPS = 80
# Tracks that come to this process together.
BLOCK_TRACKS = 256
# Tracks of --diff: the 95 % margin of error of a share is 3 percentage points.
DIFF_TRACKS = 1_000

# Rows that pass through Ray: scored tracks, and tracks that failed.
FAILURE = pa.field("failure", pa.struct(list(ledger.FAILURES_SCHEMA)))
SCORED_SCHEMA = pa.schema([*TAGS_SCHEMA, FAILURE])
# The row of a track whose audio is known, and is not scored again.
TAGGED = pa.field("tagged", pa.struct(list(TAGS_SCHEMA)))


class ScoringActor:
    """A Ray actor that holds the network and scores blocks of feature rows."""

    def __init__(self, model: ModelIdentity, artifact: list[ray.ObjectRef[dict[str, bytes]]], use_gpu: bool) -> None:
        torch.set_num_threads(1)  # the actors run in parallel
        self.model = model
        with tempfile.TemporaryDirectory() as folder:
            for name, content in ray.get(artifact[0]).items():
                (Path(folder) / name).write_bytes(content)
            self.tagger = Tagger.load(Path(folder), "cuda" if use_gpu else "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return rows of `SCORED_SCHEMA` for feature rows; failures and tagged rows pass through."""
        rows = feature_rows(block)
        done = [row.get("tagged") or {"failure": row["failure"]} for row in rows if _is_done(row)]
        scored = tag_rows(self.tagger, [row for row in rows if not _is_done(row)], self.model)
        return pa.Table.from_pylist(scored + done, SCORED_SCHEMA)


def _is_done(row: dict[str, Any]) -> bool:
    return bool(row.get("failure") or row.get("tagged"))


def from_features(plan: PlanFiles | TaskList, features_uri: str, store_timeout_s: float) -> ray.data.Dataset:
    """Read the feature rows of the tasks; files and row groups without such a row are not read."""
    schema = pa.schema([table.SCHEMA.field(name) for name in (*SCORE_COLUMNS, *IDENTITY_COLUMNS)])
    table_uri = tables.absolute(features_uri)  # workers have other folders

    def read_file(path: str, track_ids: set[str]) -> list[pa.Table]:
        return list(tables.read_file(table_uri, path, schema, track_ids))

    def read(tasks: list[Task]) -> Iterator[pa.Table]:
        for path, of_file in itertools.groupby(tasks, lambda task: str(task.features_file)):
            # Read again as a whole if the store does not answer; a part has some 128 MiB.
            read_tasks = functools.partial(read_file, path, {task.track_id for task in of_file})
            yield from ask_table_store(read_tasks, store_timeout_s)

    return from_shards(plan, read)


def from_audio(plan: PlanFiles | TaskList, config: FeatureConfig, args: argparse.Namespace) -> ray.data.Dataset:
    """Featurize the tasks: rows as the features table would have them, or failures."""
    schema = pa.schema([*table.SCHEMA, FAILURE, TAGGED])
    limits, clips_per_track = options.limits(args), args.clips_per_track
    find_row = functools.partial(
        copy_sources.find_row,
        output_uri=tables.absolute(args.tags),
        schema=TAGS_SCHEMA,
        time_column="tagged_at",
        limits=limits,
    )

    def featurize(tasks: list[Task]) -> Iterator[pa.Table]:
        for row, failure in featurize_tasks(tasks, config, clips_per_track, limits, find_row):
            outcome = {"tagged": row} if row and "tags" in row else row or {}
            yield table_of({**outcome, "failure": failure}, schema)

    return from_shards(plan, featurize)


def from_shards(plan: PlanFiles | TaskList, read: Callable[[list[Task]], Iterator[pa.Table]]) -> ray.data.Dataset:
    """Return the rows that `read` gives for the tasks of each part; Ray distributes numbers of shards alone."""

    def read_shards(shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards["id"].to_pylist():
            for _, tasks in plan.read_shard(shard):
                yield from read(tasks)

    return ray.data.range(plan.n_shards, override_num_blocks=plan.n_shards).map_batches(
        read_shards, batch_format="pyarrow"
    )


def score_rows(
    rows: ray.data.Dataset, model: ModelIdentity, folder: Path, gpu_tracks: int | None, n: int
) -> ray.data.Dataset:
    """Score feature rows by actors with the model artifact in `folder`; returns rows of `SCORED_SCHEMA`.

    Each actor has a GPU and scores about `gpu_tracks` tracks in a call, or has none if this is None.
    """
    artifact = ray.put({path.name: path.read_bytes() for path in folder.iterdir()})  # actors may be elsewhere
    return rows.map_batches(
        ScoringActor,
        # The artifact is in a list, because Ray would replace a bare reference by its value.
        fn_constructor_args=(model, [artifact], gpu_tracks is not None),
        batch_format="pyarrow",
        # On CPUs, Ray fuses reading into the actors, where a batch size would count files: each call gets one block, as
        # it was read or decoded. Tasks without a GPU are not fused into actors with one: all CPUs read for the actors.
        batch_size=gpu_tracks,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=n,
            max_size=n,
            # With a GPU, the tracks of the next call are put together while it scores.
            max_concurrent_calls_per_actor=2 if gpu_tracks else 1,
        ),
        num_cpus=1,
        num_gpus=1 if gpu_tracks else 0,
    )


def clips_per_track(args: argparse.Namespace) -> int | None:
    """Return the number of clips of each track, or None if tracks have all their clips."""
    if args.catalog:
        n_clips: int | None = args.clips_per_track
        return n_clips
    return table.stored_clips_per_track(tables.open_table(args.features))


@contextlib.contextmanager
def engine(args: argparse.Namespace) -> Iterator[Workers]:
    """Run Ray in the body."""
    # An actor takes a logical CPU; the tasks that read and decode need some as well.
    with ray_cluster.connect(num_cpus=n_cores() + (args.num_workers or n_cores())), ray_cluster.task_errors():
        n_cpus = ray_cluster.n_workers(use_gpu=False)
        n_gpus = n_actors(args) if args.use_gpu else 0
        yield Workers(max(n_cpus, n_actors(args)), n_cpus, n_gpus)


def n_actors(args: argparse.Namespace) -> int:
    """Return the number of actors that score; Ray must run."""
    return args.num_workers or ray_cluster.n_workers(use_gpu=args.use_gpu)


def score(
    plan: PlanFiles | TaskList,
    model: ModelIdentity,
    folder: Path,
    spec: TaggerSpec,
    args: argparse.Namespace,
) -> Iterator[pa.Table]:
    """Yield tables of `SCORED_SCHEMA` of the tasks as they arrive from Ray, which must run."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors that it logs are raised as well
    ray.data.DataContext.get_current().enable_progress_bars = False
    if args.catalog:
        rows = from_audio(plan, spec.feature_config, args)
    else:
        rows = from_features(plan, args.features, options.limits(args).store_timeout_s)
    gpu_tracks = max(1, SCORE_CLIPS // (clips_per_track(args) or SONG_CLIPS)) if args.use_gpu else None
    scored = score_rows(rows, model, folder, gpu_tracks, n_actors(args))
    yield from map(pa.table, scored.iter_batches(batch_size=BLOCK_TRACKS, batch_format="pyarrow"))


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=mlflow_registry.CHAMPION, help="default: %(default)s")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--features", type=options.location, default=options.FEATURES,
        help="tag every track of this table (default: %(default)s)",
    )  # fmt: skip
    where.add_argument("--catalog", help="tag this catalog straight from its audio, storing no features")
    parser.add_argument(
        "--tags", type=options.location, default=options.TAGS, help="Delta table to write (default: %(default)s)"
    )
    options.add_audio(parser, "with --catalog: ")
    parser.add_argument(
        "--diff", type=options.count, nargs="?", const=DIFF_TRACKS, metavar="N",
        help=f"only say what would change, on N tracks of the tags table (without N: {DIFF_TRACKS:,}); write nothing",
    )  # fmt: skip
    options.add_ledger(parser)
    options.add_workers(parser, None, "actors that score", "one for each GPU or core")
    args = parser.parse_args(argv)
    if args.use_gpu:
        ray_cluster.check_gpus(args.num_workers or 1, torch.cuda.device_count())
    return args


def list_tracks(catalog: Catalog | None, features_uri: str) -> Iterator[pa.RecordBatch]:
    """Yield `track_id, uri, audio_etag` of the tracks of the catalog, or if there is none of the features table.

    Rows of the features table come with their `featurized_at` and the `features_file` that holds them.
    """
    if catalog:
        yield from etags.with_etags(catalog.tracks)
        return
    columns = ("track_id", "uri", "audio_etag", "featurized_at", "__filename")
    for batch in tables.scan(features_uri, columns):
        names = pc.replace_substring_regex(batch["__filename"], ".*/", "")
        yield batch.append_column("features_file", names)


def main(argv: list[str]) -> None:
    """Tag what is new, changed or was tagged by another model; with --diff, only print what would change."""
    args = parse(argv)
    started = datetime.datetime.now(datetime.UTC)
    mlflow_runs.connect()
    model_source = mlflow_registry.fetch(args.model)
    spec = Tagger.load(model_source.folder).spec
    model, source = mlflow_registry.identity(model_source), args.catalog or args.features
    catalog = None
    if args.catalog:
        columns = etags.CATALOG_COLUMNS
        catalog = read_catalog(args.catalog, args.allow, follow_links=args.follow_links, columns=columns)
    else:
        check_features(spec, table.feature_config(tables.open_table(args.features)).feature_hash)

    def score_tasks(plan: PlanFiles | TaskList) -> Iterator[pa.Table]:
        return score(plan, model, model_source.folder, spec, args)

    if args.diff:

        def score_sample(tasks: Sequence[Task]) -> Iterator[pa.Table]:
            with engine(args) as workers:
                yield from score_tasks(TaskList.of(tasks, workers.n))

        diff.echo_diff(
            args.tags, source, list_tracks(catalog, args.features), args.diff, model=model,
            vocabulary=spec.vocabulary, vocabulary_of=mlflow_registry.vocabulary_of, score=score_sample,
        )  # fmt: skip
        return

    failures_uri = tables.companion_uri(args.tags, "failures")
    tables.create_table(args.tags, TAGS_SCHEMA)
    tables.create_table(failures_uri, ledger.FAILURES_SCHEMA)

    def tag(plan: PlanFiles, n_tasks: int, workers: Workers, committer: Committer) -> None:
        with bar((), "tag", n_tasks, "track") as progress_bar:
            for rows in score_tasks(plan):
                failures = pc.drop_null(rows["failure"]).to_pylist()
                committer.add(rows.filter(pc.is_null(rows["failure"])).select(TAGS_SCHEMA.names), failures)
                progress_bar.update(len(rows))

    run = Run(
        source=source,
        listed=list_tracks(catalog, args.features),
        catalog=catalog,
        output_uri=args.tags,
        schema=TAGS_SCHEMA,
        failures_uri=failures_uri,
        producer=model.digest,
        load_rows=lambda connection, name: load_rows(connection, name, args.tags, mlflow_registry.find_digest),
        copies_rows=catalog is not None,  # stored features are not decoded
        time_column="tagged_at",
        task_bytes=table.estimated_row_bytes(spec.feature_config, clips_per_track(args)),
        engine=lambda: engine(args),
        max_attempts=args.max_attempts if catalog else None,  # stored features need no decoder
        max_failures=args.max_failures,
        prune=args.prune,
        prune_limit=args.prune_limit,
        store_timeout_s=options.limits(args).store_timeout_s,
        replace=args.replace,
        started=started,
    )
    execute(run, tag, purpose=f"to tag by {model_source.uri}")


if __name__ == "__main__":
    sys.exit(run_main(main))
