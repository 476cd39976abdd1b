"""Check which URLs a catalog may name, and remove secrets from URLs.

A catalog may come from an untrusted author, but its URLs are opened by machines with more access. Rows, logs and MLflow
are read by people who must not see the passwords in URLs.
"""

import ipaddress
import os
import posixpath
import re
import socket
import urllib.parse
from collections.abc import Sequence

# Metadata services, which return the credentials of a cloud's machines; most have link-local addresses.
METADATA_HOSTS = frozenset(
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "100.100.100.200"]
)
METADATA_ADDRESSES = (ipaddress.ip_network("fd00:ec2::/32"),)

_URL = re.compile(r"[a-zA-Z][\w+.-]*://\S+")
# User and password, up to the last "@"; a password may hold an unescaped "/", which makes "user:password/" look like
# "host:port/".
_USER = re.compile(r"(?<=://)(?:[^/]*@|[^/@:\s\[]*:(?!\d{0,5}/)[^@\s?#]*@)")
_PARAMETER = (
    r"(x-amz-[^=&]*|x-goog-[^=&]*|[^=&]*(?:sig|token|key|secret|passw|pwd|auth(?!or)|jwt|credential|expires)[^=&]*)"
)
# In the query and the fragment; and in the path of a website, where a parameter ends at the next "/".
_SECRET = re.compile(rf"(?<=[?&#;]){_PARAMETER}=[^&#]*", re.IGNORECASE)
_PATH_SECRET = re.compile(rf"(?<=;){_PARAMETER}=[^/;]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return the text with `***` in place of users, passwords, tokens and signatures in its URLs."""
    return _URL.sub(lambda match: _redacted_url(_USER.sub("***@", match.group())), text)


def _redacted_url(url: str) -> str:
    is_website = url.lower().startswith(("http://", "https://"))
    # In other URLs, "#" and ";" belong to names of files.
    query = re.search(r"[?#]" if is_website else r"\?", url)
    end = query.start() if query else len(url)
    path = _PATH_SECRET.sub(r"\1=***", url[:end]) if is_website else url[:end]
    return path + _SECRET.sub(r"\1=***", url[end:])


def rejection_reason(uri: str, allowed: Sequence[str] = ()) -> str | None:
    """Return why a catalog may not name an absolute uri, or None if it may.

    Args:
        uri: an absolute path or a URL.
        allowed: folders and URLs; the uri must be within one of them. If empty, every place is allowed.
    """
    try:
        host = urllib.parse.urlsplit(uri).hostname if "://" in uri else None
    except ValueError as error:
        return f"uri {redacted(uri)} is not a valid URL: {error}"
    if host and is_metadata(host):
        return f"uri {redacted(uri)} names a metadata service, which holds the credentials of a cloud's machines"
    if "::" in uri:
        return f"uri {redacted(uri)} chains filesystems by '::': name one, or rename the file if it is a file name"
    if allowed and not any(_is_within(uri, root) for root in allowed):
        return f"uri {redacted(uri)} is within none of --allow {' '.join(map(redacted, allowed))}"
    return None


def is_metadata(host: str) -> bool:
    """Return whether a host, given by name or address, is a metadata service of a cloud."""
    if host.rstrip(".").lower() in METADATA_HOSTS:
        return True
    try:
        # Sockets read 2852039166, 0xa9fea9fe and 169.16689662 as 169.254.169.254.
        address = ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))
    except (OSError, ValueError):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_link_local or any(address in network for network in METADATA_ADDRESSES)


def _is_within(uri: str, root: str) -> bool:
    if ("://" in uri) != ("://" in root):
        return False
    if "://" not in uri:
        return _is_below(os.path.realpath(uri), os.path.realpath(root))  # after following links
    # Before resolving "..": the host or bucket must be that of the root, and object stores do not resolve "..".
    if not _is_below(uri, root):
        return False
    scheme, _, path = uri.partition("://")
    _, _, root_path = root.partition("://")
    if not root_path:  # `--allow s3://` allows a whole scheme
        return True
    if scheme in ("file", "local"):
        return _is_below(os.path.realpath(path), os.path.realpath(root_path))
    # HTTP clients and servers may decode "%2e%2e%2f" and resolve it; the query and fragment are not part of the path.
    if scheme.lower() in ("http", "https"):
        path = urllib.parse.unquote(re.split(r"[?#]", path, maxsplit=1)[0]).replace("\\", "/")
        root_path = urllib.parse.unquote(root_path)
    return _is_below(posixpath.normpath(path), posixpath.normpath(root_path))


def _is_below(path: str, root: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(f"{root}/")
