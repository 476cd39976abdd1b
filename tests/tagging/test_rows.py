import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from musictag.tagging.rows import feature_rows, tag_rows
from musictag.tagging.table import TAGS_SCHEMA, ModelIdentity
from musictag.tagging.tagger import Tagger
from small import SPEC, small_model, track

MODEL = ModelIdentity("musictag", "7", "d7")


def test_tag_rows_have_the_identity_of_the_track_and_the_model() -> None:
    tagger, rows = Tagger(small_model(), SPEC), [stored(4, 1), stored(2, 2), stored(9, 3)]
    before = datetime.datetime.now(datetime.UTC)
    tagged = tag_rows(tagger, rows, MODEL)
    table = pa.Table.from_pylist(tagged, TAGS_SCHEMA)  # Every column is there, and of its type.
    assert set(tagged[0]) == set(TAGS_SCHEMA.names)
    for name in ("track_id", "uri", "audio_etag", "audio_sha256", "feature_hash", "damaged_s", "n_clips"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    assert set(zip(table["model"].to_pylist(), table["model_version"].to_pylist(), strict=True)) == {("musictag", "7")}
    assert set(table["model_digest"].to_pylist()) == {"d7"}
    scores = tagger.track_scores(rows)
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)
    for row, expected in zip(tagged, scores, strict=True):
        assert [(tag["tag"], tag["score"]) for tag in row["tags"]] == tagger.tags_above(expected)
    assert any(row["tags"] for row in tagged)
    assert all(before <= at <= datetime.datetime.now(datetime.UTC) for at in table["tagged_at"].to_pylist())


def test_feature_rows_hold_their_cells_without_a_copy() -> None:
    cells = [b"first", None, b"", b"fourth", b"fifth"]
    table = pa.table({"track_id": list("abcde"), "clips": pa.array(cells, pa.binary())})
    chunked = pa.concat_tables(
        [table.slice(0, 2), table.slice(5), table.slice(2, 2), table.slice(4), table.slice(1, 1)]
    )
    rows = feature_rows(chunked)
    assert [row["track_id"] for row in rows] == [*"abcde", "b"]
    assert [bytes(row["clips"]) for row in rows] == [cell or b"" for cell in [*cells, None]]
    memory = table["clips"].chunk(0).buffers()[2]
    assert rows[3]["clips"].address == memory.address + len(b"first")
    assert feature_rows(table.slice(0, 0)) == []
    nulls = pa.table({"track_id": ["a"], "clips": pa.nulls(1, pa.binary())})
    assert [bytes(row["clips"]) for row in feature_rows(nulls)] == [b""]


def test_tags_of_a_table_are_those_of_its_rows() -> None:
    tagger, rows = Tagger(small_model(), SPEC), [stored(4, 1), stored(2, 2), stored(9, 3)]
    cells = [{**row, "clips": bytes(row["clips"])} for row in rows]
    of_table, of_rows = (tag_rows(tagger, some, MODEL) for some in (feature_rows(pa.Table.from_pylist(cells)), rows))
    assert [{**row, "tagged_at": None} for row in of_table] == [{**row, "tagged_at": None} for row in of_rows]


def test_tag_rows_without_rows_are_empty() -> None:
    assert tag_rows(Tagger(small_model(), SPEC), [], MODEL) == []


def test_silent_track_has_no_tags_and_no_scores() -> None:
    row = stored(4, 1)
    silent, loud = tag_rows(Tagger(small_model(), SPEC), [{**row, "clips": bytes(len(row["clips"]))}, row], MODEL)
    assert (silent["silent"], silent["scores"], silent["tags"]) == (True, None, [])
    assert (loud["silent"], len(loud["scores"])) == (False, len(SPEC.vocabulary))


def stored(n_clips: int, seed: int) -> dict[str, Any]:
    identity = {
        "uri": f"{seed}.mp3",
        "audio_etag": f"e{seed}",
        "audio_sha256": f"s{seed}",
        "feature_hash": "abc",
        "damaged_s": 0.0,
    }
    return {**track(n_clips, seed), **identity, "n_clips": n_clips}
