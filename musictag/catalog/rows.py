"""Batches of catalog rows, in columns as far as the fields are of the columns' types."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import pyarrow as pa

REQUIRED = ("track_id", "uri")
OPTIONAL = ("artist", "album", "title", "tags", "split", "etag")
KNOWN = (*REQUIRED, *OPTIONAL)
"""Columns of a catalog; others are ignored."""
BATCH_ROWS = 1 << 15
"""Rows of a batch: enough that their number does not matter for speed, few enough for any memory."""

Row = dict[str, Any]
NumberedRow = tuple[int, Row | str]
"""The number of a row, and its fields or the reason why it has none."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TYPES = {name: pa.list_(pa.string()) if name == "tags" else pa.string() for name in KNOWN}


@dataclasses.dataclass(frozen=True)
class RowBatch:
    """Some rows of a catalog, each either in columns or apart."""

    numbers: npt.NDArray[np.int64]
    """Numbers of the rows in `columns`, (N,), ascending."""
    columns: pa.RecordBatch
    """The fields of N rows: some of the columns `KNOWN`, of any type; text is valid UTF-8."""
    others: Sequence[NumberedRow] = ()
    """Rows without fields, or with fields that are not of a column's type."""
    has_float_ids: bool = False
    """Whether every id ends in `.0`: pandas writes 7 as 7.0 if the id of another row is missing, or was missing."""


def batched(rows: Iterable[NumberedRow]) -> Iterator[list[NumberedRow]]:
    """Yield the rows in lists of `BATCH_ROWS`."""
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, BATCH_ROWS)):
        yield batch


def in_columns(rows: Sequence[NumberedRow], *, has_float_ids: bool = False) -> RowBatch:
    """Return rows as a batch."""
    with_fields = [row for row in rows if _has_fields(row)]
    regular = with_fields
    columns = _columns([fields for _, fields in regular])
    if columns is None:
        regular = [(number, fields) for number, fields in with_fields if _fits_columns(fields)]
        columns = _columns([fields for _, fields in regular])
    if columns is None:  # too much text for a column
        regular, columns = [], pa.RecordBatch.from_pylist([], pa.schema(_TYPES))
    numbers = [number for number, _ in regular]
    regular_numbers = set(numbers)
    others = [row for row in rows if row[0] not in regular_numbers] if len(numbers) < len(rows) else []
    return RowBatch(np.array(numbers, np.int64), columns, others, has_float_ids)


def _has_fields(row: NumberedRow) -> TypeGuard[tuple[int, Row]]:
    return isinstance(row[1], dict)


def _columns(rows: Sequence[Row]) -> pa.RecordBatch | None:
    """Return the fields of rows as columns; None if one is not of its column's type."""
    values = {name: [fields.get(name) for fields in rows] for name in KNOWN}
    values["track_id"] = [str(each) if type(each) is int else each for each in values["track_id"]]
    if not set(map(type, values["tags"])) <= {list, NoneType}:  # Arrow takes text for a list of letters
        return None
    try:
        arrays = [pa.array(values[name], _TYPES[name]) for name in KNOWN]
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return None
    return None if any(isinstance(each, pa.ChunkedArray) for each in arrays) else pa.record_batch(arrays, list(KNOWN))


def _fits_columns(fields: Row) -> bool:
    tags = fields.get("tags")
    texts = [fields.get(name) for name in KNOWN if name not in ("track_id", "tags")]
    return (
        all(text is None or _is_unicode(text) for text in texts)
        and (type(fields.get("track_id")) in (int, NoneType) or _is_unicode(fields["track_id"]))
        and (tags is None or (isinstance(tags, list) and all(map(_is_unicode, tags))))
    )


def _is_unicode(value: object) -> bool:
    return isinstance(value, str) and is_utf8(value)


def is_utf8(text: str) -> bool:
    """Return whether text was decoded from valid UTF-8: other bytes are surrogates."""
    return not _SURROGATE.search(text)
