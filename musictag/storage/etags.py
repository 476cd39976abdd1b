"""Etags of audio files: short texts that change when a file does.

A plan needs the etag of every track of a catalog. Object stores give a thousand of them in one request, as a listing.
"""

import bisect
import collections
import concurrent.futures
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import obstore.exceptions
import obstore.store
import pyarrow as pa
import pyarrow.compute as pc

from musictag.errors import AudioMissingError, AudioUnreachableError, StoreError
from musictag.storage import queries, stores, urls
from musictag.storage.fetch import ETAG_THREADS, ask_store, unreachable_errors
from musictag.storage.text import store_reason

LISTING_THREADS = 16
"""Ranges of keys that are listed in parallel, and local folders."""
RANGE_KEYS = 16_384
"""Keys that one thread asks for, one page after the other."""
PAGE_KEYS, AZURE_PAGE_KEYS = 1_000, 5_000
"""Keys of one page of a listing, that is of one request."""
FEW_KEYS = 8
"""If a page shows fewer of the wanted keys, single requests are faster for the next `SINGLE_KEYS`."""
SINGLE_KEYS = 64
CATALOG_COLUMNS = ("track_id", "uri", "etag")
"""Columns of a catalog that `with_etags` reads."""
_BATCH = 100_000
# Keys of a file's information in fsspec's filesystems. The first are checksums, or change with the content.
CHECKSUM_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "sha")
TIME_KEYS = (
    "mtime", "LastModified", "last_modified", "Last-Modified", "modified", "modify", "last_write_time", "created",
)  # fmt: skip
_ODD_KEY = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]| $|::|\?versionId=", re.ASCII)
# Answers to a listing after which single requests may succeed: the credentials may not list, there is no bucket, or it
# is in another region (fsspec's client looks for it). Those that may pass (408, 429) were retried.
_REFUSED = re.compile(r"status code: (?:3|4(?!08|29))\d\d\b|incorrectly configured region")
_ODD_KEY_LISTED = "object with invalid path"


def audio_etag(uri: str, store_timeout_s: float = 0.0) -> str | None:
    """Return a text that changes when the file at `uri` does: the store's ETag or checksum, else size and time.

    Return None if the store tells nothing that changes with the file's content. A store that does not answer is waited
    for `store_timeout_s`. Raises `AudioUnreachableError`.
    """
    with unreachable_errors(uri):
        return ask_store(uri, lambda: single_etag(uri), store_timeout_s)


def single_etag(uri: str) -> str | None:
    """Ask the store once for the etag of the file at `uri`. Raises errors of many libraries."""
    if (local := _local_path(uri)) is not None:
        return _local_etag(local)
    filesystem, path = stores.open_filesystem(uri)
    return etag_of(filesystem.info(path))


def etag_of(info: Mapping[str, Any]) -> str | None:
    """Return the etag in a file's information, as fsspec's filesystems give it; see `audio_etag`."""
    if checksum := checksum_of(info):
        return checksum
    modified = next((info[key] for key in TIME_KEYS if info.get(key)), None)
    size = info.get("size")
    # Two files may have the same size, so that the size alone tells nothing.
    return None if modified is None else f"{'' if size is None else size}-{modified}"


def checksum_of(info: Mapping[str, Any]) -> str | None:
    """Return the store's ETag or checksum in a file's information, which is the same in listings and single answers."""
    return next((_unquoted(str(info[key])) for key in CHECKSUM_KEYS if info.get(key)), None)


