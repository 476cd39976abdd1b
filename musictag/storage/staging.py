"""Parts that workers have written and that the driver of their run commits.

A worker writes the files of a part, and then a small *manifest* that names them. The driver commits all manifests that
have arrived in one transaction: a commit by each worker would take quadratic time, because every commit reads the
table's log. If a driver is killed, the next run commits what its workers left.

Manifests are `_staged/RUN/SHARD/PART-ATTEMPT.json` in the table's folder. Delta ignores folders whose name begins with
`_`.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pyarrow.fs import FileInfo, FileSelector, FileType, SubTreeFileSystem

from musictag.errors import BrokenManifestError
from musictag.storage.data_files import DataFile
from musictag.storage.folders import delete_files, delete_folder, open_folder, store_errors, write_file

FOLDER = "_staged"
READ_THREADS = 16
"""Manifests that are read in parallel: reading waits for the store, not for a core."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files and failures of one part."""

    run: str
    shard: int
    part: int
    """Number of the part in its shard, from 0."""
    producer: str
    """Hash of the settings that produced the rows."""
    files: tuple[DataFile, ...]
    """Empty if every track failed."""
    failures: tuple[Mapping[str, Any], ...]
    """Rows of the failures table, without the time."""
    core_seconds: float
    """Time that the part took on one core."""

    @property
    def n_tracks(self) -> int:
        """Number of tracks of the part."""
        return sum(file.n_rows for file in self.files) + len(self.failures)


def write_manifest(uri: str, manifest: Manifest) -> None:
    """Write the manifest of a part of the table at `uri`; its files must be written."""
    path = f"{_shard_folder(manifest.run, manifest.shard)}/{manifest.part:06d}-{uuid.uuid4().hex[:12]}.json"
    write_file(uri, path, json.dumps(dataclasses.asdict(manifest)).encode())


def staged_parts(uri: str, run: str, shard: int) -> set[int]:
    """Return the numbers of the parts of a shard that have a manifest."""
    with store_errors(uri):
        found = open_folder(uri).get_file_info(FileSelector(_shard_folder(run, shard), allow_not_found=True))
    return {_part_number(file) for file in found if _is_manifest(file)}


def manifest_paths(uri: str, run: str) -> list[str]:
    """Return the paths of the manifests of a run in the table's folder, by shard and part."""
    with store_errors(uri):
        found = open_folder(uri).get_file_info(FileSelector(f"{FOLDER}/{run}", allow_not_found=True, recursive=True))
    return sorted(file.path for file in found if _is_manifest(file))


def read_manifest(uri: str, path: str) -> Manifest:
    """Read a manifest.

    Raises:
        BrokenManifestError: it is incomplete, is that of another part, or names a file that is missing.
    """
    with store_errors(f"{uri}/{path}"):
        table = open_folder(uri)
        with table.open_input_stream(path) as stream:
            text = stream.read()
        try:
            fields = json.loads(text)
            files = tuple(DataFile(**file) for file in fields.pop("files"))
            manifest = Manifest(files=files, **{**fields, "failures": tuple(fields["failures"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BrokenManifestError(f"{uri}/{path}: not the manifest of a part: {error}") from error
        if PurePosixPath(path).parent != PurePosixPath(_shard_folder(manifest.run, manifest.shard)):
            raise BrokenManifestError(f"{uri}/{path}: is the manifest of another part, of run {manifest.run}")
        found = table.get_file_info([file.path for file in files])
        for file, info in zip(files, found, strict=True):
            if info.type != FileType.File or info.size != file.size:
                raise BrokenManifestError(f"{uri}/{path}: names {file.path}, which is missing or has another size")
    return manifest


def delete_manifest(uri: str, path: str) -> None:
    """Delete a manifest, so that its part counts as not staged."""
    with contextlib.suppress(FileNotFoundError), store_errors(uri):
        open_folder(uri).delete_file(path)


def staged_files(uri: str) -> Iterator[str]:
    """Yield the names of the files that the manifests of all runs name. Incomplete manifests name none."""
    with store_errors(uri):
        found = open_folder(uri).get_file_info(FileSelector(FOLDER, allow_not_found=True, recursive=True))
        paths = [file.path for file in found if _is_manifest(file)]
        with concurrent.futures.ThreadPoolExecutor(READ_THREADS) as threads:
            for names in threads.map(functools.partial(_named_files, open_folder(uri)), paths):
                yield from names


def _named_files(table: SubTreeFileSystem, path: str) -> list[str]:
    try:
        with table.open_input_stream(path) as stream:
            return [str(file["path"]) for file in json.loads(stream.read())["files"]]
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # its run ended meanwhile, or it is incomplete
        return []


def delete_run(uri: str, run: str, paths: Sequence[str] = ()) -> None:
    """Delete what is staged of a run: its manifests, and the files at `paths`, which none names then."""
    with store_errors(uri):
        delete_files(open_folder(uri), paths)
    delete_folder(uri, f"{FOLDER}/{run}")


def _shard_folder(run: str, shard: int) -> str:
    return f"{FOLDER}/{run}/{shard:04d}"


def _is_manifest(file: FileInfo) -> bool:
    return bool(file.type == FileType.File and file.extension == "json")


def _part_number(file: FileInfo) -> int:
    return int(file.base_name.partition("-")[0])
