"""Read the rows of a catalog file: CSV, JSON Lines or Parquet.

Text files are UTF-8, or UTF-16 or UTF-32 as spreadsheets save "Unicode text". The columns of a CSV file are separated
by commas, tabs or semicolons.
"""

import codecs
import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import charset_normalizer
import pyarrow.parquet as pq

from musictag.errors import CatalogError
from musictag.storage import urls

REQUIRED = ("track_id", "uri")
OPTIONAL = ("artist", "album", "title", "tags", "split")
_KNOWN = (*REQUIRED, *OPTIONAL)

Row = dict[str, Any]
NumberedRow = tuple[int, Row | str]
"""The number of a row, and its fields or the reason why it has none."""

# The order matters: the mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# "track_id" in UTF-16 without a byte order mark: every second byte is 0.
_UTF_16_BEGINS = {(False, True): "utf-16-le", (True, False): "utf-16-be"}
# The line before the header with which Excel is told the separator.
_EXCEL_SEPARATOR = re.compile(r'"?sep=."?\s*', re.IGNORECASE)
_SEPARATORS = (",", "\t", ";")
# Key of the surplus fields of a CSV row that is longer than the header; no column can have this name.
_SURPLUS = "\0"
# Bytes of text from which an encoding is guessed.
_GUESS_BYTES = 1 << 16
# Letters and punctuation of Western European languages in cp1252, apart from ASCII. Those of Cyrillic and Greek are the
# same bytes, but of these, more than two follow each other in most words.
_WESTERN_LETTERS = "àáâãäåæçéèêëíìîïñóòôöõøœúùûüýÿß"
_WESTERN_LETTERS += _WESTERN_LETTERS.replace("ß", "").upper()
_WESTERN = re.compile(rf"[{_WESTERN_LETTERS}«»„“”‘’–—…°€¿¡\x00-\x7f]*")  # noqa: RUF001
_NO_WESTERN_WORD = re.compile(rf"[{_WESTERN_LETTERS}]{{3}}")
# How pandas writes whole numbers if a row of the column is, or was, empty.
_WHOLE_FLOAT = re.compile(r"-?\d+\.0")
# How pandas and spreadsheets write long numbers; hexadecimal ids such as 1e5 have no "+".
_SCIENTIFIC = re.compile(r"-?\d(\.\d+)?e\+\d+", re.IGNORECASE)
# How pandas and databases write a missing value.
_MISSING_IDS = ("nan", "null", "none", "<na>")


def reader_for(path: str) -> Callable[[IO[bytes], str], Iterable[NumberedRow]]:
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


def guess_encoding(stream: IO[bytes]) -> str | None:
    """Return a guess of the encoding of the lines that are not UTF-8; None if there is none, or no guess."""
    sample = bytearray()
    for line in stream:
        if not _is_utf8(line):
            sample += line
        if len(sample) > _GUESS_BYTES:
            break
    if not sample:
        return None
    if _is_western(bytes(sample)):
        return "cp1252"
    best = charset_normalizer.from_bytes(bytes(sample)).best()
    if best is None:
        return None
    # Several encodings of one language may fit; this one is by far the most frequent.
    return "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding


def _is_western(sample: bytes) -> bool:
    """Return whether text is cp1252 of a Western European language, which `charset_normalizer` misses in names."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return bool(_WESTERN.fullmatch(text)) and not _NO_WESTERN_WORD.search(text)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextlib.contextmanager
def _decoded(stream: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    """Yield an open file as text. Bytes that are not UTF-8 become surrogates, which `validation` reports."""
    begin = stream.read(4)
    stream.seek(0)
    marked = (encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if begin.startswith(mark))
    zeros = (not any(begin[::2]), not any(begin[1::2]))
    encoding = next(marked, _UTF_16_BEGINS.get(zeros, "utf-8-sig") if len(begin) == 4 else "utf-8-sig")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    text = io.TextIOWrapper(stream, encoding, errors, newline="")
    try:
        yield text
    finally:
        text.detach()  # otherwise its end would close the file


def _read_csv(stream: IO[bytes], name: str) -> list[NumberedRow]:
    with _decoded(stream) as lines:
        rows = [(number, _id_problem(fields) or fields) for number, fields in _csv_rows(lines, name)]
        return _restore_whole_numbers(rows)


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
    reader = csv.DictReader(lines, headers[separator], restkey=_SURPLUS, strict=True, delimiter=separator)
    try:
        for fields in reader:
            number = reader.line_num + n_before
            surplus = fields.pop(_SURPLUS, None)
            if surplus is not None:
                sign = {",": "comma", "\t": "tab", ";": "semicolon"}[separator]
                yield number, f"{len(surplus)} more fields than the header has: quote fields that contain a {sign}"
            elif None in fields.values():
                yield number, "fewer fields than the header has"
            else:
                yield number, {**fields, "tags": fields.get("tags", "").split(";")}
    except csv.Error as error:
        # After an unclosed quote, the rows that follow are read as one field, so that none of them can be used.
        raise CatalogError(
            f"catalog {name}, line {reader.line_num + n_before}: {error}; is a quote not closed?"
        ) from error


def _header(line: str, separator: str) -> list[str]:
    return [column.strip() for row in csv.reader([line], delimiter=separator) for column in row]


def _restore_whole_numbers(rows: list[NumberedRow]) -> list[NumberedRow]:
    """Return rows of a CSV file, without the `.0` of its track ids if every id ends so.

    pandas writes 7 as 7.0 if the id of another row is missing, or was missing before that row was removed.
    """
    ids = [fields["track_id"] for _, fields in rows if isinstance(fields, dict) and fields["track_id"].strip()]
    if not all(map(_WHOLE_FLOAT.fullmatch, ids)):
        return rows
    return [
        (number, fields if isinstance(fields, str) else fields | {"track_id": fields["track_id"].removesuffix(".0")})
        for number, fields in rows
    ]


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


def _read_jsonl(stream: IO[bytes], name: str) -> Iterator[NumberedRow]:
    with _decoded(stream) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON: {error}"
                continue
            yield number, fields if isinstance(fields, dict) else "not a JSON object"


def _read_parquet(stream: IO[bytes], name: str) -> Iterator[NumberedRow]:
    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    _check_columns(name, names)
    columns = [column for column in _KNOWN if column in names]
    number = 0
    for batch in file.iter_batches(columns=columns):
        for fields in batch.to_pylist():
            number += 1
            yield number, fields


def _check_columns(name: str, columns: list[str]) -> None:
    if missing := [column for column in REQUIRED if column not in columns]:
        raise CatalogError(f"catalog {name}: no column {' and no column '.join(missing)}; it has {', '.join(columns)}")
    if repeated := [column for column in _KNOWN if columns.count(column) > 1]:
        raise CatalogError(f"catalog {name}: several columns are named {' and '.join(repeated)}; rename all but one")
