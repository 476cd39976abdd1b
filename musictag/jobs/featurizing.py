"""Featurize many tracks: each gives a row of the features table or a row of the failures table."""

import collections
import concurrent.futures
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from musictag.errors import AudioError
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.decoder_process import shared_process
from musictag.features.limits import DEFAULT_LIMITS, Limits
from musictag.jobs.copy_sources import FindRow
from musictag.jobs.ledger import failure_row
from musictag.jobs.plan_files import Task

Row = dict[str, Any]
Outcome = tuple[Row | None, Row | None]
"""A row and None, or None and a failures row. The row is a features row, or the one that `FindRow` returned."""

# Tracks in progress while the caller uses a row: one is decoded and one is fetched.
TRACKS_AHEAD = 2


def featurize_tasks(
    tasks: Iterable[Task],
    config: FeatureConfig,
    clips_per_track: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    find_row: FindRow | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of each task, in order, while the next tracks are fetched and decoded in a child process.

    A track for which `find_row` returns a row is not decoded: that row is its outcome.
    """
    decode = shared_process().track_clips

    def featurize(task: Task) -> Outcome:
        try:
            find = functools.partial(find_row, task) if find_row else None
            row = extract.featurize(
                task.track_id, task.uri, config, clips_per_track, limits, decode, find, task.audio_etag
            )
            return row, None
        except AudioError as error:
            return None, failure_row(task, error)

    with concurrent.futures.ThreadPoolExecutor(TRACKS_AHEAD) as threads:
        outcomes: collections.deque[concurrent.futures.Future[Outcome]] = collections.deque()
        for task in tasks:
            outcomes.append(threads.submit(featurize, task))
            if len(outcomes) > TRACKS_AHEAD:
                yield outcomes.popleft().result()
        while outcomes:
            yield outcomes.popleft().result()
