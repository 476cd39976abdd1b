"""Featurize a catalog on Apache Beam: write the clips of each track as log-mel spectrograms to a Delta table.

python pipelines/featurize.py --runner=DirectRunner
python pipelines/featurize.py --catalog s3://bucket/catalog.parquet --features s3://bucket/features --clips-per-track 10

Beam shuffles lists of tracks, never audio or features. Each call of the DoFn takes a part, decodes its tracks one after
the other, streams them into one Parquet file and commits it. A killed run loses the parts in progress; the next run
processes them, and never decodes a committed track again.
"""

import argparse
import dataclasses
import datetime
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

from musictag.engines import beam_runner  # isort: skip # first: it configures logging before Beam is imported

import apache_beam as beam

from musictag.catalog.reader import read_catalog
from musictag.cli import options
from musictag.corpora import demo
from musictag.errors import UsageError
from musictag.features import table
from musictag.features.config import FeatureConfig
from musictag.features.extract import Limits
from musictag.jobs import copy_sources, ledger
from musictag.jobs.entry_point import n_cores, run_main
from musictag.jobs.featurizing import Row, featurize_tasks
from musictag.jobs.plan import ExistingRow, Plan, Task, part_name, partition
from musictag.jobs.progress import polling_bar
from musictag.jobs.run import Run, execute
from musictag.storage import etags, parts, tables

# Maximum number of tracks in one Parquet file; with all clips, it has about 60 MB.
PART_TRACKS = 24


@dataclasses.dataclass(frozen=True)
class PlannedTables:
    """The tables that a run writes, and their versions before the first part is written."""

    features: str
    features_version: int
    failures: str
    failures_version: int


class FeaturizePart(beam.DoFn):
    """Write the rows of one part to the features table, and the tracks that fail to the failures table."""

    def __init__(
        self, planned: PlannedTables, config: FeatureConfig, clips_per_track: int | None, limits: Limits
    ) -> None:
        self.planned, self.config, self.clips_per_track, self.limits = planned, config, clips_per_track, limits

    def process(self, part: tuple[Task, ...]) -> Iterator[int]:
        """Featurize and commit one part; yield the number of rows written."""
        name = part_name(part, self.config.feature_hash)
        rows = self._rows(part, name)
        yield parts.write_rows(self.planned.features, name, table.SCHEMA, rows, self.planned.features_version)

    def _rows(self, part: tuple[Task, ...], name: str) -> Iterator[Row]:
        failures: list[Row] = []
        find_row = functools.partial(
            copy_sources.find_row,
            output_uri=self.planned.features,
            schema=table.SCHEMA,
            time_column="featurized_at",
            limits=self.limits,
        )
        for row, failure in featurize_tasks(part, self.config, self.clips_per_track, self.limits, find_row):
            if row:
                yield row
            if failure:
                failures.append(failure)
        # Recorded before the rows are committed: a part that is committed has its failures recorded.
        ledger.record_failures(self.planned.failures, name, failures, self.planned.failures_version)


def read_existing(features_uri: str, producer: str) -> dict[str, ExistingRow]:
    """Read what the features table holds of each track; `open_features` ensures that all rows have one producer."""
    rows = tables.read_columns(features_uri, ("track_id", "uri", "audio_etag")).to_pylist()
    return {row["track_id"]: ExistingRow(row["uri"], row["audio_etag"], producer) for row in rows}


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
    args, rest = parser.parse_known_args(argv)
    for before, argument in zip(["", *rest], rest, strict=False):
        if not argument.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UsageError(f"{argument!r} belongs to no option: name a catalog by --catalog")
    return args, rest


def main(argv: list[str]) -> None:
    """Featurize the tracks that are new, changed or failed before."""
    args, beam_arguments = parse(argv)
    beam_runner.make_pipeline(beam_arguments)  # raises for a wrong option before anything is done
    started = datetime.datetime.now(datetime.UTC)
    if args.catalog == options.CATALOG and not Path(args.catalog).exists():
        demo.make_demo(Path(args.catalog).parent)
    catalog = read_catalog(args.catalog, args.allow, follow_links=args.follow_links)
    config = FeatureConfig()
    failures_uri = tables.companion_uri(args.features, "failures")
    table.open_features(args.features, config, args.clips_per_track)
    tables.create_table(failures_uri, ledger.FAILURES_SCHEMA)

    def featurize(plan: Plan) -> None:
        planned = PlannedTables(
            args.features, tables.version(args.features), failures_uri, tables.version(failures_uri)
        )
        featurize_part = FeaturizePart(planned, config, args.clips_per_track, options.limits(args))
        task_parts = partition(plan.tasks, PART_TRACKS, n_cores())
        with polling_bar("featurize", len(plan.tasks), tables.count_new_rows((args.features, failures_uri))):
            beam_runner.run(
                lambda pipeline: (
                    pipeline
                    | "Parts" >> beam.Create(task_parts)
                    | "Spread" >> beam.Reshuffle()
                    | "Featurize" >> beam.ParDo(featurize_part)
                ),
                beam_arguments,
            )

    run = Run(
        source=args.catalog,
        listed=etags.with_etags(catalog.tracks["track_id"].to_pylist(), catalog.tracks["uri"].to_pylist()),
        catalog=catalog,
        output_uri=args.features,
        failures_uri=failures_uri,
        producer=config.feature_hash,
        read_existing=lambda: read_existing(args.features, config.feature_hash),
        copies_rows=True,
        time_column="featurized_at",
        max_attempts=args.max_attempts,
        max_failures=args.max_failures,
        prune=args.prune,
        prune_limit=args.prune_limit,
        replace=args.replace,
        started=started,
    )
    execute(run, featurize, purpose="to do")


if __name__ == "__main__":
    sys.exit(run_main(main))
