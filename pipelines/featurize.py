"""Featurize a catalog on Apache Beam: write the clips of each track as log-mel spectrograms to a Delta table.

python pipelines/featurize.py --runner=DirectRunner
python pipelines/featurize.py --catalog s3://bucket/catalog.parquet --features s3://bucket/features --clips-per-track 10

Beam distributes numbers of shards, never tracks or audio. A worker reads the tracks of its shard from a file of the
plan, decodes them one after the other, and streams them into Parquet files; this process commits the files to the
table. What a killed run has staged is committed by the next run, and is not decoded again.
"""

import argparse
import contextlib
import datetime
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from musictag.engines import beam_runner  # isort: skip # first: it configures logging before Beam is imported

import apache_beam as beam

from musictag.catalog.reader import read_catalog
from musictag.cli import options
from musictag.errors import UsageError
from musictag.features import table
from musictag.features.config import FeatureConfig
from musictag.features.limits import Limits
from musictag.jobs import copy_sources
from musictag.jobs.committer import Committer
from musictag.jobs.entry_point import run_main
from musictag.jobs.featurizing import Outcome, featurize_tasks
from musictag.jobs.output import Output
from musictag.jobs.plan_files import PlanFiles, Task
from musictag.jobs.progress import polling_bar
from musictag.jobs.run import Run, Workers, execute, plan_only
from musictag.jobs.shards import stage_shard
from musictag.storage import etags, tables


class FeaturizeShard(beam.DoFn):
    """Stage the rows and failures of the tracks of one shard."""

    def __init__(
        self, output: Output, plan: PlanFiles, config: FeatureConfig, clips_per_track: int | None, limits: Limits
    ) -> None:
        self.output, self.plan = output, plan
        self.config, self.clips_per_track, self.limits = config, clips_per_track, limits

    def process(self, shard: int) -> Iterator[int]:
        """Yield the number of tracks of each part."""
        yield from stage_shard(self.output, self.plan, shard, self._featurize)

    def _featurize(self, tasks: list[Task]) -> Iterable[Outcome]:
        find_row = functools.partial(copy_sources.find_row, output=self.output, limits=self.limits)
        return featurize_tasks(tasks, self.config, self.clips_per_track, self.limits, find_row)


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our options, and the arguments that are left for Beam."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--catalog", default=options.CATALOG, help="CSV, JSON Lines, Parquet or folder (default: %(default)s)"
    )
    parser.add_argument(
        "--features", type=options.location, default=options.FEATURES,
        help="Delta table to write (default: %(default)s)",
    )  # fmt: skip
    options.add_audio(parser)
    options.add_ledger(parser)
    options.add_night(parser)
    args, rest = parser.parse_known_args(argv)
    for before, argument in zip(["", *rest], rest, strict=False):
        if not argument.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UsageError(f"{argument!r} belongs to no option: name a catalog by --catalog")
    return args, rest


def main(argv: list[str]) -> int:
    """Featurize the tracks that are new, changed or failed before."""
    args, beam_arguments = parse(argv)
    beam_runner.check_options(beam_arguments)
    started = datetime.datetime.now(datetime.UTC)
    if args.catalog == options.CATALOG and not Path(args.catalog).exists():
        from musictag.corpora import demo  # here: SciPy takes half a second to import

        demo.make_demo(Path(args.catalog).parent)
    columns = etags.CATALOG_COLUMNS
    catalog = read_catalog(args.catalog, args.allow, follow_links=args.follow_links, columns=columns)
    config = FeatureConfig()
    table.open_features(args.features, config, args.clips_per_track)
    output = Output(tables.absolute(args.features), table.SCHEMA, "featurized_at", config.feature_hash)

    @contextlib.contextmanager
    def engine() -> Iterator[Workers]:
        n_workers = beam_runner.n_workers(beam_arguments)
        yield Workers(n_workers, n_cores=n_workers)

    def featurize(plan: PlanFiles, committer: Committer) -> None:
        featurize_shard = FeaturizeShard(output, plan, config, args.clips_per_track, options.limits(args))
        with polling_bar("featurize", plan.n_tasks, lambda: committer.n_tracks):
            beam_runner.run(
                lambda pipeline: (
                    pipeline
                    | "Shards" >> beam.Create(range(plan.n_shards))
                    | "Spread" >> beam.Reshuffle()
                    | "Featurize" >> beam.ParDo(featurize_shard)
                ),
                beam_arguments,
                progress=lambda: committer.n_tracks,
            )

    run = Run(
        source=args.catalog,
        listed=etags.with_etags(catalog.tracks),
        catalog=catalog,
        output=output,
        load_rows=lambda connection, name: table.load_rows(connection, name, args.features, config),
        copies_rows=True,
        task_bytes=table.estimated_row_bytes(config, args.clips_per_track),
        engine=engine,
        max_attempts=args.max_attempts,
        max_failures=args.max_failures,
        prune=args.prune,
        prune_limit=args.prune_limit,
        store_timeout_s=options.limits(args).store_timeout_s,
        replace=args.replace,
        started=started,
        budget=options.budget(args),
        report_uri=args.report,
    )
    if args.plan_only:
        return plan_only(run, purpose="to do")
    execute(run, featurize, purpose="to do")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
