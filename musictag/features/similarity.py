"""Find tracks that sound nearly the same, such as two encodings of one recording."""

import numpy as np
import numpy.typing as npt
import scipy.spatial

Float32 = npt.NDArray[np.float32]

MAX_DISTANCE = 0.1
"""Largest distance of two tracks that are taken for one recording.

Of 60 tracks of the Emotify set, encodings by MP3 (64 kbit/s), AAC and Opus were at 0.11 or less from their source,
nearly all below 0.06, and the nearest other track was at 0.17 or more.
"""
# The search uses this many dimensions, in which neighbours are found quickly, and so many neighbours of each track.
_N_DIMENSIONS, _N_NEIGHBOURS = 8, 10


def describe(clips: npt.NDArray[np.float16], weights: Float32) -> Float32:
    """Return a description (2 M,) of a track, which loudness hardly changes.

    It is the mean of each mel band minus the mean over all bands, and the standard deviation of each band.

    Args:
        clips: (C, T, M).
        weights: share of each clip (C,) that is audio. Clips that are padded are left out, unless all are.
    """
    whole = clips[weights >= 1] if (weights >= 1).any() else clips
    frames = whole.reshape(-1, clips.shape[-1]).astype(np.float32)
    mean = frames.mean(axis=0)
    return np.concatenate([mean - mean.mean(), frames.std(axis=0)])


def near_pairs(descriptions: Float32, others: Float32) -> list[tuple[int, int, float]]:
    """Return pairs of a track and one of the others that are near each other, with their distance, the nearest first.

    The distance is the root of the mean square of the differences, at most `MAX_DISTANCE`. Of more than ten others near
    a track, the track is paired with ten.

    Args:
        descriptions: of the tracks (N, D).
        others: of the other tracks (M, D).
    """
    if not len(descriptions) or not len(others):
        return []
    # Projections on principal components are at most as far from each other as the descriptions.
    mean = others.mean(axis=0)
    _, components = np.linalg.eigh((others - mean).T @ (others - mean))
    projection = components[:, -_N_DIMENSIONS:]
    tree = scipy.spatial.cKDTree((others - mean) @ projection)
    bound = MAX_DISTANCE * np.sqrt(descriptions.shape[1])
    n_neighbours = min(_N_NEIGHBOURS, len(others))
    found = tree.query(
        (descriptions - mean) @ projection, np.arange(1, n_neighbours + 1), distance_upper_bound=bound, workers=-1
    )[1]
    firsts, columns = np.nonzero(found < len(others))
    seconds = found[firsts, columns]
    distances = np.sqrt(np.square(descriptions[firsts] - others[seconds]).mean(axis=1))
    pairs = zip(firsts.tolist(), seconds.tolist(), distances.tolist(), strict=True)
    return sorted((pair for pair in pairs if pair[2] <= MAX_DISTANCE), key=lambda pair: pair[2])
