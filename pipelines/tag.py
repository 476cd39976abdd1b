"""Tag a catalog on Ray Data: score stored features, or audio, with the champion.

python pipelines/tag.py
python pipelines/tag.py --features s3://bucket/features --tags s3://bucket/tags --use-gpu
python pipelines/tag.py --catalog music/ --tags data/music-tags
python pipelines/tag.py --model models:/musictag@candidate --diff

One row is one track with all its clips, from reading to scores: there is no shuffle and no group-by. Scores are
committed part by part as they arrive. A second run tags what is new or changed, and everything that another model
tagged. `--diff` scores a sample and prints how many tracks would gain and lose each tag; it writes nothing.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# Ray reads this variable when it is imported. Otherwise it logs, as an error, the way in which Ray Data starts the
# actors of `map_batches`.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

from musictag.engines import ray_cluster  # isort: skip # first: it prepares the environment for Ray

import pyarrow as pa
import ray
import ray.data
import torch

from musictag.catalog.reader import Catalog, read_catalog
from musictag.cli import options
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.features import table
from musictag.features.config import FeatureConfig
from musictag.jobs import copy_sources, ledger
from musictag.jobs.entry_point import n_cores, run_main
from musictag.jobs.featurizing import featurize_tasks
from musictag.jobs.plan import CopySource, Plan, Task, part_name, partition
from musictag.jobs.progress import bar
from musictag.jobs.run import Run, execute
from musictag.models.specs import TaggerSpec
from musictag.storage import etags, parts, tables
from musictag.tagging import diff
from musictag.tagging.scorers import SCORE_COLUMNS
from musictag.tagging.table import IDENTITY_COLUMNS, TAGS_SCHEMA, ModelIdentity, read_existing, tag_rows
from musictag.tagging.tagger import Tagger, check_features

# Tracks scored in one call of an actor with a GPU: their clips share the network's batches.
SCORE_TRACKS = 16
# Tracks that one task decodes at most, when tagging from audio.
DECODE_TRACKS = 8
# Tracks of one commit.
PART_TRACKS = 256
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
        rows = block.to_pylist()
        done = [row.get("tagged") or {"failure": row["failure"]} for row in rows if _is_done(row)]
        scored = tag_rows(self.tagger, [row for row in rows if not _is_done(row)], self.model)
        return pa.Table.from_pylist(scored + done, SCORED_SCHEMA)


def _is_done(row: dict[str, Any]) -> bool:
    return bool(row.get("failure") or row.get("tagged"))


def from_features(uri: str, tasks: tuple[Task, ...]) -> ray.data.Dataset:
    """Read the feature rows of the tasks; files without such a row are not opened."""
    track_ids = {task.track_id for task in tasks}
    schema = pa.schema([table.SCHEMA.field(name) for name in (*SCORE_COLUMNS, *IDENTITY_COLUMNS)])

    def read(files: pa.Table) -> Iterator[pa.Table]:
        for path in files["item"].to_pylist():
            yield from tables.read_file(table_uri, path, schema, track_ids)

    paths, table_uri = tables.files_with(uri, track_ids), tables.absolute(uri)
    return ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(read, batch_format="pyarrow")


def from_audio(tasks: tuple[Task, ...], config: FeatureConfig, args: argparse.Namespace) -> ray.data.Dataset:
    """Featurize the tasks: rows as the features table would have them, or failures."""
    schema = pa.schema([*table.SCHEMA, FAILURE, TAGGED])
    limits, tags_uri = options.limits(args), tables.absolute(args.tags)  # workers have other folders
    find_row = functools.partial(
        copy_sources.find_row, output_uri=tags_uri, schema=TAGS_SCHEMA, time_column="tagged_at", limits=limits
    )

    def featurize(rows: pa.Table) -> Iterator[pa.Table]:
        block = [
            Task(**{**row, "copy_source": row["copy_source"] and CopySource(**row["copy_source"])})
            for row in rows.to_pylist()
        ]
        for row, failure in featurize_tasks(block, config, args.clips_per_track, limits, find_row):
            outcome = {"tagged": row} if row and "tags" in row else row or {}
            yield parts.table_of({**outcome, "failure": failure}, schema)

    n_blocks = len(partition(tasks, DECODE_TRACKS, args.num_workers))  # a multiple of the actors, if possible
    rows = ray.data.from_items([dataclasses.asdict(task) for task in tasks], override_num_blocks=n_blocks)
    return rows.map_batches(featurize, batch_format="pyarrow")


def score_rows(
    rows: ray.data.Dataset, model: ModelIdentity, folder: Path, args: argparse.Namespace
) -> ray.data.Dataset:
    """Score feature rows by actors with the model artifact in `folder`; returns rows of `SCORED_SCHEMA`."""
    artifact = ray.put({path.name: path.read_bytes() for path in folder.iterdir()})  # actors may be elsewhere
    return rows.map_batches(
        ScoringActor,
        # The artifact is in a list, because Ray would replace a bare reference by its value.
        fn_constructor_args=(model, [artifact], args.use_gpu),
        batch_format="pyarrow",
        # On CPUs, Ray fuses reading into the actors, where a batch size would count files: each call gets one block, as
        # it was read or decoded.
        batch_size=SCORE_TRACKS if args.use_gpu else None,
        compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=args.num_workers, max_size=args.num_workers),
        num_cpus=1,
        num_gpus=1 if args.use_gpu else 0,
    )


@contextlib.contextmanager
def scoring(
    tasks: tuple[Task, ...], model: ModelIdentity, folder: Path, spec: TaggerSpec, args: argparse.Namespace
) -> Iterator[Iterator[list[dict[str, Any]]]]:
    """Run Ray in the body and score the tasks: rows of `SCORED_SCHEMA` as they arrive, `PART_TRACKS` at a time."""
    # An actor takes a logical CPU; the tasks that read and decode need some as well.
    with ray_cluster.connect(num_cpus=n_cores() + args.num_workers), ray_cluster.task_errors():
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors that it logs are raised as well
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = from_audio(tasks, spec.feature_config, args) if args.catalog else from_features(args.features, tasks)
        scored = score_rows(rows, model, folder, args)
        blocks = scored.iter_batches(batch_size=PART_TRACKS, batch_format="pyarrow")
        yield (pa.table(block).to_pylist() for block in blocks)


def commit_parts(
    scored: Iterable[list[dict[str, Any]]], plan: Plan, producer: str, tags_uri: str, failures_uri: str
) -> Iterator[int]:
    """Commit scored rows and failures part by part as they arrive; yield the number of tracks of each part.

    Rows of these tracks that another model made are deleted before the part is written.
    """
    tasks = {task.track_id: task for task in plan.tasks}
    failures_version = tables.version(failures_uri)
    for rows in scored:
        failures = [row["failure"] for row in rows if row["failure"]]
        succeeded = [row for row in rows if not row["failure"]]
        part = [tasks[row["track_id"]] for row in succeeded + failures]
        # With the version, because a part of the same tracks and model may have been committed and deleted since.
        name = part_name(part, f"{producer} {tables.version(tags_uri)}")
        ledger.record_failures(failures_uri, name, failures, failures_version)
        tables.delete_tracks(tags_uri, plan.superseded & {row["track_id"] for row in succeeded})
        parts.write_table(tags_uri, name, TAGS_SCHEMA, pa.Table.from_pylist(succeeded, TAGS_SCHEMA))
        yield len(part)


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
    options.add_workers(parser, n_cores(), "actors that score")
    args = parser.parse_args(argv)
    if args.use_gpu:
        ray_cluster.check_gpus(args.num_workers, torch.cuda.device_count())
    return args


def list_tracks(catalog: Catalog | None, features_uri: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield (track_id, uri, audio_etag) of each track of the catalog, or of the features table if there is none."""
    if catalog:
        yield from etags.with_etags(catalog.tracks["track_id"].to_pylist(), catalog.tracks["uri"].to_pylist())
    else:
        rows = tables.read_columns(features_uri, ("track_id", "uri", "audio_etag"))
        yield from zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)


