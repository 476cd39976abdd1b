"""Tag a catalog on Ray Data: the champion over stored features, or straight from audio.

python pipelines/tag.py
python pipelines/tag.py --features s3://bucket/features --tags s3://bucket/tags --use-gpu
python pipelines/tag.py --catalog music/ --tags data/music-tags
python pipelines/tag.py --model models:/musictag@candidate --diff

One row is one track with all its clips, from reading to scores: nothing is shuffled or grouped. Scores are committed
part by part as they arrive. A second run tags what is new or changed, and everything where the model is another.
`--diff` says on a sample how many tracks that would change, tag by tag, and writes nothing.
"""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray warns, as an error, of how Ray Data itself starts the actors of `map_batches`.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import pyarrow as pa
import ray
import ray.data
import torch
from ray.exceptions import AuthenticationError, RayTaskError

from musictag.catalog.reader import read_catalog
from musictag.cli import options
from musictag.engines import mlflow_registry
from musictag.errors import LedgerError, ModelError, MusictagError, RegistryError, UsageError
from musictag.features import decoder_process, extract
from musictag.features.config import FeatureConfig
from musictag.jobs import ledger, progress
from musictag.jobs.ledger import Work
from musictag.models.artifact import TaggerSpec
from musictag.storage import fetch, parts, tables
from musictag.tagging import diff as tagging_diff
from musictag.tagging.tagger import IDENTITY_COLUMNS, SCORE_COLUMNS, TAGS_SCHEMA, Tagger, check_features, tag_rows

# Tracks scored in one call of an actor with a GPU: their clips share the network's batches.
SCORE_TRACKS = 16
# Tracks that one task decodes at most, when tagging from audio.
DECODE_TRACKS = 8
# Tracks of one commit.
PART_TRACKS = 256
# Tracks of --diff: enough for a share that is right to 3 points of a hundred.
DIFF_TRACKS = 1_000

# What flows through Ray: scored tracks and, beside them, tracks that failed.
FAILURE = pa.field("failure", pa.struct(list(ledger.FAILURES_SCHEMA)))
FLOW_SCHEMA = pa.schema([*TAGS_SCHEMA, FAILURE])


@dataclasses.dataclass(frozen=True)
class Model:
    """The model of a run, in the words of the tags table."""

    name: str
    version: str

    @property
    def made_by(self) -> str:
        """What a row of tags depends on besides its audio."""
        return f"{self.name} {self.version}"


