"""Cells of a few bytes in place of decoded audio, for a benchmark of everything else."""

import datetime
from collections.abc import Iterable, Iterator
from typing import Any

from musictag.features.config import FeatureConfig


def featurize_tasks(tasks: Iterable[Any], config: FeatureConfig, *_: object) -> Iterator[tuple[dict[str, Any], None]]:
    """Yield a made row for each task, in place of `musictag.jobs.featurizing.featurize_tasks`."""
    for task in tasks:
        yield (
            {
                "track_id": task.track_id,
                "uri": task.uri,
                "audio_etag": task.audio_etag,
                "audio_sha256": f"{task.track_id:0>64}",
                "duration_s": 30.0,
                "n_clips": 10,
                "start_s": [3.0 * clip for clip in range(10)],
                "clips": b"12345678",
                "feature_hash": config.feature_hash,
                "featurized_at": datetime.datetime.now(datetime.UTC),
                "silent": False,
                "damaged_s": 0.0,
            },
            None,
        )
