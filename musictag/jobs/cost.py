"""The computing time of a run, and what a million tracks would take."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cost:
    """The computing time of the tracks that a run processed."""

    n_tracks: int
    """Tracks that were written or failed."""
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __str__(self) -> str:
        parts = [_cost(self.core_seconds, self.n_tracks, "core")]
        if self.gpu_seconds:
            parts.append(_cost(self.gpu_seconds, self.n_tracks, "GPU"))
        return ", ".join(parts)


def _cost(seconds: float, n_tracks: int, unit: str) -> str:
    per_track = seconds / n_tracks
    return f"{per_track:.2g} {unit}-seconds a track ({per_track * 1e6 / 3600:,.0f} {unit}-hours for a million)"
