"""Read a catalog: a list of tracks with the place of their audio and their tags.

A catalog is a CSV, JSON Lines or Parquet file or a folder of music, at any fsspec URL. The whole catalog is validated
at once: a row that cannot be used becomes a `Problem`, and the other rows are still used. Unknown columns are ignored.
"""

import csv
import dataclasses
import json
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from musictag.catalog.splits import SPLITS
from musictag.errors import CatalogError
from musictag.storage import urls

AUDIO_SUFFIXES = frozenset(
    [".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".wave", ".wma"]
)
_REQUIRED = ("track_id", "uri")
_OPTIONAL = ("artist", "album", "title", "tags", "split")
_SINGLE_LINE = ("track_id", "uri", "artist", "split")
# Key of the surplus fields of a CSV row that is longer than the header; no column can have this name.
_SURPLUS = "\0"

SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("title", pa.string()),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string()),
    ]
)

Row = dict[str, Any]
NumberedRow = tuple[int, Row | str]
"""The number of a row, and its fields or the reason why it has none."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A catalog row that cannot be used."""

    row: int
    """Line number in a text file, or row number in a Parquet file; counted from 1."""
    track_id: str
    """The row's id, or `row N` if it has none."""
    uri: str
    message: str
    """Everything that is wrong with the row."""

    def __str__(self) -> str:
        return f"row {self.row} ({self.track_id}): {self.message}"


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The usable tracks of a catalog and its unusable rows."""

    uri: str
    tracks: pa.Table
    """Table of `SCHEMA`; its uris are absolute."""
    problems: tuple[Problem, ...]


def read_catalog(uri: str, allowed: Sequence[str] = ()) -> Catalog:
    """Read and validate the catalog at `uri`: a `.csv`, `.jsonl` or `.parquet` file, or a folder of music.

    A row whose uri is outside all of `allowed` (see `storage.urls.rejection_reason`) is a problem.

    Raises:
        CatalogError: the catalog does not exist, has an unknown format, or lacks a required column.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        if filesystem.isdir(path):
            rows, root = list(_read_folder(filesystem, path)), path
        else:
            with filesystem.open(path, "rb") as stream:
                rows = list(_reader_for(path)(stream, uri))
            root = path.rpartition("/")[0]
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise CatalogError(f"catalog {uri}: cannot be read: {error}") from error
    return _validate(uri, rows, filesystem.unstrip_protocol(root) if "://" in uri else root, allowed)


def _reader_for(path: str) -> Callable[[IO[bytes], str], Iterator[NumberedRow]]:
    suffix = PurePosixPath(path).suffix.lower()
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    if suffix not in readers:
        raise CatalogError(
            f"catalog {path}: unknown format {suffix or '(no suffix)'}; use a folder or {', '.join(readers)}"
        )
    return readers[suffix]


def _read_csv(stream: IO[bytes], uri: str) -> Iterator[NumberedRow]:
    # Bytes that are not UTF-8 become surrogates; `_validate` reports them with their row.
    lines = (line.decode("utf-8", "surrogateescape") for line in stream)
    reader = csv.DictReader(lines, restkey=_SURPLUS, strict=True)
    try:
        header = [name.lstrip("\ufeff").strip() for name in reader.fieldnames or []]
        _require_columns(uri, header)
        reader.fieldnames = header
        for fields in reader:
            surplus = fields.pop(_SURPLUS, None)
            if surplus is not None:
                message = f"{len(surplus)} more fields than the header has: quote fields that contain a comma"
                yield reader.line_num, message
            elif None in fields.values():
                yield reader.line_num, "fewer fields than the header has"
            else:
                tags = [tag.strip() for tag in fields.get("tags", "").split(";")]
                yield reader.line_num, {**fields, "tags": [tag for tag in tags if tag]}
    except csv.Error as error:
        # After an unclosed quote, the rows that follow are read as one field, so that none of them can be used.
        raise CatalogError(f"catalog {uri}, line {reader.line_num}: {error}; is a quote not closed?") from error


def _read_jsonl(stream: IO[bytes], uri: str) -> Iterator[NumberedRow]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON: {error}"
            continue
        yield number, fields if isinstance(fields, dict) else "not a JSON object"


