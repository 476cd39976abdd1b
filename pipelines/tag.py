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
import datetime
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from musictag.catalog.reader import Catalog, read_catalog
from musictag.cli import options
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.features import table
from musictag.jobs.committer import Committer
from musictag.jobs.entry_point import run_main
from musictag.jobs.output import Output
from musictag.jobs.plan_files import PlanFiles, Task, TaskList
from musictag.jobs.progress import bar
from musictag.jobs.run import Run, execute, plan_only
from musictag.models.artifact_files import read_spec
from musictag.models.specs import check_features
from musictag.storage import etags, tables
from musictag.tagging import diff
from musictag.tagging.table import TAGS_SCHEMA, load_rows

if TYPE_CHECKING:
    from musictag.engines.ray_scoring import Scoring

# Tracks of --diff: the 95 % margin of error of a share is 3 percentage points.
DIFF_TRACKS = 1_000


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
    options.add_night(parser)
    options.add_workers(parser, None, "actors that score", "one for each GPU or core")
    args = parser.parse_args(argv)
    if args.use_gpu and not args.plan_only:
        import torch  # here: torch and Ray take two seconds to import

        from musictag.engines import ray_cluster

        ray_cluster.check_gpus(args.num_workers or 1, torch.cuda.device_count())
    return args


def list_tracks(catalog: Catalog | None, features_uri: str) -> Iterator[pa.RecordBatch]:
    """Yield `track_id, uri, audio_etag` of the tracks of the catalog, or if there is none of the features table.

    Tracks of the catalog come with `is_missing` (see `etags.with_etags`), rows of the features table with their
    `featurized_at` and the `features_file` that holds them.
    """
    if catalog:
        yield from etags.with_etags(catalog.tracks)
        return
    columns = ("track_id", "uri", "audio_etag", "featurized_at", tables.FILE)
    for batch in tables.scan(features_uri, columns):
        yield batch.rename_columns([*columns[:-1], "features_file"])


def main(argv: list[str]) -> int:
    """Tag what is new, changed or was tagged by another model; with --diff, only print what would change."""
    args = parse(argv)
    started = datetime.datetime.now(datetime.UTC)
    mlflow_runs.connect()
    model_source = mlflow_registry.fetch(args.model)
    spec = read_spec(model_source.folder)
    model, source = mlflow_registry.identity(model_source), args.catalog or args.features
    catalog = None
    if args.catalog:
        columns = etags.CATALOG_COLUMNS
        catalog = read_catalog(args.catalog, args.allow, follow_links=args.follow_links, columns=columns)
        n_clips = args.clips_per_track
    else:
        features = tables.open_table(args.features)
        check_features(spec, table.feature_config(features).feature_hash)
        n_clips = table.stored_clips_per_track(features)
    output = Output(tables.absolute(args.tags), TAGS_SCHEMA, "tagged_at", model.digest)

    @functools.cache
    def scoring() -> "Scoring":
        from musictag.engines.ray_scoring import Scoring  # here: with nothing to tag, torch and Ray are not needed

        return Scoring(
            model=model,
            folder=model_source.folder,
            config=spec.feature_config,
            features_uri=None if catalog else args.features,
            clips_per_track=n_clips,
            limits=options.limits(args),
            output=output,
            num_workers=args.num_workers,
            use_gpu=args.use_gpu,
        )

    if args.diff:

        def score_sample(tasks: Sequence[Task]) -> Iterator[pa.Table]:
            with scoring().engine() as workers:
                yield from scoring().score(TaskList.of(tasks, workers.n))

        diff.echo_diff(
            args.tags, source, list_tracks(catalog, args.features), args.diff, model=model,
            vocabulary=spec.vocabulary, vocabulary_of=mlflow_registry.vocabulary_of, score=score_sample,
        )  # fmt: skip
        return 0

    tables.create_table(args.tags, TAGS_SCHEMA)

    def tag(plan: PlanFiles, committer: Committer) -> None:
        with bar((), "tag", plan.n_tasks, "track") as progress_bar:
            for rows in scoring().score(plan):
                failures = pc.drop_null(rows["failure"]).to_pylist()
                committer.add(rows.filter(pc.is_null(rows["failure"])).select(TAGS_SCHEMA.names), failures)
                progress_bar.update(len(rows))

    run = Run(
        source=source,
        listed=list_tracks(catalog, args.features),
        catalog=catalog,
        output=output,
        load_rows=lambda connection, name: load_rows(connection, name, args.tags, mlflow_registry.find_digest),
        copies_rows=catalog is not None,  # stored features are not decoded
        task_bytes=table.estimated_row_bytes(spec.feature_config, n_clips),
        engine=lambda: scoring().engine(),
        max_attempts=args.max_attempts if catalog else None,  # stored features need no decoder
        max_failures=args.max_failures,
        prune=args.prune,
        prune_limit=args.prune_limit,
        store_timeout_s=options.limits(args).store_timeout_s,
        replace=args.replace,
        started=started,
        budget=options.budget(args),
        report_uri=args.report,
    )
    purpose = f"to tag by {model_source.uri}"
    if args.plan_only:
        return plan_only(run, purpose=purpose)
    execute(run, tag, purpose=purpose)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
