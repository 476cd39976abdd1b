"""The objects of a bucket as an fsspec filesystem for reading, by obstore."""

from typing import Any

import fsspec
import obstore.exceptions
import obstore.store
from fsspec.spec import AbstractBufferedFile

_REFUSED = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)


class ObjectFiles(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec is not typed
    """Read the objects of a bucket; a path is a key.

    Keys with an empty part, as in `a//b`, cannot be read: obstore raises `ValueError`.
    """

    protocol = ("az", "abfs", "abfss", "gs", "gcs")
    cachable = False

    def __init__(self, root: str, store: "obstore.store.ObjectStore") -> None:
        """Make the filesystem of the bucket whose URL, without a slash at its end, is `root`."""
        super().__init__()
        self._root, self._store = root, store

    def unstrip_protocol(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return `name`, `size`, `type` and, of an object, `ETag`.

        Raises `FileNotFoundError`, `PermissionError`, and obstore's errors.
        """
        key = path.rstrip("/")
        try:
            if key:
                return _info(self._store.head(key))
            missing = FileNotFoundError(path)
        except FileNotFoundError:
            missing = FileNotFoundError(f"there is no {self.unstrip_protocol(key)}")
        except _REFUSED as error:
            raise PermissionError(f"{self.unstrip_protocol(key)}: {error}") from error
        if not key or any(self._store.list(key, chunk_size=1)):
            return {"name": key, "size": 0, "type": "directory"}
        raise missing

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        listed = self._store.list_with_delimiter(path.rstrip("/"))
        folders = [{"name": key, "size": 0, "type": "directory"} for key in listed["common_prefixes"]]
        entries = [*folders, *map(_info, listed["objects"])]
        return entries if detail else [entry["name"] for entry in entries]

    def find(self, path: str, *_: Any, detail: bool = False, **__: Any) -> list[str] | dict[str, Any]:
        """Return the keys of all objects below `path`, sorted; with `detail`, the information of each by its key."""
        entries = (_info(entry) for page in self._store.list(path.rstrip("/"), chunk_size=1_000) for entry in page)
        if detail:
            return {entry["name"]: entry for entry in sorted(entries, key=lambda entry: str(entry["name"]))}
        return sorted(entry["name"] for entry in entries)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> "_ObjectFile":
        return _ObjectFile(self, path, mode, block_size or "default", store=self._store)


class _ObjectFile(AbstractBufferedFile):  # type: ignore[misc]
    """An open object. An object that changes while it is read is an error of obstore."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        options: Any = {"range": (start, end), "if_match": self.details["ETag"]}
        return bytes(self.kwargs["store"].get(self.path, options=options).bytes())


def _info(entry: Any) -> dict[str, Any]:
    return {"name": entry["path"], "size": entry["size"], "type": "file", "ETag": entry["e_tag"]}