def etags_of(uris: pa.ChunkedArray) -> pa.Table:
    """Return the columns `etag` and `is_missing` of the uris, in the same order.

    `etag` is `audio_etag`, or null where the store tells none or does not answer; `is_missing` is whether the store
    says that there is no such file.

    Files of this machine are looked up one by one, objects of S3, Azure and Google in listings, all others by single
    requests. A listing is read page by page from one wanted key to the next, so that there is at most one page for each
    wanted key, and at most as many as the folder of all wanted keys has; several parts of it are read in parallel. A
    key that the listing does not show gets a single request: the store may have changed meanwhile, or have ended the
    listing early, which cannot be seen. Where listing is not allowed, every key gets one.

    Memory holds the sorted uris up to `queries.MEMORY_LIMIT`, and the result twice.

    Args:
        uris: texts without nulls; a catalog's uris may be listed more than once.

    Raises:
        StoreError: a listing failed, after retries.
    """
    answers = [_FOUND.empty_table()]
    with (
        queries.connect() as connection,
        concurrent.futures.ThreadPoolExecutor(ETAG_THREADS) as singles,
        concurrent.futures.ThreadPoolExecutor(LISTING_THREADS) as listings,
    ):
        pending: collections.deque[tuple[pa.Array, concurrent.futures.Future[tuple[pa.Array, pa.Array]]]]
        pending = collections.deque()

        def collect() -> None:
            of_rows, future = pending.popleft()
            etags, are_missing = future.result()
            answers.append(pa.table([of_rows, etags, are_missing], _FOUND))

        connection.register("listed", pa.table({"row": pa.array(np.arange(len(uris))), "uri": uris}))
        try:
            for of_rows, place, of_uris in _ranges(connection.sql(_SORTED).to_arrow_reader(RANGE_KEYS)):
                pending.append((of_rows, listings.submit(_etags_in_place, place, of_uris, singles)))
                if len(pending) > 2 * LISTING_THREADS:
                    collect()
            while pending:
                collect()
        finally:
            for _, future in pending:
                future.cancel()
    return pa.concat_tables(answers).sort_by("row").select(["etag", "is_missing"])


