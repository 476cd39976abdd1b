"""Limits of tracks that are decoded."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits above which a track is an error."""

    max_hours: float = 2.0
    """Length of a track that is decoded as a whole; the cell of one hour has 43 MB, and memory holds several copies."""
    max_damage: float = 0.05
    """Share of a track that may be lost by damage of its file; with 0, any damage is an error."""
    store_timeout_s: float = 600.0
    """Time for which a store that does not answer is waited for; see `storage.outages`."""


DEFAULT_LIMITS = Limits()
