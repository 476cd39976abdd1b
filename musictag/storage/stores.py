"""The clients of a URL, made in one place: all reach the same place with the same credentials.

Four libraries read a store: deltalake a table's log, Arrow its data files, fsspec audio and catalogs, and obstore (the
library inside deltalake) listings. Each of them reads the environment variables of a cloud in its own way; here they
are read once. On Azure and Google, obstore reads audio, too (`ObjectFiles`), so that there is no further client.

S3: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, `AWS_REGION` or `AWS_DEFAULT_REGION`; credentials as in all AWS tools.
Azure: see `azure.VARIABLES`; without a key, `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`, or the
machine's identity. Google: `GOOGLE_APPLICATION_CREDENTIALS`, or the machine's identity; `STORAGE_EMULATOR_HOST`.
"""

import datetime
import functools
import json
import os
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import obstore.store
import pyarrow.fs

from musictag.storage import azure, urls
from musictag.storage.object_files import ObjectFiles

if TYPE_CHECKING:  # its import is slow, and local files do not need it
    import aiohttp

S3, AZURE, GOOGLE = ("s3",), ("az", "abfs", "abfss"), ("gs", "gcs")
"""Schemes of the URLs of each cloud."""
REQUEST_TIMEOUT_S = 15
"""deltalake's and obstore's requests are small: without a response after this time, a request has failed."""
MAX_RETRIES, RETRY_TIMEOUT = 5, datetime.timedelta(minutes=1)
"""Limits of obstore's retries of one request."""
# How long obstore may use credentials of AWS before it asks for them again; those of a machine's role expire.
_CREDENTIALS_TIME = datetime.timedelta(minutes=5)
_OBJECT_URL = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<bucket>[^/@]+)(?:@(?P<host>[^/]+))?(?:/(?P<key>.*))?", re.DOTALL)


class ObjectUrl(NamedTuple):
    """The parts of the URL of an object, such as `s3://bucket/key`."""

    scheme: str
    bucket: str
    """The bucket, on Azure the container."""
    host: str | None
    """On Azure, the host of `abfss://container@account.dfs.core.windows.net/key`."""
    key: str


def object_url(uri: str) -> ObjectUrl | None:
    """Return the parts of a URL of S3, Azure or Google; None for other URLs and for paths."""
    parsed = _OBJECT_URL.fullmatch(uri)
    if parsed is None or parsed["scheme"] not in (*S3, *AZURE, *GOOGLE):
        return None
    return ObjectUrl(parsed["scheme"], parsed["bucket"], parsed["host"], parsed["key"] or "")


def delta_uri(uri: str) -> str:
    """Return the URL by which deltalake knows a table.

    Raises `ValueError` for a place that deltalake would read as another one.
    """
    is_local = "://" not in uri
    unusable = set(str(Path(uri).absolute()) if is_local else uri) & set("%\\" if is_local else "?#\\")
    if unusable:
        raise ValueError(f"the path of a table cannot hold {' '.join(sorted(unusable))}: name another place")
    return re.sub("^gcs://", "gs://", uri)


def delta_options(uri: str) -> dict[str, str]:
    """Return the `storage_options` of deltalake for the table at `uri`."""
    options = {"timeout": f"{REQUEST_TIMEOUT_S}s"}
    if url := object_url(uri):
        options |= _options(url)
        if url.scheme in S3:
            # Without it, deltalake reads no profile of AWS if the endpoint is not Amazon's.
            options["AWS_FORCE_CREDENTIAL_LOAD"] = "true"
    return options


def object_store(url: ObjectUrl) -> "obstore.store.ObjectStore":
    """Return obstore's client of a bucket; the same one each time, because making one takes some milliseconds."""
    return _object_store(url.scheme, url.bucket, tuple(_options(url).items()))


