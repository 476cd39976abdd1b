"""Train, validation and test: tracks are split by artist, tags evenly, and a decision once made stays.

No artist is in two splits, since a model recognizes a singer or a studio sooner than a genre. Tags are stratified by an
adaptation of iterative stratification (Sechidis, Tsoumakas & Vlahavas, "On the stratification of multi-label data",
ECML PKDD 2011), which places the examples of the rarest remaining tag first. Here what is placed is a group (all tracks
of an artist); it goes to the split that lacks its tags most, all of them weighed together; groups that have a split
count towards the shares and stay; and the last groups of a tag go where the tag is still absent.
"""

import dataclasses
import datetime
import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from musictag.errors import CatalogError
from musictag.storage import parts, tables

SPLITS = ("train", "validation", "test")
SHARES = np.array([0.70, 0.15, 0.15])
"""Share of the tracks, and of the tracks of each tag, that each split should have."""


def group_of(track_id: str, artist: str | None) -> str:
    """The group that a track is split with: its artist, or the track alone if it names none.

    Two spellings of an artist that differ in case, spacing or Unicode form are one group.
    """
    name = " ".join(unicodedata.normalize("NFKC", artist or "").casefold().split())
    return f"artist:{name}" if name else f"track:{track_id}"


def assign_splits(
    groups: Sequence[str], tag_lists: Sequence[Sequence[str]], known: Mapping[str, str]
) -> dict[str, str]:
    """The split of every group; independent of the order of the tracks.

    The first new group goes to train if train is empty, three new groups reach all splits, and a tag of three or more
    groups reaches all splits unless its groups were needed elsewhere for rarer tags.

    Args:
        groups: the group of each track, as `group_of` gives it.
        tag_lists: the tags of each track.
        known: splits decided earlier, by group; they are kept. Groups without a track are ignored.

    Raises:
        CatalogError: `known` holds a split that does not exist.
    """
    if wrong := sorted({split for split in known.values() if split not in SPLITS}):
        raise CatalogError(f"unknown split {', '.join(map(repr, wrong))}: a split is one of {', '.join(SPLITS)}")
    names = sorted({tag for tags in tag_lists for tag in tags})
    column = {tag: k for k, tag in enumerate(names)}
    every = len(names)  # one more column, a tag that every track has: it balances the sizes of the splits
    counted: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for group, tags in zip(groups, tag_lists, strict=True):
        counted[group].update({every, *(column[tag] for tag in tags)})
    content = {group: _arrays(counter) for group, counter in counted.items()}

    split = {group: known[group] for group in counted if group in known}
    total = np.zeros(every + 1, dtype=np.int64)  # tracks of each tag
    waiting = np.zeros(every + 1, dtype=np.int64)  # groups of each tag that have no split yet
    placed = np.zeros((len(SPLITS), every + 1), dtype=np.int64)  # tracks of each tag in each split
    for group, (columns, n_tracks) in content.items():
        total[columns] += n_tracks
        if group in split:
            placed[SPLITS.index(split[group]), columns] += n_tracks
        else:
            waiting[columns] += 1

    # Large groups first, while there is room for them; the hash is a random order that is the same on every machine.
    hashes = {group: int.from_bytes(hashlib.sha256(group.encode()).digest()) for group in counted if group not in split}
    groups_with: defaultdict[int, list[str]] = defaultdict(list)
    for group in sorted(hashes, key=lambda group: (-counted[group][every], hashes[group])):
        for k in content[group][0].tolist():
            groups_with[k].append(group)

    while waiting.any():
        rarest = int(np.argmin(np.where(waiting > 0, waiting, len(hashes) + 1)))
        for group in groups_with[rarest]:
            if group in split:
                continue
            columns, n_tracks = content[group]
            chosen = _choose(columns, n_tracks, total, waiting, placed, hashes[group])
            split[group] = SPLITS[chosen]
            placed[chosen, columns] += n_tracks
            waiting[columns] -= 1
    return dict(sorted(split.items()))


