"""Read the rows of a catalog file in batches: CSV, JSON Lines or Parquet.

Text files are UTF-8, or UTF-16 or UTF-32 as spreadsheets save "Unicode text". The columns of a CSV file are separated
by commas, tabs or semicolons.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO

import numpy as np
import pyarrow.parquet as pq

from musictag.catalog.encodings import decoded
from musictag.catalog.rows import BATCH_ROWS, KNOWN, REQUIRED, NumberedRow, Row, RowBatch, batched, in_columns
from musictag.errors import CatalogError
from musictag.storage import urls

# The line before the header with which Excel is told the separator.
_EXCEL_SEPARATOR = re.compile(r'"?sep=."?\s*', re.IGNORECASE)
_SEPARATORS = (",", "\t", ";")
# How pandas writes whole numbers if a row of the column is, or was, empty.
_WHOLE_FLOAT = re.compile(r"-?\d+\.0")
# How pandas and spreadsheets write long numbers; hexadecimal ids such as 1e5 have no "+".
_SCIENTIFIC = re.compile(r"-?\d(\.\d+)?e\+\d+", re.IGNORECASE)
# How pandas and databases write a missing value.
_MISSING_IDS = ("nan", "null", "none", "<na>")


def reader_for(path: str) -> Callable[[IO[bytes], str], Iterator[RowBatch]]:
    """Return the function that reads the rows of a catalog file, by the suffix of its path or URL.

    Its arguments are the open file and its name in errors. Raises `CatalogError` if the suffix is not known.
    """
    suffix = PurePosixPath(urls.without_query(path)).suffix.lower()
    readers = {
        ".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet
    }  # fmt: skip
    if suffix not in readers:
        raise CatalogError(
            f"catalog {urls.redacted(path)}: unknown format {suffix or '(no suffix)'}; "
            f"use a folder or {', '.join(readers)}"
        )
    return readers[suffix]


def _read_csv(stream: IO[bytes], name: str) -> Iterator[RowBatch]:
    with decoded(stream) as lines:
        for rows in batched((number, _id_problem(fields) or fields) for number, fields in _csv_rows(lines, name)):
            yield in_columns(rows, has_float_ids=_has_float_ids(rows))


def _csv_rows(lines: io.TextIOWrapper, name: str) -> Iterator[NumberedRow]:
    first = lines.readline()
    n_before = 1
    if _EXCEL_SEPARATOR.fullmatch(first):
        first, n_before = lines.readline(), 2
    # The separator is the one with which the header has the required columns.
    headers = {separator: _header(first, separator) for separator in _SEPARATORS}
    complete = [separator for separator in _SEPARATORS if set(REQUIRED) <= set(headers[separator])]
    separator = complete[0] if complete else ","
    _check_columns(name, headers[separator])
    header, number = headers[separator], n_before
    reader = csv.reader(lines, strict=True, delimiter=separator)
    try:
        for values in reader:
            number = reader.line_num + n_before
            if len(values) == len(header):
                fields: Row = dict(zip(header, values, strict=True))
                fields["tags"] = fields.get("tags", "").split(";")
                yield number, fields
            elif len(values) > len(header):
                sign = {",": "comma", "\t": "tab", ";": "semicolon"}[separator]
                n_more = len(values) - len(header)
                yield number, f"{n_more} more fields than the header has: quote fields that contain a {sign}"
            elif values:  # else the line is empty
                yield number, "fewer fields than the header has"
    except csv.Error as error:
        # After an unclosed quote, the rows that follow are read as one field, so that none of them can be used.
        raise CatalogError(f"catalog {name}, line {number}: {error}; is a quote not closed?") from error


def _header(line: str, separator: str) -> list[str]:
    return [column.strip() for row in csv.reader([line], delimiter=separator) for column in row]


def _has_float_ids(rows: Sequence[NumberedRow]) -> bool:
    """Return whether every id ends in `.0`."""
    ids = (fields["track_id"] for _, fields in rows if isinstance(fields, dict) and fields["track_id"].strip())
    return all(map(_WHOLE_FLOAT.fullmatch, ids))


def _id_problem(fields: Row | str) -> str | None:
    """Return why the id of a row of a CSV file is lost, or None."""
    if isinstance(fields, str):
        return None
    track_id = fields["track_id"].strip()
    if track_id.lower() in _MISSING_IDS:
        return f"track_id is {track_id}, which stands for a missing value"
    if _SCIENTIFIC.fullmatch(track_id):
        return f"track_id is {track_id}: digits of the number are lost; save the column as text"
    return None


def _read_jsonl(stream: IO[bytes], name: str) -> Iterator[RowBatch]:
    with decoded(stream) as lines:
        for rows in batched(_jsonl_rows(lines)):
            yield in_columns(rows)


def _jsonl_rows(lines: Iterable[str]) -> Iterator[NumberedRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON: {error}"
            continue
        yield number, fields if isinstance(fields, dict) else "not a JSON object"


def _read_parquet(stream: IO[bytes], name: str) -> Iterator[RowBatch]:
    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    _check_columns(name, names)
    columns, begin = [column for column in KNOWN if column in names], 1
    for group in range(file.num_row_groups):  # one after another: a reader of several keeps what it has read
        for batch in file.iter_batches(BATCH_ROWS, [group], columns):
            batch.validate(full=True)  # text of a file may be damaged
            yield RowBatch(np.arange(begin, begin + len(batch)), batch)
            begin += len(batch)


def _check_columns(name: str, columns: list[str]) -> None:
    if missing := [column for column in REQUIRED if column not in columns]:
        raise CatalogError(f"catalog {name}: no column {' and no column '.join(missing)}; it has {', '.join(columns)}")
    if repeated := [column for column in KNOWN if columns.count(column) > 1]:
        raise CatalogError(f"catalog {name}: several columns are named {' and '.join(repeated)}; rename all but one")
