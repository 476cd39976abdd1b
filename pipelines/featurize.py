"""Featurize a catalog on Apache Beam: each track's clips as log-mel spectrograms in a Delta table.

python pipelines/featurize.py --runner=DirectRunner
python pipelines/featurize.py --catalog s3://bucket/catalog.parquet --features s3://bucket/features --clips-per-track 10

Only catalog rows cross a shuffle. One call of the DoFn takes a part, decodes its tracks one after the other, streams
them into one Parquet file and commits it; what is killed is done by the next run, and what is done is never decoded
again.
"""

import argparse
import contextlib
import dataclasses
import datetime
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

# Beam warns, as it is imported and as it starts, of each cloud's client that is not installed; an error is raised too.
logging.basicConfig(level=logging.CRITICAL)

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from musictag.catalog.reader import Catalog, read_catalog
from musictag.cli import options as cli_options
from musictag.corpora import demo
from musictag.engines import child_process
from musictag.errors import StoreError, UsageError, WorkerLostError
from musictag.features import decoder_process, extract
from musictag.features.config import FeatureConfig
from musictag.jobs import ledger, progress
from musictag.jobs.ledger import Work
from musictag.storage import fetch, parts, tables

# Tracks, at most, that one call of the DoFn writes as one Parquet file: of whole tracks some 60 MB.
PART_TRACKS = 24
# Pipelines of one run: a worker that is lost, such as to the kernel for want of memory, is lost at most so often.
MAX_LOSSES = 3
# What Beam makes of an error of ours on a worker: the end of a traceback's text.
WORKERS_ERROR = re.compile(r"^musictag\.errors\.\w+: (.*?)(?: \[while running .*)?$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Target:
    """The tables of a run, and their versions when it was planned."""

    features: str
    features_version: int
    failures: str
    failures_version: int


class FeaturizePart(beam.DoFn):
    """Writes the rows of one part to the features table, and the tracks that fail to the failures table."""

    def __init__(self, target: Target, config: FeatureConfig, clips_per_track: int | None, max_hours: float) -> None:
        self.target, self.config, self.clips_per_track, self.max_hours = target, config, clips_per_track, max_hours

    def process(self, part: tuple[Work, ...]) -> Iterator[int]:
        """Featurize and commit one part; yields how many rows it wrote."""
        name = ledger.part_name(part, self.config.feature_hash)
        rows = self._rows(part, name)
        yield parts.write(self.target.features, name, extract.SCHEMA, rows, self.target.features_version)

    def _rows(self, part: tuple[Work, ...], name: str) -> Iterator[dict[str, object]]:
        failures: list[decoder_process.Row] = []
        for row, failure in decoder_process.featurize(part, self.config, self.clips_per_track, self.max_hours):
            if row:
                yield row
            if failure:
                failures.append(failure)
        # Before the rows are committed: a part that is done has its failures recorded.
        ledger.record_failures(self.target.failures, name, failures, self.target.failures_version)


def make_plan(
    catalog: Catalog, features_uri: str, failed: dict[str, ledger.Failed], max_attempts: int, config: FeatureConfig
) -> ledger.Plan:
    """What of the catalog the features table lacks."""
    rows = tables.read_columns(features_uri, ("track_id", "uri", "audio_etag")).to_pylist()
    held = {row["track_id"]: ledger.Held(row["uri"], row["audio_etag"], config.feature_hash) for row in rows}
    listed = fetch.with_etags(catalog.tracks["track_id"].to_pylist(), catalog.tracks["uri"].to_pylist())
    return ledger.make_plan(listed, held, config.feature_hash, failed, max_attempts, catalog.problems)


def beam_pipeline(arguments: list[str]) -> beam.Pipeline:
    """A pipeline for the Beam options given; DirectRunner means Beam's own FnApiRunner over all cores.

    Raises `UsageError` for an option that neither we nor Beam know, which Beam alone would pass over.
    """
    options = PipelineOptions(arguments)
    if options.view_as(StandardOptions).runner not in (None, "DirectRunner"):
        return beam.Pipeline(options=options)
    if unknown := set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options()):
        raise UsageError(f"unknown option {', '.join(f'--{name}' for name in sorted(unknown))}: --help lists them")
    # What equals its default counts as well: --direct_num_workers=1 is a wish.
    given = {argument.partition("=")[0] for argument in arguments}
    if "--direct_running_mode" in given:
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    if "--direct_num_workers" not in given:
        options.view_as(DirectOptions).direct_num_workers = cli_options.n_cores()
    # What `multi_processing` does, with workers that say nothing: an error of theirs is the driver's, text and all.
    # They are watched: one that is killed would not be missed, and one that starts would wait for a driver that is not.
    start = "import sys; from apache_beam.runners.worker.sdk_worker_main import main; main(sys.argv)"
    worker = [sys.executable, "-m", child_process.__name__, str(os.getpid()), sys.executable, "-c", start]
    workers = SubprocessSDKEnvironment.from_command_string(f"exec {shlex.join(worker)}")
    return beam.Pipeline(runner=FnApiRunner(default_environment=workers), options=options)


