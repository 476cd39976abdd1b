"""Resolve the uris of catalog rows, and find those that a catalog may not name, in columns."""

import posixpath
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from musictag.storage import urls

# Relative paths that may stand for another place than their text says: `a//b`, `./a`, `../a`, `~/a`, `file:/a`.
_NOT_PLAIN = r"(^|/)(\.\.?)?(/|$)|^~/|(?i:^file:)|\x00"
# Scheme, host and port of a URL of which nothing is escaped; the rest is a path.
_PLAIN_URL = r"^(?P<place>[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._-]*(?::[0-9]{1,5})?)/"


def absolute(uri: str, root: str) -> str:
    """Return the uri of a track; relative ones refer to the folder `root`."""
    uri = urls.expanded_home(uri)
    if "://" in uri or uri.startswith("/") or urls.local_path(uri):
        return uri
    return f"{root}/{uri}" if "://" in root else posixpath.normpath(f"{root}/{uri}")


def absolute_uris(uris: pa.StringArray, root: str) -> pa.StringArray:
    """Return the result of `absolute` for each of N uris, none of them null, (N,)."""
    is_absolute = pc.and_(
        pc.or_(pc.starts_with(uris, "/"), pc.match_substring(uris, "://")), pc.invert(pc.starts_with(uris, "~/"))
    )
    is_plain = pc.invert(pc.match_substring_regex(uris, _NOT_PLAIN))
    folder = f"{root}/" if "://" in root else posixpath.normpath(f"{root}/x")[:-1]
    below = pc.binary_join_element_wise(pa.scalar(folder), uris, "")
    resolved = pc.if_else(is_absolute, uris, below)
    is_unclear = pc.invert(pc.or_(is_absolute, is_plain))
    unclear = [absolute(uri, root) for uri in uris.filter(is_unclear).to_pylist()]
    return pc.replace_with_mask(resolved, is_unclear, pa.array(unclear, pa.string()))


def rejection_reasons(uris: pa.StringArray, allowed: Sequence[str]) -> dict[int, str]:
    """Return the position of each absolute uri that a catalog may not name, with the reason.

    `urls.rejection_reason` decides, and describes `allowed`. Without `allowed`, it is asked once for each host.
    """
    positions = np.arange(len(uris)) if allowed else np.flatnonzero(_is_suspicious(uris).to_numpy(zero_copy_only=False))
    reasons = {}
    for position, uri in zip(positions.tolist(), uris.take(pa.array(positions)).to_pylist(), strict=True):
        if reason := urls.rejection_reason(uri, allowed):
            reasons[position] = reason
    return reasons


def _is_suspicious(uris: pa.StringArray) -> pa.BooleanArray:
    """Return which absolute uris are not surely allowed."""
    is_url = pc.match_substring(uris, "://")
    hosts = pc.struct_field(pc.extract_regex(uris, _PLAIN_URL), "place")
    rejected = [host for host in hosts.unique().drop_null().to_pylist() if urls.rejection_reason(f"{host}/x")]
    is_rejected = pc.or_(pc.is_null(hosts), pc.is_in(hosts, pa.array(rejected, pa.string())))
    return pc.or_(pc.match_substring(uris, "::"), pc.and_(is_url, is_rejected))
