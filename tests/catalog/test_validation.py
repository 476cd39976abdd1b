"""Checking rows in columns gives what checking them one by one gives."""

import decimal
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.catalog import places
from musictag.catalog.rows import KNOWN, RowBatch, in_columns
from musictag.catalog.validation import PROBLEMS_SCHEMA, SCHEMA, Problem, iter_problems, problems_table, validate

NO_ROWS = pa.RecordBatch.from_pylist([], SCHEMA)


def check(
    batches: Sequence[RowBatch], root: str = "/music", allowed: Sequence[str] = ()
) -> tuple[list[Any], list[Any]]:
    tracks, problems = validate(batches, root, allowed, lambda: "advice")
    assert tracks.schema == SCHEMA
    assert problems.schema == PROBLEMS_SCHEMA
    return tracks.to_pylist(), list(iter_problems(problems))


def one_by_one(rows: Sequence[tuple[int, Any]]) -> RowBatch:
    return RowBatch(np.array([], np.int64), NO_ROWS, rows)


texts = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "A",
            "é",
            "e\u0301",
            "7",
            "7.0",
            "",
            " ",
            "\u00a0",
            "\u2028",
            "\x1c",
            "a\nb",
            "\ud800",
            "🎵",
            "\0",
            "a\0",
        ]
    ),
    st.text(max_size=4),
)
uris = st.one_of(
    texts,
    st.sampled_from(
        [
            "a.mp3", "/a.mp3", "./a", "../a", "a/../b", "a//b", "a/", "/", "~/a", "~a", "file:/a", "FILE:/a", "file:a",
            "file:///a", "file://host/a", "file://localhost/a", "s3://b/a", "s3://b", "s3://b/a::b", "x::s3://b/a",
            "http://169.254.169.254/a", "http://2852039166/a", "HTTP://metadata/a",
            "http://metadata.:80/a", "http://[::1]/a",
            "http://[fd00:ec2::254]/a", "http://[/a", "http://u:p@h/a", "http://h:99999/a", "://a", "a://", " s3://b/a",
            "\ts3://b/a", "1s3://metadata/a", "s3://b?x=/a", "s3://metadata/a", "/a://b", "a/https://b/c",
            "~/x://y", "...", "a/.",
        ]
    ),
    st.tuples(
        st.sampled_from(["", "http://", "file://", "s3://", "~", "/"]), st.text("a./:~@[]?#% \\", max_size=8)
    ).map("".join),
)  # fmt: skip
anything = st.one_of(
    st.none(), texts, st.integers(-(2**70), 2**70), st.booleans(), st.floats(), st.lists(texts, max_size=2),
    st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=1), st.just(decimal.Decimal(7)),
)  # fmt: skip
rows = st.fixed_dictionaries(
    {},
    optional={
        "track_id": st.one_of(texts, anything),
        "uri": st.one_of(uris, uris, anything),
        "artist": st.one_of(texts, anything),
        "title": st.one_of(texts, anything),
        "etag": st.one_of(texts, anything),
        "split": st.one_of(st.sampled_from(["train", "test", "Train", "", None]), anything),
        "tags": st.one_of(st.lists(texts, max_size=3), st.lists(st.none() | texts, max_size=2), anything),
    },
)
catalogs = st.lists(st.one_of(rows, rows, rows, st.just("not JSON")), max_size=8).map(
    lambda found: [(2 * number, row) for number, row in enumerate(found, start=1)]
)


@pytest.mark.slow
@settings(deadline=None)
@given(
    catalogs, st.sampled_from(["/music", "/music/../x", "", "s3://bucket/x", "//a"]), st.integers(0, 8), st.booleans()
)
def test_rows_in_columns_give_what_they_give_one_by_one(rows, root, cut, restricted) -> None:
    allowed = ["s3://b", "/music"] if restricted else []
    in_batches = [in_columns(rows[:cut]), in_columns(rows[cut:])]
    assert check(in_batches, root, allowed) == check([one_by_one(rows)], root, allowed)


COLUMN_TYPES = [
    (pa.string(), texts.filter(lambda text: "\ud800" not in text)),
    (pa.large_string(), st.sampled_from(["a", "", "b\nc", " "])),
    (pa.string_view(), st.sampled_from(["a", "", "b\nc", " "])),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "", "b"])),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint8(), st.integers(0, 255)),
    (pa.float64(), st.floats() | st.integers(-(2**60), 2**60).map(float)),
    (pa.float32(), st.floats(width=32) | st.integers(-9, 9).map(float)),
    (pa.float16(), st.floats(width=16)),
    (pa.decimal128(5, 1), st.sampled_from([decimal.Decimal("7.0"), decimal.Decimal("7.5")])),
    (pa.bool_(), st.booleans()),
    (pa.binary(), st.binary(max_size=2)),
    (pa.timestamp("s"), st.integers(0, 9)),
    (pa.null(), st.none()),
]
LIST_TYPES = [
    (make(data_type), st.lists(st.none() | values, max_size=3, min_size=min_size))
    for data_type, values in COLUMN_TYPES[:5]
    for make, min_size in ((pa.list_, 0), (pa.large_list, 0), (lambda each: pa.list_(each, 3), 3))
]


