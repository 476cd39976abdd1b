"""Find tracks that sound nearly the same, such as two encodings of one recording."""

import numpy as np
import numpy.typing as npt
import scipy.spatial

Float32 = npt.NDArray[np.float32]

MAX_DISTANCE = 0.06
"""Largest distance of two tracks that are taken for one recording.

Of 60 tracks of the Emotify set, MP3 (64 kbit/s) was at 0.011 or less from its source, also at half the level, and the
source at -6, -12 and -20 dB at less than 0.001. Of 30 tracks at half the level, AAC (64 kbit/s) was at 0.020 or less,
MP3 (32 kbit/s) at 0.022, WMA (64 kbit/s) at 0.033, and Opus (48 kbit/s) at 0.081, for nine of ten at 0.043. Of all
300 tracks, five pairs were at 0.026 or less, whose samples correlate; the next pair was at 0.101.
"""
# The mean over all bands and frames to which the power is scaled before it is compressed again. At much smaller values,
# different tracks have less distance; at this one, it is that of the stored cells of a loud track.
_MEAN_POWER = 3_000.0
# The mean below which there is no sound to scale.
_SILENCE = 1e-9
_LOG_10 = np.log(np.float32(10))
# The search uses this many dimensions, in which neighbours are found quickly, and so many neighbours of each track.
_N_DIMENSIONS, _N_NEIGHBOURS = 8, 10


def describe(clips: npt.NDArray[np.float16], weights: Float32) -> Float32:
    """Return a description (2 M,) of a track, which does not depend on its level.

    It is the mean of each mel band minus the mean over all bands, and the standard deviation of each band, of cells
    whose power has the same mean in all tracks.

    Args:
        clips: (C, T, M).
        weights: share of each clip (C,) that is audio. Clips that are padded are left out, unless all are.
    """
    whole = clips[weights >= 1] if (weights >= 1).any() else clips
    cells = whole.reshape(-1, clips.shape[-1]).astype(np.float32)
    power = np.expm1(cells * _LOG_10)  # faster than powers of ten
    frames = np.log(1 + power * (_MEAN_POWER / max(float(power.mean()), _SILENCE))) / _LOG_10
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