def with_etags(tracks: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the columns `track_id` and `uri` of a catalog's tracks with `audio_etag` and `is_missing`, in batches.

    The catalog may tell etags in its column `etag`; the store is asked for the others, see `etags_of`. `is_missing` is
    false where it is not asked. Raises as `etags_of`.
    """
    etags = tracks["etag"]
    are_missing = np.zeros(len(tracks), bool)
    is_unknown = pc.is_null(etags)
    if pc.any(is_unknown).as_py():
        found = etags_of(tracks["uri"].filter(is_unknown))
        etags = pc.replace_with_mask(etags, is_unknown.combine_chunks(), found["etag"].combine_chunks())
        are_missing[is_unknown.to_numpy()] = found["is_missing"].to_numpy()
    listed = tracks.select(["track_id", "uri"]).append_column("audio_etag", etags)
    yield from listed.append_column("is_missing", pa.array(are_missing)).to_batches(_BATCH)


_FOUND = pa.schema([("row", pa.int64()), ("etag", pa.string()), ("is_missing", pa.bool_())])
# The place is scheme and bucket of a URL, with the slash after them; a path has none.
_SORTED = r"SELECT row, regexp_extract(uri, '^[A-Za-z0-9+.-]+://[^/]+/') AS place, uri FROM listed ORDER BY uri"


def _ranges(batches: pa.RecordBatchReader) -> Iterator[tuple[pa.Array, str, pa.Array]]:
    """Yield (rows, place, uris) of sorted uris, of one place each."""
    for batch in batches:
        places = pc.run_end_encode(batch["place"])
        begin = 0
        for place, end in zip(places.values.to_pylist(), places.run_ends.to_pylist(), strict=True):
            part = batch.slice(begin, end - begin)
            yield part["row"].cast(pa.int64()), place, part["uri"]
            begin = end


def _etags_in_place(place: str, uris: pa.Array, singles: concurrent.futures.Executor) -> tuple[pa.Array, pa.Array]:
    """Return the etags of sorted uris that all begin with `place`, and which files are missing."""
    wanted = uris.to_pylist()
    answers: list[tuple[str | None, bool]] = [(None, False)] * len(wanted)
    url = stores.object_url(place) if place else None
    if url and len(wanted) >= FEW_KEYS and (store := _store_or_none(url)):
        keys = [uri[len(place) :] for uri in wanted]
        listed = _listed_etags(place, store, [key for key in keys if not is_odd_key(key)])
        answers = [(listed.get(key), False) for key in keys]
    unknown = [number for number, (etag, _) in enumerate(answers) if etag is None]
    ask_each = singles.map if place else map
    for number, answer in zip(unknown, ask_each(_ask_once, [wanted[number] for number in unknown]), strict=True):
        answers[number] = answer
    etags, are_missing = zip(*answers, strict=True)
    return pa.array(etags, pa.string()), pa.array(are_missing, pa.bool_())


def is_odd_key(key: str) -> bool:
    """Return whether no listing is asked for a key.

    obstore cannot name keys with empty parts, `.`, `..` or control characters; fsspec reads `::` and `?versionId=` in a
    way of its own; and no other character is before a space.
    """
    return _ODD_KEY.search(key) is not None


def _store_or_none(url: stores.ObjectUrl) -> "obstore.store.ObjectStore | None":
    """Return the client of a bucket; None if the URL or the environment is wrong, which the single requests report."""
    try:
        return stores.object_store(url)
    except Exception:  # noqa: BLE001 # of several libraries
        return None


def _ask_once(uri: str) -> tuple[str | None, bool]:
    """Return the etag of a file, and whether the store says that there is none."""
    try:
        with unreachable_errors(uri):
            return single_etag(uri), False
    except AudioUnreachableError as error:
        return None, isinstance(error, AudioMissingError)


def _listed_etags(place: str, store: "obstore.store.ObjectStore", keys: Sequence[str]) -> dict[str, str]:
    """Return the etags of those of the sorted keys that listings show."""
    found: dict[str, str] = {}
    n_page = AZURE_PAGE_KEYS if isinstance(store, obstore.store.AzureStore) else PAGE_KEYS
    folder = _common_folder(keys[0], keys[-1]) if keys else None
    position = 0
    while position < len(keys):
        try:
            page = _page(store, folder, keys[position], n_page)
        except (FileNotFoundError, obstore.exceptions.BaseError) as error:
            if _ODD_KEY_LISTED in str(error):
                position += SINGLE_KEYS
                continue
            if _is_refusal(error):
                break
            reason = urls.redacted(store_reason(error))
            raise StoreError(f"{place}: its files cannot be listed; run the job again: {reason}") from error
        if not page:
            break
        end = bisect.bisect_right(keys, next(reversed(page)), lo=position)
        shown = {key: etag for key in keys[position:end] if (etag := page.get(key))}
        found |= {key: _unquoted(etag) for key, etag in shown.items()}
        position = max(end, position + (1 if len(shown) >= FEW_KEYS else SINGLE_KEYS))
    return found


def _page(store: "obstore.store.ObjectStore", folder: str | None, key: str, n_keys: int) -> dict[str, str | None]:
    """Return key to etag of the objects from `key` on, in the order of the store."""
    pages = store.list(folder, offset=_before(key), chunk_size=n_keys, return_arrow=True)
    for page in pages:
        objects = pa.record_batch(page)
        return dict(zip(objects["path"].to_pylist(), objects["e_tag"].to_pylist(), strict=True))
    return {}


def _is_refusal(error: Exception) -> bool:
    refusals = (
        FileNotFoundError, obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError
    )  # fmt: skip
    return isinstance(error, refusals) or bool(_REFUSED.search(str(error)))


def _common_folder(first: str, last: str) -> str | None:
    """Return the deepest folder of all keys between two; None if that is the whole bucket."""
    folders = os.path.commonprefix([first.split("/")[:-1], last.split("/")[:-1]])  # noqa: RUF071 # of lists
    return "/".join(folders) or None


def _before(key: str) -> str:
    """Return a key that sorts before `key`, and after almost all that do: a listing begins after the key it gets."""
    previous = chr(ord(key[-1]) - 1)
    return f"{key[:-1]}{previous}~" if previous.isprintable() and previous != "/" else f"{key[:-1]}!"


def _unquoted(etag: str) -> str:
    return etag.strip('"')


def _local_path(uri: str) -> str | None:
    """Return the path of a file on this machine as fsspec reads it; None for other uris."""
    path = uri if uri.startswith("/") else urls.local_path(uri)
    return None if path is None or "::" in path else path.rstrip("/") or "/"


def _local_etag(path: str) -> str | None:
    """Return size and time as fsspec tells them, in a tenth of its time."""
    found = os.stat(path)  # noqa: PTH116 # paths are text here, as in fsspec
    modified = found.st_mtime or getattr(found, "st_birthtime", found.st_ctime)
    return f"{found.st_size}-{modified}" if modified else None