def main(argv: list[str]) -> None:
    """Tag what is new, changed or was tagged by another model; with --diff, only print what would change."""
    args = parse(argv)
    started = datetime.datetime.now(datetime.UTC)
    mlflow_runs.connect()
    model_source = mlflow_registry.fetch(args.model)
    spec = Tagger.load(model_source.folder).spec
    model, source = mlflow_registry.identity(model_source), args.catalog or args.features
    catalog = read_catalog(args.catalog, args.allow, follow_links=args.follow_links) if args.catalog else None
    if not catalog:
        check_features(spec, table.feature_config(tables.open_table(args.features)).feature_hash)

    def score_tasks(tasks: tuple[Task, ...]) -> diff.Scoring:
        return scoring(tasks, model, model_source.folder, spec, args)

    if args.diff:
        tracks = catalog.tracks if catalog else tables.read_columns(args.features, ("track_id", "uri"))
        uris = dict(zip(tracks["track_id"].to_pylist(), tracks["uri"].to_pylist(), strict=True))
        diff.echo_diff(
            args.tags, source, uris, args.diff, model=model, vocabulary=spec.vocabulary,
            vocabulary_of=mlflow_registry.vocabulary_of, score=score_tasks,
        )  # fmt: skip
        return

    failures_uri = tables.companion_uri(args.tags, "failures")
    tables.create_table(args.tags, TAGS_SCHEMA)
    tables.create_table(failures_uri, ledger.FAILURES_SCHEMA)

    def tag(plan: Plan) -> None:
        with score_tasks(plan.tasks) as scored, bar((), "tag", len(plan.tasks), "track") as progress_bar:
            for n_tracks in commit_parts(scored, plan, model.digest, args.tags, failures_uri):
                progress_bar.update(n_tracks)

    run = Run(
        source=source,
        listed=list_tracks(catalog, args.features),
        catalog=catalog,
        output_uri=args.tags,
        failures_uri=failures_uri,
        producer=model.digest,
        read_existing=lambda: read_existing(args.tags, mlflow_registry.find_digest),
        copies_rows=catalog is not None,  # stored features are not decoded
        time_column="tagged_at",
        max_attempts=args.max_attempts if catalog else None,  # stored features need no decoder
        max_failures=args.max_failures,
        prune=args.prune,
        prune_limit=args.prune_limit,
        replace=args.replace,
        started=started,
    )
    execute(run, tag, purpose=f"to tag by {model_source.uri}")


if __name__ == "__main__":
    sys.exit(run_main(main))
