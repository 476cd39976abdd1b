"""Score the tasks of a plan on Ray Data: read features or audio in tasks, and score them in actors.

Ray distributes numbers of shards. Tasks read the rows of their shard, and actors that hold the network score them.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from musictag.engines import ray_cluster  # isort: skip # first: it prepares the environment for Ray

import pyarrow as pa
import ray
import ray.data
import torch

from musictag.features import table
from musictag.features.config import FeatureConfig
from musictag.features.limits import Limits
from musictag.features.reader import newest_rows
from musictag.jobs import copy_sources, ledger
from musictag.jobs.featurizing import featurize_tasks
from musictag.jobs.machine import n_cores
from musictag.jobs.output import Output
from musictag.jobs.plan_files import Shards, Task
from musictag.jobs.run import Workers
from musictag.storage import tables
from musictag.storage.data_files import table_of
from musictag.storage.outages import ask_table_store
from musictag.tagging.rows import feature_rows, tag_rows
from musictag.tagging.scorers import SCORE_COLUMNS
from musictag.tagging.table import COPIED_COLUMNS, TAGS_SCHEMA, ModelIdentity
from musictag.tagging.tagger import Tagger

# Clips that an actor with a GPU scores in one call, about: two of the network's batches.
SCORE_CLIPS = 2_048
# Clips of a track of four minutes, where tracks have all their clips.
SONG_CLIPS = 80
# Tracks that come to this process together.
BLOCK_TRACKS = 256

FAILURE = pa.field("failure", pa.struct(list(ledger.FAILURES_SCHEMA)))
SCORED_SCHEMA = pa.schema([*TAGS_SCHEMA, FAILURE])
"""Columns of scored rows. Of a track that failed, all columns but `failure` are null."""
# The row of a track whose audio is known, and is not scored again.
TAGGED = pa.field("tagged", pa.struct(list(TAGS_SCHEMA)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """The model, the source of its features, and the settings of Ray for one run."""

    model: ModelIdentity
    folder: Path
    """The folder of the model's artifact on this machine."""
    config: FeatureConfig
    """The settings of the features that the model needs."""
    features_uri: str | None
    """The features table to read; None if the tracks are decoded."""
    clips_per_track: int | None
    """Number of clips of each track; None if tracks have all their clips."""
    limits: Limits
    output: Output
    """The tags table, from which rows are copied if only their audio's place is new."""
    num_workers: int | None
    """Number of actors; None means one for each GPU or core."""
    use_gpu: bool

    @contextlib.contextmanager
    def engine(self) -> Iterator[Workers]:
        """Run Ray in the body. Raises `ModelError`, before it starts Ray, if the model is broken."""
        Tagger.load(self.folder)
        # An actor takes a logical CPU; the tasks that read and decode need some as well.
        with ray_cluster.connect(num_cpus=n_cores() + (self.num_workers or n_cores())), ray_cluster.task_errors():
            n_cpus = ray_cluster.n_workers(use_gpu=False)
            yield Workers(max(n_cpus, self._n_actors()), n_cpus, self._n_actors() if self.use_gpu else 0)

    def score(self, plan: Shards) -> Iterator[pa.Table]:
        """Yield tables of `SCORED_SCHEMA` of the tasks as they arrive; Ray must run."""
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors that it logs are raised as well
        ray.data.DataContext.get_current().enable_progress_bars = False
        if self.features_uri is None:
            rows = from_audio(plan, self.config, self.clips_per_track, self.limits, self.output)
        else:
            rows = from_features(plan, self.features_uri, self.limits.store_timeout_s)
        gpu_tracks = max(1, SCORE_CLIPS // (self.clips_per_track or SONG_CLIPS)) if self.use_gpu else None
        scored = score_rows(rows, self.model, self.folder, gpu_tracks, self._n_actors())
        yield from map(pa.table, scored.iter_batches(batch_size=BLOCK_TRACKS, batch_format="pyarrow"))

    def _n_actors(self) -> int:
        return self.num_workers or ray_cluster.n_workers(use_gpu=self.use_gpu)


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


def from_features(plan: Shards, features_uri: str, store_timeout_s: float) -> ray.data.Dataset:
    """Read the feature rows of the tasks; files and row groups without such a row are not read."""
    names = (*SCORE_COLUMNS, *COPIED_COLUMNS, "featurized_at")
    schema = pa.schema([table.SCHEMA.field(name) for name in names])
    table_uri = tables.absolute(features_uri)  # workers have other folders

    def read_file(path: str, track_ids: set[str]) -> pa.Table:
        rows = pa.concat_tables([schema.empty_table(), *tables.read_file(table_uri, path, schema, track_ids)])
        return newest_rows(rows).drop_columns("featurized_at")

    def read(tasks: list[Task]) -> Iterator[pa.Table]:
        for path, of_file in itertools.groupby(tasks, lambda task: str(task.features_file)):
            # Read again as a whole if the store does not answer; a part has some 128 MiB.
            read_tasks = functools.partial(read_file, path, {task.track_id for task in of_file})
            yield ask_table_store(read_tasks, store_timeout_s)

    return from_shards(plan, read)


def from_audio(
    plan: Shards, config: FeatureConfig, clips_per_track: int | None, limits: Limits, output: Output
) -> ray.data.Dataset:
    """Featurize the tasks: rows as the features table would have them, or failures."""
    schema = pa.schema([*table.SCHEMA, FAILURE, TAGGED])
    find_row = functools.partial(copy_sources.find_row, output=output, limits=limits)

    def featurize(tasks: list[Task]) -> Iterator[pa.Table]:
        for row, failure in featurize_tasks(tasks, config, clips_per_track, limits, find_row):
            outcome = {"tagged": row} if row and "tags" in row else row or {}
            yield table_of({**outcome, "failure": failure}, schema)

    return from_shards(plan, featurize)


def from_shards(plan: Shards, read: Callable[[list[Task]], Iterator[pa.Table]]) -> ray.data.Dataset:
    """Return the rows that `read` gives for the tasks of each part; Ray distributes numbers of shards alone."""

    def read_shards(shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards["id"].to_pylist():
            for _, tasks in plan.read_shard(shard):
                yield from read(tasks)

    return ray.data.range(plan.n_shards, override_num_blocks=plan.n_shards).map_batches(
        read_shards, batch_format="pyarrow"
    )


def score_rows(
    rows: ray.data.Dataset, model: ModelIdentity, folder: Path, gpu_tracks: int | None, n_actors: int
) -> ray.data.Dataset:
    """Score feature rows by `n_actors` actors with the model artifact in `folder`; returns rows of `SCORED_SCHEMA`.

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
            initial_size=n_actors,
            max_size=n_actors,
            # With a GPU, the tracks of the next call are put together while it scores.
            max_concurrent_calls_per_actor=2 if gpu_tracks else 1,
        ),
        num_cpus=1,
        num_gpus=1 if gpu_tracks else 0,
    )
