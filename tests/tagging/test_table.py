import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from musictag.tagging.table import TAGS_SCHEMA, tag_rows
from musictag.tagging.tagger import Tagger
from small import SPEC, small_model, track


def test_tag_rows_have_the_identity_of_the_track_and_the_model() -> None:
    tagger, rows = Tagger(small_model(), SPEC), [stored(4, 1), stored(2, 2), stored(9, 3)]
    before = datetime.datetime.now(datetime.UTC)
    tagged = tag_rows(tagger, rows, "musictag", "7")
    table = pa.Table.from_pylist(tagged, TAGS_SCHEMA)  # Every column is there, and of its type.
    assert set(tagged[0]) == set(TAGS_SCHEMA.names)
    for name in ("track_id", "uri", "audio_etag", "audio_sha256", "feature_hash", "n_clips"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    assert set(zip(table["model"].to_pylist(), table["model_version"].to_pylist(), strict=True)) == {("musictag", "7")}
    scores = tagger.track_scores(rows)
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)
    for row, expected in zip(tagged, scores, strict=True):
        assert [(tag["tag"], tag["score"]) for tag in row["tags"]] == tagger.tags_above(expected)
    assert any(row["tags"] for row in tagged)
    assert all(before <= at <= datetime.datetime.now(datetime.UTC) for at in table["tagged_at"].to_pylist())


def test_tag_rows_without_rows_are_empty() -> None:
    assert tag_rows(Tagger(small_model(), SPEC), [], "musictag", "7") == []


def stored(n_clips: int, seed: int) -> dict[str, Any]:
    identity = {"uri": f"{seed}.mp3", "audio_etag": f"e{seed}", "audio_sha256": f"s{seed}", "feature_hash": "abc"}
    return {**track(n_clips, seed), **identity, "n_clips": n_clips}
