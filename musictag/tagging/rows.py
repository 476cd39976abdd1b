"""Rows of the tags table, from rows of the features table."""

import datetime
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from musictag.features.clips import is_silent
from musictag.features.table import decode_clips
from musictag.tagging.scorers import Row
from musictag.tagging.table import COPIED_COLUMNS, ModelIdentity
from musictag.tagging.tagger import Tagger


def feature_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows of the features table as dictionaries; cells, `clips`, are views of the table's memory.

    A cell that is null is empty.
    """
    others = rows.drop_columns(["clips"]).to_pylist()
    return [{**row, "clips": cell} for row, cell in zip(others, _values(rows["clips"]), strict=True)]


def _values(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """Yield the values of a binary column without copying them, as Arrow's scalars do."""
    for chunk in column.chunks:
        _, offsets, values = chunk.buffers()
        ends = np.frombuffer(offsets or b"", np.int32)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        for begin, end in itertools.pairwise(ends):
            yield (values or pa.py_buffer(b"")).slice(begin, end - begin)


def tag_rows(tagger: Tagger, rows: Sequence[Row], model: ModelIdentity) -> list[dict[str, Any]]:
    """Return rows of `TAGS_SCHEMA` for features rows, in their order.

    A silent track has no tags and no scores: a network's scores for silence depend on its biases alone.
    """
    now = datetime.datetime.now(datetime.UTC)
    silent = [is_silent(decode_clips(row["clips"], tagger.spec.feature_config)) for row in rows]
    return [
        {
            "track_id": row["track_id"],
            **{name: row[name] for name in COPIED_COLUMNS},
            "model": model.name,
            "model_version": model.version,
            "model_digest": model.digest,
            "n_clips": row["n_clips"],
            "scores": None if is_without_sound else scores.tolist(),
            "tags": [] if is_without_sound else [{"tag": t, "score": s} for t, s in tagger.tags_above(scores)],
            "tagged_at": now,
            "silent": is_without_sound,
        }
        for row, scores, is_without_sound in zip(rows, tagger.track_scores(rows), silent, strict=True)
    ]