class Score:
    """A Ray actor that holds the network and scores blocks of feature rows."""

    def __init__(self, model: Model, artifact: list[ray.ObjectRef[dict[str, bytes]]], use_gpu: bool) -> None:
        torch.set_num_threads(1)  # the parallelism is over actors
        self.model = model
        with tempfile.TemporaryDirectory() as folder:
            for name, content in ray.get(artifact[0]).items():
                (Path(folder) / name).write_bytes(content)
            self.tagger = Tagger.load(Path(folder), "cuda" if use_gpu else "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        """Feature rows in, rows of `FLOW_SCHEMA` out; failures pass through."""
        rows = block.to_pylist()
        failed = [{"failure": row["failure"]} for row in rows if row.get("failure")]
        scored = tag_rows(
            self.tagger, [row for row in rows if not row.get("failure")], self.model.name, self.model.version
        )
        return pa.Table.from_pylist(scored + failed, FLOW_SCHEMA)


def from_features(uri: str, works: tuple[Work, ...]) -> ray.data.Dataset:
    """Feature rows of the works, read from those files alone that hold one."""
    track_ids = {work.track_id for work in works}
    schema = pa.schema([extract.SCHEMA.field(name) for name in (*SCORE_COLUMNS, *IDENTITY_COLUMNS)])

    def read(files: pa.Table) -> Iterator[pa.Table]:
        for path in files["item"].to_pylist():
            yield from tables.read_file(table_uri, path, schema, track_ids)

    paths, table_uri = tables.files_with(uri, track_ids), tables.absolute(uri)
    return ray.data.from_items(paths, override_num_blocks=len(paths)).map_batches(read, batch_format="pyarrow")


def from_audio(works: tuple[Work, ...], config: FeatureConfig, args: argparse.Namespace) -> ray.data.Dataset:
    """The rows that the features table would have of the works, decoded on the way, or their failures."""
    schema = pa.schema([*extract.SCHEMA, FAILURE])

    def featurize(rows: pa.Table) -> Iterator[pa.Table]:
        listed = [Work(**row) for row in rows.to_pylist()]
        for row, failure in decoder_process.featurize(listed, config, args.clips_per_track, args.max_hours):
            yield parts.table_of({**(row or {}), "failure": failure}, schema)

    n_parts = len(ledger.into_parts(works, DECODE_TRACKS, args.num_workers))  # as many for each actor
    rows = ray.data.from_items([dataclasses.asdict(work) for work in works], override_num_blocks=n_parts)
    return rows.map_batches(featurize, batch_format="pyarrow")


def clips_of(works: tuple[Work, ...], spec: TaggerSpec, args: argparse.Namespace) -> ray.data.Dataset:
    """What there is to score of the works: from audio if a catalog is given, else from the features table."""
    if args.catalog:
        return from_audio(works, spec.feature_config, args)
    return from_features(args.features, works)


def score(rows: ray.data.Dataset, model: Model, folder: Path, args: argparse.Namespace) -> ray.data.Dataset:
    """Rows of `FLOW_SCHEMA`, scored by actors with the model artifact in `folder`; one will do for little."""
    artifact = ray.put({path.name: path.read_bytes() for path in folder.iterdir()})  # actors may be elsewhere
    return rows.map_batches(
        Score,
        fn_constructor_args=(model, [artifact], args.use_gpu),
        batch_format="pyarrow",
        # On CPUs, Ray has the actors read as well, and counts files: each call has what was read or decoded at once.
        batch_size=SCORE_TRACKS if args.use_gpu else None,
        compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=args.num_workers, max_size=args.num_workers),
        num_cpus=1,
        num_gpus=1 if args.use_gpu else 0,
    )


def arriving(scored: ray.data.Dataset) -> Iterator[list[dict[str, Any]]]:
    """Scored rows as they come, `PART_TRACKS` at a time. An error of ours in an actor is raised as it was there."""
    try:
        for block in scored.iter_batches(batch_size=PART_TRACKS, batch_format="pyarrow"):
            yield pa.table(block).to_pylist()
    except RayTaskError as error:
        if isinstance(error.cause, MusictagError):
            said, _, _ = str(error.cause).partition("\n")  # Ray adds advice for who wrote the code
            raise type(error.cause)(said) from error
        raise


def commit(
    scored: ray.data.Dataset, plan: ledger.Plan, model: Model, tags_uri: str, failures_uri: str
) -> Iterator[int]:
    """Write what arrives, part by part, and yield how many tracks each part settled.

    A part replaces the rows that another model made of its tracks.
    """
    works = {work.track_id: work for work in plan.works}
    failures_version = tables.version(failures_uri)
    for rows in arriving(scored):
        failures = [row["failure"] for row in rows if row["failure"]]
        done = [row for row in rows if not row["failure"]]
        part = tuple(works[row["track_id"]] for row in done + failures)
        name = ledger.part_name(part, f"{model.made_by} {tables.version(tags_uri)}")
        ledger.record_failures(failures_uri, name, failures, failures_version)
        tables.delete_tracks(tags_uri, plan.superseded & {row["track_id"] for row in done})
        parts.write_table(tags_uri, name, TAGS_SCHEMA, pa.Table.from_pylist(done, TAGS_SCHEMA))
        yield len(part)


def read_held(tags_uri: str) -> dict[str, ledger.Held]:
    """What the tags table has of each track."""
    columns = ("track_id", "uri", "audio_etag", "model", "model_version")
    return {
        row["track_id"]: ledger.Held(row["uri"], row["audio_etag"], f"{row['model']} {row['model_version']}")
        for row in tables.read_columns(tags_uri, columns).to_pylist()
    }


def diff(model: Model, folder: Path, spec: TaggerSpec, uris: Mapping[str, str], args: argparse.Namespace) -> None:
    """Say what the model would change on a sample of the tracks that `uris` and the tags table hold; write nothing."""
    listing, held = args.catalog or args.features, read_held(args.tags)
    if not held:
        raise UsageError(
            f"--diff compares with tags, and {args.tags} holds none: name another table with --tags, or tag"
        )
    if not (both := uris.keys() & held.keys()):
        raise UsageError(f"{args.tags} and {listing} have no track in common: name what was tagged, or its tags")
    makers = collections.Counter(row.made_by for row in held.values())
    by = ", ".join(f"{made_by} ({n:,})" for made_by, n in makers.most_common())
    progress.say(f"{args.tags}: {len(held):,} tracks, tagged by {by}; {len(both):,} of them are in {listing}")
    known = {tag for made_by in makers for tag in vocabulary_of(made_by)}

    sample = tagging_diff.sample(both, args.diff)
    works = tuple(Work(track_id, uris[track_id], None) for track_id in sample)
    rows: list[dict[str, Any]] = []
    with local_ray(args.num_workers), progress.bar((), "score", len(works), "track") as shown:
        for part in arriving(score(clips_of(works, spec, args), model, folder, args)):
            rows += part
            shown.update(len(rows) - shown.n)
    if failures := [row["failure"]["message"] for row in rows if row["failure"]]:
        progress.say(
            f"{len(failures):,} of {len(works):,} sampled tracks failed and are left out, such as: {failures[0]}"
        )
    if len(failures) == len(works):
        raise LedgerError("all sampled tracks failed, so that nothing can be compared")
    before = tagging_diff.given(tables.read_rows(args.tags, ("track_id", "tags"), sample))
    after = tagging_diff.given(row for row in rows if not row["failure"])
    progress.say(tagging_diff.report(before, after, known.union(*before.values()), spec.vocabulary))
    progress.say(f"compared with what {model.made_by} gives {len(after):,} of these tracks; nothing was written")


def vocabulary_of(made_by: str) -> tuple[str, ...]:
    """The tags that a model of the tags table knows; of one that is not there any more it says so, and none."""
    name, _, version = made_by.rpartition(" ")
    try:
        source = mlflow_registry.fetch(f"models:/{name}/{version}" if name == mlflow_registry.MODEL else name)
        if mlflow_registry.identity(source) == (name, version):
            return Tagger.load(source.folder).spec.vocabulary
        reason = "another model has its place"
    except (RegistryError, ModelError) as error:
        reason = str(error)
    progress.say(f"{made_by} is gone ({reason}): of its tags only those are known that sampled tracks have")
    return ()


@contextlib.contextmanager
def local_ray(n_workers: int) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names, or a Ray of this machine's own for as long as the body runs.

    That one talks only to who has its token, which it has from this process alone and which is on no disk.
    """
    if "RAY_ADDRESS" in os.environ:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, AuthenticationError) as error:
            raise options.ray_error(error) from error
    else:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # An actor takes a CPU of Ray's account for itself: without some beside them, nobody could read for it.
        ray.init(address="local", num_cpus=options.n_cores() + n_workers, include_dashboard=False, log_to_driver=False,
                 logging_level=logging.ERROR)  # fmt: skip
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error is raised as well
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def parse(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=options.CHAMPION, help="default: %(default)s")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--features", default=options.FEATURES, help="tag every track of this table (default: %(default)s)"
    )
    where.add_argument("--catalog", help="tag this catalog straight from its audio, storing no features")
    parser.add_argument("--tags", default=options.TAGS, help="Delta table to write (default: %(default)s)")
    options.add_audio(parser, "with --catalog")
    parser.add_argument(
        "--diff", type=options.count, nargs="?", const=DIFF_TRACKS, metavar="N",
        help=f"only say what would change, on N tracks of the tags table (without N: {DIFF_TRACKS:,}); write nothing",
    )  # fmt: skip
    options.add_ledger(parser)
    options.add_workers(parser, options.n_cores(), "actors that score")
    args = parser.parse_args(argv)
    options.check_workers(args, torch.cuda.device_count())
    return args