def _read_parquet(stream: IO[bytes], uri: str) -> Iterator[NumberedRow]:
    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    _require_columns(uri, names)
    columns = [name for name in (*_REQUIRED, *_OPTIONAL) if name in names]
    number = 0
    for batch in file.iter_batches(columns=columns):
        for fields in batch.to_pylist():
            number += 1
            yield number, fields


def _read_folder(filesystem: fsspec.AbstractFileSystem, folder: str) -> Iterator[NumberedRow]:
    relatives = audio_files(filesystem, folder)
    for number, relative in enumerate(relatives, start=1):
        yield number, {"track_id": relative, "uri": relative, "title": relative.rpartition("/")[2]}
    if not relatives:
        raise CatalogError(f"catalog {folder}: the folder has no audio file ({' '.join(sorted(AUDIO_SUFFIXES))})")


def audio_files(filesystem: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    """Return the sorted paths, relative to `folder`, of its files with a suffix of `AUDIO_SUFFIXES`; no hidden ones."""
    relatives = (path[len(folder) :].lstrip("/") for path in sorted(filesystem.find(folder)))
    return [
        relative
        for relative in relatives
        if PurePosixPath(relative).suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in relative.split("/"))
    ]


def _require_columns(uri: str, names: list[str]) -> None:
    if missing := [name for name in _REQUIRED if name not in names]:
        raise CatalogError(f"catalog {uri}: no column {' and no column '.join(missing)}; it has {', '.join(names)}")


def _validate(uri: str, rows: list[NumberedRow], root: str, allowed: Sequence[str]) -> Catalog:
    numbers_by_track = defaultdict(list)
    for number, fields in rows:
        if isinstance(fields, dict) and not _is_empty(fields.get("track_id")):
            numbers_by_track[str(fields["track_id"])].append(number)

    tracks, problems = [], []
    for number, fields in rows:
        if isinstance(fields, str):
            problems.append(Problem(number, f"row {number}", "", fields))
            continue
        reasons = list(_invalid_fields(fields))
        numbers = numbers_by_track[str(fields.get("track_id"))]
        if len(numbers) > 1:
            reasons.append(f"track_id is not unique: rows {', '.join(map(str, numbers[:5]))} have it; none is used")
        if not reasons and (reason := urls.rejection_reason(_absolute(fields["uri"], root), allowed)):
            reasons.append(reason)
        if reasons:
            track_id = _printable(fields.get("track_id") or f"row {number}")
            problems.append(Problem(number, track_id, _printable(fields.get("uri") or ""), "; ".join(reasons)))
        else:
            tracks.append(_track(fields, root))
    return Catalog(uri, pa.Table.from_pylist(tracks, SCHEMA), tuple(problems))


def _track(fields: Row, root: str) -> Row:
    """Return the columns of `SCHEMA` of a valid row."""
    return {name: fields.get(name) or None for name in SCHEMA.names} | {
        "track_id": str(fields["track_id"]),
        "uri": _absolute(fields["uri"], root),
        "tags": sorted(set(fields.get("tags") or [])),
    }


def _invalid_fields(fields: Row) -> Iterator[str]:
    """Yield a message for everything that is wrong with the fields of a row."""
    for name in _REQUIRED:
        if _is_empty(fields.get(name)):
            yield f"{name} is empty"
    for name in ("uri", "artist", "album", "title", "split"):
        if not isinstance(fields.get(name), str | None):
            yield f"{name} is not text: {fields[name]!r}"
    for name in (*_REQUIRED, *_OPTIONAL):
        if isinstance(fields.get(name), str) and not _is_utf8(fields[name]):
            yield f"{name} is not UTF-8: {_printable(fields[name])!r}; rename it"
    for name in _SINGLE_LINE:
        if "\n" in str(fields.get(name)):
            yield f"{name} has several lines: is a quote not closed?"
    if (split := fields.get("split")) and split not in SPLITS:
        yield f"unknown split {split!r}: use one of {', '.join(SPLITS)}, or leave it empty"
    tags = fields.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag and _is_utf8(tag) for tag in tags):
        yield f"tags is not a list of text: {tags!r}"


def _is_empty(value: object) -> bool:
    return value is None or not str(value).strip()


def _absolute(uri: str, root: str) -> str:
    if "://" in uri or uri.startswith("/"):
        return uri
    return f"{root}/{uri}" if "://" in root else posixpath.normpath(f"{root}/{uri}")


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _printable(text: object) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode()