@contextlib.contextmanager
def watching_workers() -> Iterator[None]:
    """Ends the body with `WorkerLostError` where a worker of this machine ends before it was told to.

    Beam's own runner would wait for it for ever. `engines.child_process` tells, by SIGUSR1. The other workers end as
    well: Beam would first have each of them do its whole share.
    """

    def lost(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        raise WorkerLostError("a worker process was killed (by the kernel, for want of memory?)")

    signal.signal(signal.SIGUSR1, lost)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def run(works: Sequence[Work], do_part: FeaturizePart, arguments: list[str]) -> None:
    """Do all works, part by part, on the engine that Beam's `arguments` name.

    Where a worker is lost, what it had not committed is done by others. Raises `StoreError` where a worker could not
    read or write a table, `WorkerLostError` where too many were lost.
    """
    for n_lost in range(1, MAX_LOSSES + 1):
        try:
            with watching_workers(), beam_pipeline(arguments) as pipeline:
                (
                    pipeline
                    | "Parts" >> beam.Create(ledger.into_parts(works, PART_TRACKS, cli_options.n_cores()))
                    | "Spread" >> beam.Reshuffle()
                    | "Featurize" >> beam.ParDo(do_part)
                )
        except WorkerLostError as error:
            if n_lost == MAX_LOSSES:
                raise WorkerLostError(f"{error}, {n_lost} times: try with fewer, by --direct_num_workers") from error
            progress.say(f"{error}: what it had not committed is done again")
        except RuntimeError as error:
            if found := WORKERS_ERROR.findall(str(error)):
                raise StoreError(found[-1]) from error
            raise
        else:
            return


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and what is left for Beam."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--catalog", default=cli_options.CATALOG, help="CSV, JSON Lines, Parquet or folder (default: %(default)s)"
    )
    parser.add_argument("--features", default=cli_options.FEATURES, help="Delta table to write (default: %(default)s)")
    cli_options.add_audio(parser)
    cli_options.add_ledger(parser)
    args, rest = parser.parse_known_args(argv)
    for before, argument in zip(["", *rest], rest, strict=False):
        if not argument.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UsageError(f"{argument!r} belongs to no option: a catalog is named by --catalog")
    return args, rest


def main(argv: list[str]) -> None:
    """Featurize what is new, changed or failed before."""
    args, beam_arguments = parse(argv)
    beam_pipeline(beam_arguments)  # refuses options before anything is done
    started = datetime.datetime.now(datetime.UTC)
    if args.catalog == cli_options.CATALOG and not Path(args.catalog).exists():
        demo.make_demo(Path(args.catalog).parent)
    catalog = read_catalog(args.catalog, args.allow)
    config = FeatureConfig()
    failures_uri = tables.beside(args.features, "failures")
    extract.open_features(args.features, config, args.clips_per_track)
    tables.create_table(failures_uri, ledger.FAILURES_SCHEMA)

    failed = ledger.read_failed(failures_uri)
    plan = make_plan(catalog, args.features, failed, args.max_attempts, config)
    progress.say_plan(args.catalog, plan, "to do", prune=args.prune)
    ledger.record_problems(failures_uri, catalog.problems, failed)
    ledger.clear(plan, args.features, prune=args.prune)

    target = Target(args.features, tables.version(args.features), failures_uri, tables.version(failures_uri))
    done = tables.counter((args.features, failures_uri))
    with progress.progress("featurize", len(plan.works), done):
        run(plan.works, FeaturizePart(target, config, args.clips_per_track, args.max_hours), beam_arguments)

    tables.remove_repeated(args.features, "featurized_at")  # what two runs at once wrote twice
    tables.seal_rests(args.features)  # what a killed run left so
    written = tables.track_ids(args.features)
    account = ledger.settle(plan, catalog.problems, written, failures_uri, started, prune=args.prune)
    progress.say_account(account, args.features, failures_uri, started)
    ledger.check_failures(account, args.max_failures, failures_uri)


if __name__ == "__main__":
    sys.exit(cli_options.run(main))