@functools.lru_cache(maxsize=256)
def _object_store(scheme: str, bucket: str, options: tuple[tuple[str, str], ...]) -> "obstore.store.ObjectStore":
    config: Any = dict(options)
    allow_http = config.pop("allow_http", "false") == "true"
    limits: Any = {
        "client_options": {"timeout": datetime.timedelta(seconds=REQUEST_TIMEOUT_S), "allow_http": allow_http},
        "retry_config": {"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT},
    }
    if scheme in AZURE:
        return obstore.store.AzureStore(bucket, config=config, **limits)
    if scheme in GOOGLE:
        return obstore.store.GCSStore(bucket, config=config, **limits)
    credentials = _aws_credentials()
    if credentials is None:
        config["skip_signature"] = "true"
    return obstore.store.S3Store(bucket, config=config, credential_provider=credentials, **limits)


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return Arrow's own filesystem of a URL or path, and the path in it."""
    url = object_url(uri)
    if url is None:
        if "://" in uri:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
            return filesystem, path
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    if url.scheme in AZURE:
        filesystem = azure.arrow_filesystem(_options(url))
    elif url.scheme in GOOGLE and (emulator := _google_emulator()):
        scheme, _, host = emulator.partition("://")
        filesystem = pyarrow.fs.GcsFileSystem(anonymous=True, scheme=scheme, endpoint_override=host)
    else:
        filesystem, _ = pyarrow.fs.FileSystem.from_uri(f"{url.scheme}://{url.bucket}")
    # deltalake decodes "%20" in the URL of a table.
    return filesystem, f"{url.bucket}/{urllib.parse.unquote(url.key)}"


def open_filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec filesystem of a URL or path, and the path in it.

    A website must not lead to a metadata service: reading from it raises `ValueError`.
    """
    url = object_url(uri)
    if url and url.scheme not in S3:
        return ObjectFiles(uri.removesuffix(url.key).rstrip("/"), object_store(url)), url.key
    options: dict[str, Any] = {}
    if uri.lower().startswith(("http://", "https://")):
        options = {"get_client": _http_client}
        if proxy := _proxy_of(uri):
            options["proxy"] = proxy
    elif url:
        options = _fsspec_s3_options()
    filesystem, path = fsspec.core.url_to_fs(urls.local_path(uri) or uri, **options)
    return filesystem, path


def _options(url: ObjectUrl) -> dict[str, str]:
    """Return the options of deltalake and obstore for a bucket."""
    if url.scheme in AZURE:
        options = azure.account_options(url.host)
    elif url.scheme in GOOGLE:
        options = _google_options()
    else:
        options = _s3_options()
    if "http://" in options.get("endpoint", ""):
        options["allow_http"] = "true"
    return options


def _s3_options() -> dict[str, str]:
    found = {
        "endpoint": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    }
    return {name: value for name, value in found.items() if value}


def _fsspec_s3_options() -> dict[str, Any]:
    options = _s3_options()
    found = {"endpoint_url": options.get("endpoint"), "client_kwargs": {"region_name": options.get("region")}}
    return {name: value for name, value in found.items() if value and value != {"region_name": None}}


def _aws_credentials() -> Any:
    """Return a function that returns the credentials that fsspec's client uses, for obstore; None without any."""
    import botocore.session  # slow, and other stores do not need it

    credentials = botocore.session.get_session().get_credentials()
    if credentials is None:
        return None

    def current() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.datetime.now(datetime.UTC) + _CREDENTIALS_TIME,
        }

    return current


def _google_emulator() -> str | None:
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    return host if not host or "://" in host else f"http://{host}"


def _google_options() -> dict[str, str]:
    emulator = _google_emulator()
    if not emulator:
        return {}
    key = {"gcs_base_url": emulator, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"google_service_account_key": json.dumps(key), "allow_http": "true"}


async def _http_client(**options: Any) -> "aiohttp.ClientSession":
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=_checked_socket),
        trace_configs=[trace],
        **options,
    )


def _proxy_of(uri: str) -> str | None:
    """Return the proxy that `http_proxy`, `https_proxy` and `no_proxy` name for a website.

    aiohttp's own `trust_env` would also send the passwords of `~/.netrc` to hosts that a catalog names.
    """
    parts = urllib.parse.urlsplit(uri)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme.lower())


async def _check_redirect(session: object, context: object, params: "aiohttp.TraceRequestRedirectParams") -> None:
    """Raise `ValueError` for a redirect to a metadata service: through a proxy, our sockets lead to the proxy alone."""
    headers = params.response.headers
    location = urllib.parse.urljoin(str(params.url), headers.get("Location") or headers.get("URI") or "")
    host = urllib.parse.urlsplit(location).hostname
    if host and urls.is_metadata(host):
        raise ValueError(f"it leads to {host}, where a cloud keeps its machines' credentials")


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address of `socket.getaddrinfo`; raise `ValueError` for a metadata service.

    `urls.rejection_reason` checks the host name in the catalog; the address that a name or a redirect leads to is known
    only here.
    """
    family, kind, protocol, _, (host, *_) = address
    if urls.is_metadata(host):
        raise ValueError(f"it leads to {host}, where a cloud keeps its machines' credentials")
    return socket.socket(family, kind, protocol)