def main(argv: list[str]) -> None:
    """Tag what is new or changed, or everything that another model tagged; or say what that would change."""
    args = parse(argv)
    started = datetime.datetime.now(datetime.UTC)
    mlflow_registry.connect()
    source = mlflow_registry.fetch(args.model)
    spec = Tagger.load(source.folder).spec
    model = Model(*mlflow_registry.identity(source))
    failures_uri = tables.beside(args.tags, "failures")

    catalog = read_catalog(args.catalog, args.allow) if args.catalog else None
    if not catalog:
        check_features(spec, extract.feature_config(tables.open_table(args.features)).feature_hash)
    if args.diff:
        tracks = catalog.tracks if catalog else tables.read_columns(args.features, ("track_id", "uri"))
        uris = dict(zip(tracks["track_id"].to_pylist(), tracks["uri"].to_pylist(), strict=True))
        diff(model, source.folder, spec, uris, args)
        return

    if catalog:
        listed = fetch.with_etags(catalog.tracks["track_id"].to_pylist(), catalog.tracks["uri"].to_pylist())
    else:
        table = tables.read_columns(args.features, ("track_id", "uri", "audio_etag"))
        listed = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)

    tables.create_table(args.tags, TAGS_SCHEMA)
    tables.create_table(failures_uri, ledger.FAILURES_SCHEMA)
    failed = ledger.read_failed(failures_uri) if catalog else {}  # what has features needs no decoder
    problems = catalog.problems if catalog else ()
    plan = ledger.make_plan(listed, read_held(args.tags), model.made_by, failed, args.max_attempts, problems)
    progress.say_plan(args.catalog or args.features, plan, f"to tag by {source.uri}", prune=args.prune)
    ledger.record_problems(failures_uri, problems, failed)
    ledger.clear(plan, args.tags, prune=args.prune)
    if plan.works:
        with local_ray(args.num_workers), progress.bar((), "tag", len(plan.works), "track") as shown:
            scored = score(clips_of(plan.works, spec, args), model, source.folder, args)
            for n_settled in commit(scored, plan, model, args.tags, failures_uri):
                shown.update(n_settled)

    tables.remove_repeated(args.tags, "tagged_at")  # what two runs at once wrote twice
    tables.seal_rests(args.tags)  # what a killed run left so
    written = [track_id for track_id, held in read_held(args.tags).items() if held.made_by == model.made_by]
    account = ledger.settle(plan, problems, written, failures_uri, started, prune=args.prune)
    progress.say_account(account, args.tags, failures_uri, started)
    ledger.check_failures(account, args.max_failures, failures_uri)


if __name__ == "__main__":
    sys.exit(options.run(main))