@st.composite
def columns(draw: st.DrawFn, types: Sequence[tuple[pa.DataType, st.SearchStrategy[Any]]], n_rows: int) -> pa.Array:
    data_type, values = draw(st.sampled_from(types))
    found = draw(st.lists(st.none() | values, min_size=n_rows + 1, max_size=n_rows + 1))
    # A slice, whose buffers begin before its first row.
    return pa.array(found, data_type)[1:]


@pytest.mark.slow
@settings(deadline=None)
@given(st.data())
def test_columns_of_any_type_give_what_their_rows_give_one_by_one(data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(KNOWN)).map(lambda some: sorted(some | {"track_id", "uri"})))
    n_rows = data.draw(st.integers(0, 5))
    arrays = [
        data.draw(columns(LIST_TYPES + COLUMN_TYPES if name == "tags" else COLUMN_TYPES + LIST_TYPES[:1], n_rows))
        for name in names
    ]
    batch = pa.record_batch(arrays, names)
    rows = list(enumerate(batch.to_pylist(), start=1))
    assert check([RowBatch(np.arange(1, n_rows + 1), batch)]) == check([one_by_one(rows)])


@given(uris.filter(lambda uri: "\n" not in uri and "\ud800" not in uri), st.sampled_from(["/a", "/a/..", "", "s3://b"]))
def test_uris_are_resolved_in_columns_as_one_by_one(uri: str, root: str) -> None:
    assert places.absolute_uris(pa.array([uri]), root).to_pylist() == [places.absolute(uri, root)]


def test_ids_that_differ_in_case_or_unicode_form_are_different_tracks() -> None:
    ids = ["a", "A", "é", "e\u0301", "ß", "ss", "1", "1.0", "01", "a\u200b"]
    tracks, problems = check([in_columns([(n, {"track_id": each, "uri": "x"}) for n, each in enumerate(ids)])])
    assert ([track["track_id"] for track in tracks], problems) == (ids, [])


def test_repeated_ids_are_found_in_different_batches_and_in_broken_rows() -> None:
    rows = [
        (1, {"track_id": "a", "uri": "1"}),
        (2, {"track_id": "b", "uri": "1"}),
        (3, {"track_id": "a", "uri": ""}),
        (4, {"track_id": "a", "uri": "filecache::2"}),
        (5, {"track_id": "\ud800", "uri": "2"}),
        (6, {"track_id": "\\ud800", "uri": "2"}),
    ]
    tracks, problems = check([in_columns(rows[:2]), in_columns(rows[2:])])
    assert [track["track_id"] for track in tracks] == ["b", "\\ud800"]
    message = "track_id is not unique: rows 1, 3, 4 have it; none is used"
    assert [(each.row, each.uri, each.message) for each in problems[:3]] == [
        (1, "1", message), (3, "", f"uri is empty; {message}"), (4, "filecache::2", message)
    ]  # fmt: skip
    assert "not unique" not in problems[3].message


def test_zeros_at_the_end_of_ids_are_removed_only_if_all_batches_have_them() -> None:
    def batch(*ids: str, has_float_ids: bool) -> RowBatch:
        return in_columns(
            [(int(float(each)), {"track_id": each, "uri": "x"}) for each in ids], has_float_ids=has_float_ids
        )

    tracks, _ = check([batch("7.0", has_float_ids=True), batch("8.0", has_float_ids=True)])
    assert [track["track_id"] for track in tracks] == ["7", "8"]
    tracks, _ = check([batch("7.0", has_float_ids=True), batch("8", has_float_ids=False)])
    assert [track["track_id"] for track in tracks] == ["7.0", "8"]


def test_only_the_wanted_columns_are_kept_and_all_are_checked() -> None:
    rows = [(1, {"track_id": "a", "uri": "1", "title": "x"}), (2, {"track_id": "b", "uri": "1", "split": "none"})]
    tracks, problems = validate([in_columns(rows)], "/", (), lambda: "", ("etag", "track_id"))
    assert tracks.to_pylist() == [{"etag": None, "track_id": "a"}]
    assert problems["row"].to_pylist() == [2]


@pytest.mark.parametrize("row", [3, None])
def test_problems_are_the_same_after_being_a_table(row: int | None) -> None:
    problems = [Problem(row, "a", "s3://b/a", "why", hides_any_track=True)] * 3
    assert list(iter_problems(problems_table(problems))) == problems
    assert not math.isnan(problems_table([]).num_rows)


@pytest.mark.parametrize("tags", [pa.string(), pa.int64(), pa.list_(pa.int32()), pa.null()])
def test_a_column_of_tags_of_another_type_without_values_means_no_tags(tags):
    columns = {"track_id": ["a"], "uri": ["a.mp3"], "tags": pa.nulls(1, tags)}
    batch = pa.record_batch(columns)
    tracks, problems = validate([RowBatch(np.array([1]), batch)], "/music", (), lambda: "advice")
    assert (tracks["tags"].to_pylist(), problems.num_rows) == ([[]], 0)
