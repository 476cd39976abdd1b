"""Read a catalog: a list of tracks with the place of their audio and their tags.

A catalog is a CSV, JSON Lines or Parquet file or a folder of music, at any fsspec URL. It is read in batches of
columns, so that ten million rows fit into memory. A row that cannot be used becomes a `validation.Problem`, and the
other rows are still used. Unknown columns are ignored.
"""

import contextlib
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import fsspec
import pyarrow as pa

from musictag.catalog import encodings, formats
from musictag.catalog.folder import AUDIO_SUFFIXES, FolderListing, list_folder
from musictag.catalog.row_rules import encodable
from musictag.catalog.rows import NumberedRow, RowBatch, batched, in_columns
from musictag.catalog.validation import SCHEMA, Problem, problems_table, validate
from musictag.errors import CatalogError, MusictagError
from musictag.storage import stores, urls


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The usable tracks of a catalog, its unusable rows, and its folders that cannot be listed."""

    uri: str
    tracks: pa.Table
    """Table of `validation.SCHEMA`, or of some of its columns; its uris are absolute."""
    problems: pa.Table
    """Table of `validation.PROBLEMS_SCHEMA`, in the order of the catalog; see `validation.iter_problems`."""
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Files of a folder that are not audio; see `folder.FolderListing`."""


def read_catalog(
    uri: str,
    allowed: Sequence[str] = (),
    *,
    follow_links: bool = True,
    columns: Sequence[str] = tuple(SCHEMA.names),
) -> Catalog:
    """Read and validate the catalog at `uri`: a `.csv`, `.tsv`, `.jsonl` or `.parquet` file, or a folder of music.

    A row whose uri is outside all of `allowed` (see `storage.urls.rejection_reason`) is a problem; so is a subfolder
    that cannot be listed. `follow_links` is an argument of `folder.list_folder`. `columns` are the columns of `tracks`
    that the caller needs: of ten million rows, each takes some hundred megabytes.

    Raises:
        CatalogError: the catalog does not exist, cannot be listed, has an unknown format, or lacks a required column.
    """
    with _read_errors(uri):
        filesystem, path = stores.open_filesystem(uri)
        is_folder = filesystem.isdir(path)
    if is_folder:
        return _read_folder(uri, filesystem, path, allowed, follow_links, columns)
    return _read_file(uri, filesystem, path, allowed, columns)


@contextlib.contextmanager
def _read_errors(uri: str) -> Iterator[None]:
    """Raise errors of the store and of the file's format in the body as `CatalogError`."""
    try:
        yield
    except MusictagError:
        raise
    except Exception as error:  # fsspec's filesystems raise errors of many libraries
        raise CatalogError(urls.redacted(f"catalog {uri}: cannot be read: {error}")) from error


def _read_folder(
    uri: str,
    filesystem: fsspec.AbstractFileSystem,
    path: str,
    allowed: Sequence[str],
    follow_links: bool,
    columns: Sequence[str],
) -> Catalog:
    with _read_errors(uri):
        listing = list_folder(filesystem, path, follow_links=follow_links)
    if not listing.audio and not listing.unlistable:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        raise CatalogError(f"catalog {urls.redacted(uri)}: the folder has no audio file ({suffixes})")
    root = _root(filesystem, path)
    batches = map(in_columns, batched(_folder_rows(listing, root)))
    tracks, problems = validate(batches, root, allowed, lambda: "rename the file", columns)
    problems = pa.concat_tables([problems, problems_table(_folder_problems(listing, root))])
    return Catalog(uri, tracks, problems, listing.left_out)


def _folder_rows(listing: FolderListing, root: str) -> Iterator[NumberedRow]:
    for number, relative in enumerate(listing.audio, start=1):
        if "\n" not in relative:
            title = relative.rpartition("/")[2]
            # Absolute, because a folder may have a name such as "~" or "file:".
            fields = {"track_id": relative, "uri": f"{root}/{relative}", "title": title}
            yield number, fields | {"etag": listing.etags.get(relative)}


def _folder_problems(listing: FolderListing, root: str) -> Iterator[Problem]:
    for number, relative in enumerate(listing.audio, start=1):
        if "\n" in relative:
            message = "the name of the file or of its folder has a line break: rename it"
            yield Problem(number, encodable(relative), encodable(f"{root}/{relative}"), message)
    for relative, reason in sorted(listing.unlistable.items()):
        message = f"the folder cannot be listed: {reason}; the rows of its tracks are kept"
        yield Problem(None, f"{relative}/", f"{root}/{relative}", message)


def _read_file(
    uri: str, filesystem: fsspec.AbstractFileSystem, path: str, allowed: Sequence[str], columns: Sequence[str]
) -> Catalog:
    read_batches = formats.reader_for(path)

    def batches() -> Iterator[RowBatch]:
        with _read_errors(uri), _open_local(filesystem, path) as stream:
            yield from read_batches(stream, urls.redacted(uri))

    @functools.cache
    def advice() -> str:
        with _read_errors(uri), filesystem.open(path, "rb") as stream:
            encoding = encodings.guess_encoding(stream)
        return "save the catalog as UTF-8" + (f" (it may be {encoding})" if encoding else "")

    root = _root(filesystem, urls.without_query(path).rpartition("/")[0])
    return Catalog(uri, *validate(batches(), root, allowed, advice, columns))


@contextlib.contextmanager
def _open_local(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[IO[bytes]]:
    """Open a file of this machine, or a temporary copy: the streams of some stores cannot seek."""
    if "file" in filesystem.protocol:
        with Path(path).open("rb") as stream:  # fsspec's file asks for each line whether it is closed
            yield stream
        return
    with filesystem.open(path, "rb") as remote, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(remote, copy)
        copy.seek(0)
        yield copy


def _root(filesystem: fsspec.AbstractFileSystem, folder: str) -> str:
    """Return the uri of a folder; a plain path if it is on this machine."""
    return folder if "file" in filesystem.protocol else filesystem.unstrip_protocol(folder)
