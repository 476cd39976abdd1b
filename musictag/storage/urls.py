"""Which uris a catalog may name, and how uris are written down.

A catalog may come from anybody, and what it names is opened by machines that reach more than its author does. Rows,
logs and MLflow are read by more people than may know the passwords in a uri.
"""

import ipaddress
import os
import posixpath
import re
import socket
import urllib.parse
from collections.abc import Sequence

# Hosts that answer a cloud's machines, and them alone, with their credentials; most are link-local addresses.
METADATA_HOSTS = frozenset(
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "100.100.100.200"]
)
METADATA_ADDRESSES = (ipaddress.ip_network("fd00:ec2::/32"),)

_URL = re.compile(r"[a-zA-Z][\w+.-]*://\S+")
_USER = re.compile(r"(?<=://)[^/@]*@")
_SECRET = re.compile(
    r"(?<=[?&])(x-amz-[^=&]*|x-goog-[^=&]*|[^=&]*(?:sig|token|key|secret|passw|credential|expires)[^=&]*)=[^&#]*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """A text whose urls have `***` for user, password, and whatever in their query is a secret or signs it."""
    return _URL.sub(lambda url: _SECRET.sub(r"\1=***", _USER.sub("***@", url.group())), text)


def rejection_reason(uri: str, allowed: Sequence[str] = ()) -> str | None:
    """Why a catalog may not name an absolute uri, or None.

    Args:
        uri: a path or a url, as `musictag.catalog.reader` makes it absolute.
        allowed: urls and folders, one of which it must begin with; all are, where none is given.
    """
    try:
        host = urllib.parse.urlsplit(uri).hostname if "://" in uri else None
    except ValueError as error:
        return f"uri {redacted(uri)} cannot be read as a url: {error}"
    if host and is_metadata(host):
        return f"uri {redacted(uri)} is where a cloud keeps its machines' credentials"
    if "::" in uri:
        return (
            f"uri {redacted(uri)} chains stores by '::', or is a file name that reads so: name one store, or rename it"
        )
    if allowed and not any(_is_within(uri, root) for root in allowed):
        return f"uri {redacted(uri)} is within none of --allow {' '.join(map(redacted, allowed))}"
    return None


def is_metadata(host: str) -> bool:
    """Whether a host, by its name or address, is where a cloud's machines get their credentials."""
    if host.rstrip(".").lower() in METADATA_HOSTS:
        return True
    try:
        # 2852039166, 0xa9fea9fe and 169.16689662 all are 169.254.169.254 to a socket.
        address = ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))
    except (OSError, ValueError):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_link_local or any(address in network for network in METADATA_ADDRESSES)


def _is_within(uri: str, root: str) -> bool:
    if ("://" in uri) != ("://" in root):
        return False
    if "://" in uri:
        scheme, _, path = uri.partition("://")
        uri, root = f"{scheme}://{posixpath.normpath(path)}", root.rstrip("/")
    else:  # where the path really leads: links may lead elsewhere
        uri, root = os.path.realpath(uri), os.path.realpath(root)
    return uri == root or uri.startswith(f"{root.rstrip('/')}/")
