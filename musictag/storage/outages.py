"""Tell a store that is gone from a file that is missing or refused, and wait for such a store.

A store is what fails as a whole: the endpoint of an object store, the host of a website, a mount. It is gone if it does
not answer at all, or with 502, 503 or 504. A file of it that does not exist, or may not be read, is an answer.

Websites are waited for only if they have answered this process before. A catalog may name many hosts, of which some
have been gone for years: each would cost the whole wait.
"""

import collections
import errno
import http
import os
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import obstore.exceptions

from musictag.errors import AudioUnreachableError, MusictagError, StoreError
from musictag.storage import urls
from musictag.storage.retry import Outage, retry, wait_for_store

Result = TypeVar("Result")

# Object stores all of whose buckets are behind one endpoint; other stores are told apart by what follows "://".
_ONE_ENDPOINT = ("s3", "s3a", "gs", "gcs")
_WEBSITES = ("http", "https")
# Names of exception classes, and of their base classes, of the standard library, aiohttp, botocore and clients of
# clouds. Names, because these libraries are imported only if they are used.
_NO_ANSWER = frozenset(
    (
        "ConnectionError", "TimeoutError", "gaierror", "ClientConnectionError", "HTTPClientError",
        "ServiceRequestError", "ServiceResponseError", "TransportError",
    )
)  # fmt: skip
# A certificate that is not trusted is an answer.
_ANSWER = frozenset(("SSLError", "ClientSSLError"))
_NO_NETWORK = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN)
# Errors of each folder of a mount whose server or disk is gone.
_DEAD_FOLDER = (*_NO_NETWORK, errno.ETIMEDOUT, errno.ESTALE, errno.ENODEV, errno.ENXIO)

# A gateway sends these statuses while its store is away, and a store sends them if it is overloaded.
_UNAVAILABLE = (http.HTTPStatus.BAD_GATEWAY, http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.GATEWAY_TIMEOUT)
_UNAVAILABLE_TEXT = (
    r"HTTP status 50[234]|\b50[234] (?:Bad Gateway|Service Unavailable|Slow Down|Gateway Time|The server is busy)|"
    r"\[ServerBusy\]|SLOW_DOWN|SERVICE_UNAVAILABLE"
)
# In errors of the clients of deltalake and obstore (Rust), and Arrow (C++).
_NO_ANSWER_TEXT = re.compile(
    r"NETWORK_CONNECTION|curlCode: \d|CURL error|error sending request|connection (?:refused|reset)|timed out|"
    rf"dns error|could ?n[o']t (?:connect|resolve)|{_UNAVAILABLE_TEXT}",
    re.IGNORECASE,
)

_outages: "collections.defaultdict[str, Outage]" = collections.defaultdict(Outage)
_answered: set[str] = set()
"""Stores that have answered this process."""


def ask_store(
    uri: str, fn: Callable[[], Result], is_transient: Callable[[Exception], bool], timeout_s: float
) -> Result:
    """Call `fn`, which reads the file at `uri`; retry transient errors, and wait `timeout_s` for a store that is gone.

    With 0, a store that is gone is asked again a few times, as after any transient error.

    If the store has not answered for that time, later calls fail at once until it answers (`retry.wait_for_store`).
    """
    store = store_of(uri)
    waits = timeout_s > 0 and (store in _answered or not store.startswith(_WEBSITES))

    def is_store_gone(error: Exception) -> bool:
        return is_gone(error) or is_mount_gone(store, uri)

    def call() -> Result:
        return retry(fn, lambda error: is_transient(error) and not (waits and is_store_gone(error)))

    try:
        result = wait_for_store(call, is_store_gone, timeout_s, _outages[store]) if waits else call()
    except Exception as error:
        if not is_store_gone(error):
            _answered.add(store)
        raise
    _answered.add(store)
    return result


def store_of(uri: str) -> str:
    """Return the name of the store of the file at `uri`: a scheme with host or bucket, or the path of a mount."""
    if (path := _local_path(uri)) is not None:
        path = os.path.realpath(path)
        # A mount that is gone is an empty folder of the mount above.
        known = (mount for mount in tuple(_answered) if path.startswith(f"{mount.rstrip('/')}/"))
        return max([_mount_of(path), *known], key=len)
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    return f"{scheme}://" if scheme in _ONE_ENDPOINT else f"{scheme}://{rest.partition('/')[0].lower()}"


def is_gone(error: BaseException) -> bool:
    """Return whether an error means that a store is gone: no connection, no response, no such host, or unavailable."""
    if isinstance(error, MusictagError) and not isinstance(error, AudioUnreachableError):
        return False
    for cause in _causes(error):
        names = {each.__name__ for each in type(cause).__mro__}
        if names & _ANSWER:
            return False
        if names & _NO_ANSWER or _status(cause) in _UNAVAILABLE:
            return True
        if isinstance(cause, OSError) and cause.errno in _NO_NETWORK:
            return True
        if isinstance(cause, obstore.exceptions.BaseError) and _NO_ANSWER_TEXT.search(str(cause)):
            return True
    return False


def _status(error: BaseException) -> object:
    """Return the HTTP status of an error of botocore or aiohttp; None for others."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None)


def ask_table_store(fn: Callable[[], Result], timeout_s: float) -> Result:
    """Call `fn`, which reads or writes a table, and wait `timeout_s` for a store that does not answer.

    `fn` is repeated as a whole; it raises `StoreError`.
    """
    return wait_for_store(fn, is_table_store_gone, timeout_s) if timeout_s > 0 else fn()


def is_table_store_gone(error: Exception) -> bool:
    """Return whether a `StoreError` means that the store of a table is gone.

    deltalake and Arrow raise `OSError` with the text of their clients' errors.
    """
    cause = error.__cause__
    if not isinstance(error, StoreError) or not isinstance(cause, OSError):
        return False
    return cause.errno in _DEAD_FOLDER or (cause.errno is None and bool(_NO_ANSWER_TEXT.search(str(cause))))


def is_mount_gone(store: str, uri: str) -> bool:
    """Return whether the mount `store` of the local file at `uri` is gone or dead; False for other stores."""
    path = _local_path(uri)
    if path is None:
        return False
    if store in _answered and not os.path.ismount(store):  # pathlib raises if the mount is dead
        return True
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    try:
        os.stat(folder)  # noqa: PTH116
    except OSError as error:
        return error.errno in _DEAD_FOLDER
    return False


def _local_path(uri: str) -> str | None:
    return uri if "://" not in uri else urls.local_path(uri)


def _mount_of(path: str) -> str:
    while not os.path.ismount(path):  # pathlib raises if the mount is dead
        path = os.path.dirname(path)  # noqa: PTH120
    return path


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: fsspec's HTTP filesystem raises `FileNotFoundError` for any error."""
    while error is not None:
        yield error
        error = error.__cause__
