"""Stratification: divide groups of tracks among splits so that every tag is divided by the same shares.

An adaptation of iterative stratification (Sechidis, Tsoumakas & Vlahavas, "On the stratification of multi-label data",
ECML PKDD 2011), which first assigns the examples of the rarest remaining tag. There are four differences. The unit is a
group, for instance all tracks of an artist. A group goes to the split that lacks its tags most, all its tags taken
together. Groups that already have a split keep it and count towards the shares. The last groups of a tag go to splits
that do not have the tag yet.
"""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def assign(
    groups: Sequence[str], tag_lists: Sequence[Sequence[str]], shares: Sequence[float], known: Mapping[str, int]
) -> dict[str, int]:
    """Return the index of every group's split; independent of the order of the tracks.

    Args:
        groups: the group of each track.
        tag_lists: the tags of each track.
        shares: target share of each split, in all tracks and in the tracks of each tag.
        known: existing splits by group; they are kept. Groups without a track are ignored.
    """
    tag_counts, n_columns = _count_tags(groups, tag_lists)
    assigned = {group: known[group] for group in tag_counts if group in known}
    counts = _Counts.zeros(np.array(shares), n_columns)
    for group, count in tag_counts.items():
        counts.add_group(count)
        if group in assigned:
            counts.assign(count, assigned[group])

    # Large groups come first, while every split has room for them. Equal ones are ordered by hash: random, but the same
    # on every machine.
    hashes = {group: _hash(group) for group in tag_counts if group not in assigned}
    groups_by_column: defaultdict[int, list[str]] = defaultdict(list)
    for group in sorted(hashes, key=lambda group: (-tag_counts[group].n_all, hashes[group])):
        for column in tag_counts[group].columns.tolist():
            groups_by_column[column].append(group)

    while counts.unassigned.any():
        rarest = int(np.argmin(np.where(counts.unassigned > 0, counts.unassigned, len(hashes) + 1)))
        for group in groups_by_column[rarest]:
            if group not in assigned:
                assigned[group] = counts.best_split(tag_counts[group], hashes[group])
                counts.assign(tag_counts[group], assigned[group])
    return assigned


@dataclasses.dataclass(frozen=True)
class _TagCount:
    """How many tracks of a group have each tag."""

    columns: Int64
    """The tags of the group as columns, ascending; the last one is the additional tag of all tracks."""
    n_tracks: Int64
    """Number of the group's tracks with each tag of `columns`."""

    @property
    def n_all(self) -> int:
        return int(self.n_tracks[-1])


def _count_tags(groups: Sequence[str], tag_lists: Sequence[Sequence[str]]) -> tuple[dict[str, _TagCount], int]:
    """Return the tag counts of each group, and the number of columns.

    The last column is an additional tag that every track has: it balances the sizes of the splits.
    """
    names = sorted({tag for tags in tag_lists for tag in tags})
    column = {tag: k for k, tag in enumerate(names)}
    counters: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for group, tags in zip(groups, tag_lists, strict=True):
        counters[group].update({len(names), *(column[tag] for tag in tags)})
    tag_counts = {}
    for group, counter in counters.items():
        columns = sorted(counter)
        tag_counts[group] = _TagCount(np.array(columns), np.array([counter[k] for k in columns]))
    return tag_counts, len(names) + 1


@dataclasses.dataclass(frozen=True)
class _Counts:
    """The state of an assignment: changed in place while groups get their splits."""

    shares: NDArray[np.float64]
    """Target share of each split, (splits,)."""
    total: Int64
    """Number of tracks with each tag, (columns,)."""
    unassigned: Int64
    """Number of groups with each tag that have no split yet, (columns,)."""
    assigned: Int64
    """Number of tracks with each tag in each split, (splits, columns)."""

    @classmethod
    def zeros(cls, shares: NDArray[np.float64], n_columns: int) -> Self:
        shapes = (n_columns, n_columns, (len(shares), n_columns))
        return cls(shares, *(np.zeros(shape, dtype=np.int64) for shape in shapes))

    def add_group(self, count: _TagCount) -> None:
        self.total[count.columns] += count.n_tracks
        self.unassigned[count.columns] += 1

    def assign(self, count: _TagCount, split: int) -> None:
        self.assigned[split, count.columns] += count.n_tracks
        self.unassigned[count.columns] -= 1

    def best_split(self, count: _TagCount, tie_breaker: int) -> int:
        """Return the index of the split that a group should go to."""
        columns, n_tracks = count.columns, count.n_tracks
        n_assigned = self.assigned[:, columns]  # (splits, tags of the group)
        absent = n_assigned == 0
        # A tag has no more unassigned groups than splits without it: each of them must go to such a split.
        urgent = absent & (absent.sum(axis=0) >= self.unassigned[columns])
        # The decrease of sum((n_assigned - target)^2 / target) over the group's tags if the group goes to the split.
        target = self.shares[:, None] * self.total[columns]
        gain = (n_tracks * (2 * (target - n_assigned) - n_tracks) / target).sum(axis=1)
        needs = zip(urgent[:, -1].tolist(), urgent.sum(axis=1).tolist(), gain.tolist(), strict=True)
        ranked = [(*need, (tie_breaker + split) % len(self.shares)) for split, need in enumerate(needs)]
        return ranked.index(max(ranked))


def _hash(group: str) -> int:
    return int.from_bytes(hashlib.sha256(group.encode()).digest())
