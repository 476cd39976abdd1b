"""Find tracks that sound nearly the same, such as two encodings of one recording."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.spatial

Float32 = npt.NDArray[np.float32]

MAX_DISTANCE = 0.1
"""Distance below which two tracks are taken for one recording.

Of 60 tracks of the Emotify set, encodings by MP3 (64 kbit/s), AAC and Opus were at 0.11 or less from their source,
nearly all below 0.06, and the nearest other track was at 0.17 or more.
"""
# The search uses this many dimensions, in which neighbours are found quickly, and so many neighbours of each track.
_N_DIMENSIONS, _N_NEIGHBOURS = 8, 10


def describe(clips: npt.NDArray[np.float16], weights: Float32) -> Float32:
    """Return a description (2 M,) of a track, which loudness hardly changes.

    It is the mean and the standard deviation of the log-mel frames, the means less their mean.

    Args:
        clips: (C, T, M).
        weights: share of each clip (C,) that is audio. Clips that are padded are left out, unless all are.
    """
    whole = clips[weights >= 1] if (weights >= 1).any() else clips
    frames = whole.reshape(-1, clips.shape[-1]).astype(np.float32)
    mean = frames.mean(axis=0)
    return np.concatenate([mean - mean.mean(), frames.std(axis=0)])


def near_pairs(descriptions: Float32, max_distance: float = MAX_DISTANCE) -> list[tuple[int, int, float]]:
    """Return pairs of tracks (first, second, distance) by their descriptions (N, D), the nearest first.

    The distance is the root of the mean square of the differences. Of more than ten near tracks, a track is paired with
    ten. The time grows with N log N as long as few tracks are near each other.
    """
    if len(descriptions) < 2:
        return []
    centred = descriptions - descriptions.mean(axis=0)
    # Projections on principal components are at most as far from each other as the descriptions.
    _, components = np.linalg.eigh(centred.T @ centred)
    projected = centred @ components[:, -_N_DIMENSIONS:]
    bound = max_distance * np.sqrt(descriptions.shape[1])
    n_neighbours = min(_N_NEIGHBOURS + 1, len(descriptions))  # a track is its own neighbour
    _, neighbours = scipy.spatial.cKDTree(projected).query(projected, n_neighbours, distance_upper_bound=bound)
    firsts, columns = np.nonzero(neighbours < len(descriptions))
    seconds = neighbours[firsts, columns]
    is_pair = firsts < seconds
    is_pair |= (firsts > seconds) & ~(neighbours[seconds] == firsts[:, None]).any(axis=1)
    firsts, seconds = firsts[is_pair], seconds[is_pair]
    distances = np.sqrt(np.square(descriptions[firsts] - descriptions[seconds]).mean(axis=1))
    found = [
        (int(min(pair)), int(max(pair)), float(distance))
        for *pair, distance in zip(firsts, seconds, distances, strict=True)
        if distance <= max_distance
    ]
    return sorted(found, key=lambda pair: pair[2])


def pairs_across(pairs: Sequence[tuple[int, int, float]], splits: Sequence[str]) -> list[tuple[int, int, float]]:
    """Return the pairs whose tracks are in different splits."""
    return [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]]
