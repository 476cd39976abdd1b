"""Find tracks with the same audio, which must not be learned from and tested on.

A recording may be in a catalog several times, for example on an album and on a compilation of another artist. The
SHA-256 of its bytes tells.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence


def merge_groups(groups: Sequence[str], digests: Sequence[str | None], known: Mapping[str, str]) -> dict[str, str]:
    """Return a representative of each group: groups of tracks with the same audio have the same one.

    Args:
        groups: the group of each track (see `splits.group_of`).
        digests: the SHA-256 of each track's audio, or None if it is not known.
        known: existing splits by group. Groups with different splits are not merged.
    """
    representatives = {group: group for group in groups}

    def find(group: str) -> str:
        while representatives[group] != group:
            representatives[group] = representatives[representatives[group]]  # shortens the path
            group = representatives[group]
        return group

    first: dict[str, str] = {}
    for digest, group in sorted({(digest, group) for digest, group in zip(digests, groups, strict=True) if digest}):
        pair = {find(group), find(first.setdefault(digest, group))}
        if len(pair) == 2 and len({known[each] for each in pair if each in known}) < 2:
            kept, merged = sorted(pair, key=lambda each: (each not in known, each))
            representatives[merged] = kept
    return {group: find(group) for group in representatives}


def learned_elsewhere(splits: Mapping[str, str], digests: Mapping[str, str | None]) -> set[str]:
    """Return the validation and test tracks whose audio is also in an earlier split.

    Args:
        splits: the split of each track, by track_id.
        digests: the SHA-256 of the audio of each of these tracks, or None if it is not known.
    """
    order = ("train", "validation", "test")
    tracks_by_digest = defaultdict(list)
    for track_id in splits:
        if digest := digests[track_id]:
            tracks_by_digest[digest].append(track_id)
    found = set()
    for track_ids in tracks_by_digest.values():
        earliest = min(order.index(splits[track_id]) for track_id in track_ids)
        found |= {track_id for track_id in track_ids if order.index(splits[track_id]) > earliest}
    return found
