"""The catalog: which tracks there are, where their audio lies, and what experts said of them.

CSV, JSON Lines, Parquet, or a folder of music; by any fsspec url. The whole catalog is validated at once: a row that
cannot be used becomes a `Problem`, and the others go on. Columns that are not ours are left where they are.
"""

import csv
import dataclasses
import json
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
REQUIRED = ("track_id", "uri")
OPTIONAL = ("artist", "album", "title", "tags", "split")
SINGLE_LINE = ("track_id", "uri", "artist", "split")
# Where the fields of a CSV row go that are more than its header names: no header has this name.
SURPLUS = "\0"

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


@dataclasses.dataclass(frozen=True)
class Problem:
    """One catalog row that cannot be used, and everything that is wrong with it."""

    row: int
    """Number of the row in its file: the line of a text file, counted from 1; else the row's place."""
    track_id: str
    """The row's own id, or `row N` where it has none."""
    uri: str
    message: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.track_id}): {self.message}"


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The usable tracks (`SCHEMA`, uris absolute) and the rows that are not."""

    uri: str
    tracks: pa.Table
    problems: tuple[Problem, ...]


def read_catalog(uri: str, allowed: Sequence[str] = ()) -> Catalog:
    """Read and validate the catalog at `uri`: a `.csv`, `.jsonl` or `.parquet` file, or a folder of music.

    A row whose uri is not within one of `allowed` (see `storage.urls.rejection_reason`) is a problem.
    Raises `CatalogError` if it cannot be read at all: nothing there, an unknown format, a required column missing.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        is_folder = filesystem.isdir(path)
        if is_folder:
            read, root = _read_folder(filesystem, path), path
            rows = list(read)
        else:
            with filesystem.open(path, "rb") as stream:
                rows = list(_reader(path)(stream, uri))
            root = path.rpartition("/")[0]
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise CatalogError(f"catalog {uri}: cannot be read: {error}") from error
    return _validate(uri, rows, filesystem.unstrip_protocol(root) if "://" in uri else root, allowed)


def _reader(path: str) -> Any:
    suffix = PurePosixPath(path).suffix.lower()
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    if suffix not in readers:
        raise CatalogError(
            f"catalog {path}: unknown format {suffix or '(no suffix)'}; use a folder, {', '.join(readers)}"
        )
    return readers[suffix]


def _read_csv(stream: IO[bytes], uri: str) -> Iterator[tuple[int, Row | str]]:
    # Bytes that are not UTF-8 become surrogates here, and a problem of their own row in `_validate`.
    lines = (line.decode("utf-8", "surrogateescape") for line in stream)
    reader = csv.DictReader(lines, restkey=SURPLUS, strict=True)
    try:
        header = [name.lstrip("\ufeff").strip() for name in reader.fieldnames or []]
        _require_columns(uri, header)
        reader.fieldnames = header
        for fields in reader:
            extra = fields.pop(SURPLUS, None)
            if extra is not None:
                yield reader.line_num, f"{len(extra)} more fields than the header has: quote a field that holds a comma"
            elif None in fields.values():
                yield reader.line_num, "fewer fields than the header has"
            else:
                tags = [tag.strip() for tag in fields.get("tags", "").split(";")]
                yield reader.line_num, {**fields, "tags": [tag for tag in tags if tag]}
    except csv.Error as error:
        # A quote that is never closed has swallowed the rows after it: none of them could be trusted.
        raise CatalogError(f"catalog {uri}, line {reader.line_num}: {error}; is a quote left open?") from error


def _read_jsonl(stream: IO[bytes], uri: str) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON: {error}"
            continue
        yield number, fields if isinstance(fields, dict) else "not a JSON object"


def _read_parquet(stream: IO[bytes], uri: str) -> Iterator[tuple[int, Row | str]]:
    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    _require_columns(uri, names)
    columns = [name for name in (*REQUIRED, *OPTIONAL) if name in names]
    number = 0
    for batch in file.iter_batches(columns=columns):
        for fields in batch.to_pylist():
            number += 1
            yield number, fields


def _read_folder(filesystem: fsspec.AbstractFileSystem, folder: str) -> Iterator[tuple[int, Row | str]]:
    relatives = audio_files(filesystem, folder)
    for number, relative in enumerate(relatives, start=1):
        yield number, {"track_id": relative, "uri": relative, "title": relative.rpartition("/")[2]}
    if not relatives:
        raise CatalogError(f"catalog {folder}: the folder holds no audio file ({' '.join(sorted(AUDIO_SUFFIXES))})")


def audio_files(filesystem: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    """The tracks of a folder of music as sorted paths within it: files of `AUDIO_SUFFIXES` that are not hidden."""
    relatives = (path[len(folder) :].lstrip("/") for path in sorted(filesystem.find(folder)))
    return [
        relative
        for relative in relatives
        if PurePosixPath(relative).suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in relative.split("/"))
    ]


def _require_columns(uri: str, names: list[str]) -> None:
    if missing := [name for name in REQUIRED if name not in names]:
        raise CatalogError(f"catalog {uri}: no column {' and no column '.join(missing)}; it has {', '.join(names)}")


def _validate(uri: str, rows: list[tuple[int, Row | str]], root: str, allowed: Sequence[str]) -> Catalog:
    places = defaultdict(list)
    for number, fields in rows:
        if isinstance(fields, dict) and not _is_empty(fields.get("track_id")):
            places[str(fields["track_id"])].append(number)

    tracks: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    problems = []
    for number, fields in rows:
        if isinstance(fields, str):
            problems.append(Problem(number, f"row {number}", "", fields))
            continue
        faults = list(_faults(fields))
        twins = places[str(fields.get("track_id"))]
        if len(twins) > 1:
            faults.append(f"track_id is not unique: rows {', '.join(map(str, twins[:5]))} have it; none is used")
        if not faults and (fault := urls.rejection_reason(_absolute(fields["uri"], root), allowed)):
            faults.append(fault)
        if faults:
            name = _printable(fields.get("track_id") or f"row {number}")
            problems.append(Problem(number, name, _printable(fields.get("uri") or ""), "; ".join(faults)))
            continue
        for name in SCHEMA.names:
            tracks[name].append(fields.get(name) or None)
        tracks["track_id"][-1] = str(fields["track_id"])
        tracks["uri"][-1] = _absolute(fields["uri"], root)
        tracks["tags"][-1] = sorted(set(fields.get("tags") or []))
    return Catalog(uri, pa.table(tracks, schema=SCHEMA), tuple(problems))


def _faults(fields: Row) -> Iterator[str]:
    for name in REQUIRED:
        if _is_empty(fields.get(name)):
            yield f"{name} is empty"
    for name in ("uri", "artist", "album", "title", "split"):
        if not isinstance(fields.get(name), str | None):
            yield f"{name} is not text: {fields[name]!r}"
    for name in (*REQUIRED, *OPTIONAL):
        if isinstance(fields.get(name), str) and not _is_utf8(fields[name]):
            yield f"{name} is not UTF-8: {_printable(fields[name])!r}; rename it"
    for name in SINGLE_LINE:
        if "\n" in str(fields.get(name)):
            yield f"{name} spans several lines: is a quote left open?"
    if (split := fields.get("split")) and split not in SPLITS:
        yield f"unknown split {split!r}: use one of {', '.join(SPLITS)}, or leave it empty"
    tags = fields.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag and _is_utf8(tag) for tag in tags):
        yield f"tags is not a list of words: {tags!r}"


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
