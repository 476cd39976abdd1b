"""Report labelled tracks that sound like one of another split: a model would be tested on what it has learned."""

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from musictag.catalog.splits import Labels
from musictag.features import similarity
from musictag.features.clips import clip_weights, is_silent
from musictag.features.config import FeatureConfig
from musictag.features.reader import read_tracks
from musictag.features.table import decode_clips
from musictag.jobs.progress import counted, echo

# Pairs that are printed.
_N_SHOWN = 10

Pair = tuple[str, str]
"""Two tracks that sound nearly the same."""


def find_near_duplicates(
    labels: Labels, features_uri: str, files: Mapping[str, Collection[str]], config: FeatureConfig
) -> list[Pair]:
    """Return the pairs of labelled tracks of different splits that sound nearly the same, the nearest first.

    Silent tracks are left out. Memory holds a description of 192 numbers of each track, and the clips of a few.

    Args:
        labels: the labelled tracks.
        features_uri: the features table.
        files: its files that hold them, see `features.reader.group_by_file`.
        config: settings of the features.
    """
    split_of = _split_of(labels)
    track_ids: dict[str, list[str]] = {split: [] for split in labels.tags}
    descriptions: dict[str, list[npt.NDArray[np.float32]]] = {split: [] for split in labels.tags}
    for row in read_tracks(features_uri, ("track_id", "clips", "start_s", "duration_s"), files):
        clips = decode_clips(row["clips"], config)
        if not is_silent(clips):
            split = split_of[row["track_id"]]
            weights = clip_weights(row["start_s"], row["duration_s"], config)
            track_ids[split].append(row["track_id"])
            descriptions[split].append(similarity.describe(clips, weights))
    pairs = []
    for first, second in itertools.combinations(labels.tags, 2):
        found = similarity.near_pairs(np.array(descriptions[first]), np.array(descriptions[second]))
        pairs += [(distance, track_ids[first][one], track_ids[second][other]) for one, other, distance in found]
    return [(one, other) for _, one, other in sorted(pairs)]


def _split_of(labels: Labels) -> dict[str, str]:
    return {track_id: split for split, tags in labels.tags.items() for track_id in tags}


def echo_near_duplicates(pairs: list[Pair], labels: Labels) -> None:
    """Print pairs of tracks that sound nearly the same, each with its split."""
    if not pairs:
        return
    split_of = _split_of(labels)
    shown = "; ".join(
        " and ".join(f"{track_id} ({split_of[track_id]})" for track_id in pair) for pair in pairs[:_N_SHOWN]
    )
    more = f"; and {len(pairs) - _N_SHOWN:,} more" if len(pairs) > _N_SHOWN else ""
    echo(
        f"{counted(len(pairs), 'pair')} of tracks in different splits sound nearly the same, and may be one recording: "
        f"{shown}{more}. If they are, give both the same artist, or the same split in the catalog's column split"
    )
