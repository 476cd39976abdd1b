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

import pyarrow as pa
import pyarrow.compute as pc

# Metadata services, which return the credentials of a cloud's machines; most have link-local addresses.
METADATA_HOSTS = frozenset(
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "100.100.100.200"]
)
LOCAL_HOSTS = ("", "localhost", "127.0.0.1")
"""Hosts of a `file` URL that are this machine."""
METADATA_ADDRESSES = (ipaddress.ip_network("fd00:ec2::/32"),)

_FILE_URL = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
# A scheme is short; without a limit, the search would take quadratic time in a long word.
_URL = re.compile(r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,30}://\S+")
# User and password, up to the last "@"; a password may hold an unescaped "/", which makes "user:password/" look like
# "host:port/". Without limits, the search would take quadratic time in a text of many URLs.
_USER = re.compile(r"(?<=://)(?:[^/]{0,4096}@|[^/@:\s\[]{0,4096}:(?!\d{0,5}/)[^@\s?#]{0,4096}@)")
# User and password after "//" without a scheme, which is at the begin of a word.
_BARE_USER = re.compile(r"(?<![\w:/.%-])//[^/@:\s\[]{0,200}:(?!\d{0,5}/)[^@\s?#]{0,200}@")
_AUTHORIZATION = re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic)\s+)[^\s\"',;]+", re.IGNORECASE)
# Names of parameters whose values are secret, in lower case and without escapes.
_SECRET_NAME = re.compile(
    r"x-amz-.*|x-goog-.*|code|policy|pass|pw|hmac|md5|bearer|ticket|otp|cred|verify|hdnea|hdnts|hdntl|"
    r"sid|(?:php|j)?sess(?:ion)?[-_]?(?:id)?|"
    r".*(?:sig|token|key|secret|passw|pwd|auth(?!or)|jwt|credential|expires).*"
)
# User, password, token and salt of the Subsonic API.
_SUBSONIC_PATH, _SUBSONIC_NAME = "/rest/", re.compile(rf"{_SECRET_NAME.pattern}|[upts]")
# Names that hardly occur outside of signed URLs: their values are secret in any text, also if the scheme is missing.
_SIGNED_NAME = re.compile(r"x-amz-.*|x-goog-.*|awsaccesskeyid|sig|signature|key-pair-id|.*token.*")
# A parameter's name in the query and the fragment of a URL, and in the path of a website; and where its value ends.
_PARAMETER, _VALUE_END = re.compile(r"(?<=[?&#;])([^=&#;?]*)="), re.compile(r"[&#]|$")
_PATH_PARAMETER, _PATH_VALUE_END = re.compile(r"(?<=;)([^=/;]*)="), re.compile(r"[/;]|$")
_ESCAPED_VALUE = re.compile(r"(?<==)[^=&#;?\s]*%[^=&#;?\s]*")
# A URL in a parameter of a URL is escaped once, and so on.
_MAX_ESCAPES = 4
_ANY_PARAMETER, _ANY_VALUE_END = re.compile(r"(?<=[?&])([^=&#;?\s]*)="), re.compile(r"[&#\s]|$")


def local_path(uri: str) -> str | None:
    """Return the path that a `file` URL names; None for other URLs and for paths.

    `%20` and the like are decoded, as browsers and players write such URLs; the host may be empty or `localhost`.
    """
    parsed = _FILE_URL.fullmatch(uri)
    return urllib.parse.unquote(parsed["path"]) if parsed and (parsed["host"] or "").lower() in LOCAL_HOSTS else None


def expanded_home(uri: str) -> str:
    """Return a path with a leading `~/` replaced by the home folder."""
    return os.path.expanduser(uri) if uri.startswith("~/") else uri  # noqa: PTH111 # URLs are text


def without_query(uri: str) -> str:
    """Return the URL of a website without its query and fragment; other uris as they are."""
    return re.split(r"[?#]", uri, maxsplit=1)[0] if _is_website(uri) else uri


def _is_website(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def redacted(text: str) -> str:
    """Return the text with `***` in place of users, passwords, tokens and signatures in its URLs."""
    text = _URL.sub(lambda match: _redacted_url(match.group()), text)
    text = _BARE_USER.sub("//***@", _AUTHORIZATION.sub(r"\1***", text))
    text = _ESCAPED_VALUE.sub(lambda match: "***" if _hides_secret(match.group()) else match.group(), text)
    return _without_values(text, _ANY_PARAMETER, _SIGNED_NAME, _ANY_VALUE_END)


def redacted_column(uris: pa.Array) -> pa.Array:
    """Return the uris of a column as `redacted` returns each; only those that may hold a secret are looked at."""
    may_hold_secret = pc.match_substring_regex(uris, "[@=]|(?i)authorization")
    if not pc.any(may_hold_secret).as_py():
        return uris
    found = [redacted(uri) for uri in uris.filter(may_hold_secret).to_pylist()]
    return pc.replace_with_mask(uris, may_hold_secret, pa.array(found, uris.type))


def _redacted_url(url: str) -> str:
    url = _USER.sub("***@", url)
    is_website = _is_website(url)
    # In other URLs, "#" and ";" belong to names of files.
    query = re.search(r"[?#]" if is_website else r"\?", url)
    end = query.start() if query else len(url)
    path = _without_values(url[:end], _PATH_PARAMETER, _SECRET_NAME, _PATH_VALUE_END) if is_website else url[:end]
    names = _SUBSONIC_NAME if is_website and _SUBSONIC_PATH in path else _SECRET_NAME
    return path + _without_values(url[end:], _PARAMETER, names, _VALUE_END)


def _hides_secret(value: str) -> bool:
    """Return whether the escaped value of a parameter is a URL with secrets, or is escaped too often to tell."""
    for _ in range(_MAX_ESCAPES):
        value, escaped = urllib.parse.unquote(value), value
        if value == escaped:
            return _redacted_url(value) != value
    return True


def _without_values(text: str, parameter: re.Pattern[str], names: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Replace the values of the parameters whose name matches `names`; a value reaches to the first match of `end`."""
    kept, position = [], 0
    for found in parameter.finditer(text):
        if found.start() >= position and names.fullmatch(urllib.parse.unquote(found[1]).lower()):
            kept += [text[position : found.end()], "***"]
            position = end.search(text, found.end()).start()  # type: ignore[union-attr] # `$` always matches
    return "".join([*kept, text[position:]])


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
    if uri.lower().startswith("file://") and local_path(uri) is None:
        return f"uri {redacted(uri)} names a file of another machine: write file:///PATH"
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
    uri, root = (local_path(each) or each for each in (uri, "/" if root.lower() == "file://" else root))
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
    if scheme == "local":
        return _is_below(os.path.realpath(path), os.path.realpath(root_path))
    # HTTP clients and servers may decode "%2e%2e%2f" and resolve it; the query and fragment are not part of the path.
    if scheme.lower() in ("http", "https"):
        path = urllib.parse.unquote(re.split(r"[?#]", path, maxsplit=1)[0]).replace("\\", "/")
        root_path = urllib.parse.unquote(root_path)
    return _is_below(posixpath.normpath(path), posixpath.normpath(root_path))


def _is_below(path: str, root: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(f"{root}/")