def _arrays(counter: Counter[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns of a group's tags, ascending, and the number of its tracks that have each."""
    columns = sorted(counter)
    return np.array(columns), np.array([counter[k] for k in columns])


def _choose(
    columns: NDArray[np.int64],
    n_tracks: NDArray[np.int64],
    total: NDArray[np.int64],
    waiting: NDArray[np.int64],
    placed: NDArray[np.int64],
    tie: int,
) -> int:
    """Index of the split that a group with `n_tracks` of the tags `columns` should go to."""
    have = placed[:, columns]  # (split, tags of the group)
    absent = have == 0
    # A tag's groups are about to run out: from here on each must go to a split that the tag has not reached.
    urgent = absent & (absent.sum(axis=0) >= waiting[columns])
    # How much nearer to its shares each split gets: the fall of sum((have - want)^2 / want) over the group's tags.
    want = SHARES[:, None] * total[columns]
    gain = (n_tracks * (2 * (want - have) - n_tracks) / want).sum(axis=1)
    needs = zip(urgent[:, -1].tolist(), urgent.sum(axis=1).tolist(), gain.tolist(), strict=True)
    ranked = [(*need, (tie + s) % len(SPLITS)) for s, need in enumerate(needs)]
    return ranked.index(max(ranked))


SCHEMA = pa.schema([("group", pa.string()), ("split", pa.string()), ("assigned_at", pa.timestamp("us", "UTC"))])


@dataclasses.dataclass(frozen=True)
class Labels:
    """The tags of the tracks that can be learned from or judged on, by split."""

    tags: dict[str, dict[str, list[str]]]
    """`tags[split][track_id]`."""
    n_untagged: int
    """Tracks without tags: what they are is unknown, so that they are no negatives either."""
    without_features: tuple[str, ...]
    """Tagged tracks that have no features, sorted."""
    unlisted: tuple[str, ...]
    """Tracks that have features and are not in the catalog, sorted."""
    groups: dict[str, str]
    """The group of each of the tracks in `tags`, by track_id."""

    def __str__(self) -> str:
        kept = ", ".join(f"{len(self.tags[split]):,} {split}" for split in SPLITS)
        left_out = f"{self.n_untagged:,} without tags, {_count(self.without_features)} tagged but without features"
        if self.unlisted:
            left_out += f", {_count(self.unlisted)} with features but not in the catalog"
        return f"tracks: {kept}; left out: {left_out}"


def tags_by_split(tracks: pa.Table, with_features: Collection[str], splits_uri: str) -> Labels:
    """The tagged tracks of a catalog (`catalog.SCHEMA`) that have features, by split.

    A track's own `split` counts; other tracks go where their group is, and new groups are assigned. The table at
    `splits_uri` remembers each group's split, so that a test artist stays one when the catalog grows.
    """
    rows = [row for row in tracks.select(["track_id", "artist", "tags", "split"]).to_pylist() if row["tags"]]
    groups = [group_of(row["track_id"], row["artist"]) for row in rows]
    remembered = tables.read_columns(splits_uri, ("group", "split")).to_pylist()
    known = {row["group"]: row["split"] for row in remembered}
    known |= {group: row["split"] for group, row in zip(groups, rows, strict=True) if row["split"]}
    assigned = assign_splits(groups, [row["tags"] for row in rows], known)
    _remember(splits_uri, {group: split for group, split in assigned.items() if group not in known})

    tags: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    group_by_track = {}
    for group, row in zip(groups, rows, strict=True):
        if row["track_id"] in with_features:
            tags[row["split"] or assigned[group]][row["track_id"]] = row["tags"]
            group_by_track[row["track_id"]] = group
    without_features = sorted(row["track_id"] for row in rows if row["track_id"] not in group_by_track)
    unlisted = sorted(set(with_features) - set(tracks["track_id"].to_pylist()))
    return Labels(tags, tracks.num_rows - len(rows), tuple(without_features), tuple(unlisted), group_by_track)


def folds(labels: Labels, n_folds: int) -> list[dict[str, dict[str, list[str]]]]:
    """Ways to learn from the train and validation tracks, `[fold]["train" or "validation"][track_id]` their tags.

    One fold takes the two splits as they are. More deal both anew: each track is held back for validation in one fold,
    with its whole group. There are no more folds than groups.

    Raises:
        CatalogError: no track to learn from or none to hold back.
    """
    if n_folds == 1:
        for split in (learned := ("train", "validation")):
            if not labels.tags[split]:
                raise CatalogError(
                    f"no track of the {split} split has both tags and features: add tracks or change splits"
                )
        return [{split: labels.tags[split] for split in learned}]
    from sklearn.model_selection import GroupKFold  # takes a second to import

    tags = labels.tags["train"] | labels.tags["validation"]
    track_ids = sorted(tags)
    groups = [labels.groups[track_id] for track_id in track_ids]
    if (n_groups := len(set(groups))) < 2:
        raise CatalogError(
            f"train and validation tracks with tags and features are of {n_groups} artists, {n_folds} folds need 2 or "
            "more: add tracks or change splits"
        )
    dealt = GroupKFold(min(n_folds, n_groups)).split(track_ids, groups=groups)
    return [
        {split: {track_ids[n]: tags[track_ids[n]] for n in places}
         for split, places in zip(("train", "validation"), fold, strict=True)}
        for fold in dealt
    ]  # fmt: skip


def _count(track_ids: Sequence[str]) -> str:
    """How many they are, and the first three."""
    more = ", \u2026" if len(track_ids) > 3 else ""
    return f"{len(track_ids):,}" + (f" ({', '.join(track_ids[:3])}{more})" if track_ids else "")


def _remember(uri: str, assigned: Mapping[str, str]) -> None:
    if not assigned:
        return
    now = datetime.datetime.now(datetime.UTC)
    rows = [{"group": group, "split": split, "assigned_at": now} for group, split in sorted(assigned.items())]
    tables.create_table(uri, SCHEMA)
    parts.write_table(uri, f"{now:%Y%m%dT%H%M%S%f}", SCHEMA, pa.Table.from_pylist(rows, SCHEMA))
