"""Split tracks into train, validation and test by artist, with balanced tags.

No artist is in two splits, unless the catalog's column `split` says so, because a model recognizes a singer or a studio
more easily than a genre. An assigned split never changes, also when the catalog grows.
"""

import dataclasses
import datetime
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from musictag.catalog import stratification, twins
from musictag.catalog.matching import TrackCount, is_tagged, match_features
from musictag.catalog.vocabulary import merge_case
from musictag.errors import CatalogError
from musictag.storage import commits, data_files, tables

SPLITS = ("train", "validation", "test")
_FOLD_SPLITS = ("train", "validation")
SHARES = (0.70, 0.15, 0.15)
"""Target share of each split in all tracks and in the tracks of each tag."""

SCHEMA = pa.schema([("group", pa.string()), ("split", pa.string()), ("assigned_at", pa.timestamp("us", "UTC"))])
"""Columns of the splits table."""
# The name under which the table records the number of the last assignment.
_ASSIGNMENTS = "splits"
LABEL_COLUMNS = ("track_id", "artist", "tags", "split")
"""Columns of a catalog that labels are made of."""


def group_of(track_id: str, artist: str | None) -> str:
    """Return the group of a track: its artist, or the track alone if it has no artist.

    Spellings of an artist that differ only in case, spacing or Unicode form are one group.
    """
    name = " ".join(unicodedata.normalize("NFKC", artist or "").casefold().split())
    return f"artist:{name}" if name else f"track:{track_id}"


def assign_splits(
    groups: Sequence[str], tag_lists: Sequence[Sequence[str]], known: Mapping[str, str]
) -> dict[str, str]:
    """Return the split of every group; independent of the order of the tracks.

    The first new group goes to train if train is empty. Three new groups reach all splits. A tag of three or more
    groups reaches all splits, unless its groups were needed elsewhere for rarer tags.

    Args:
        groups: the group of each track, from `group_of`.
        tag_lists: the tags of each track.
        known: existing splits by group; they are kept. Groups without a track are ignored.

    Raises:
        CatalogError: `known` holds a split that does not exist.
    """
    if unknown := sorted({split for split in known.values() if split not in SPLITS}):
        raise CatalogError(f"unknown split {', '.join(map(repr, unknown))}: a split is one of {', '.join(SPLITS)}")
    known_indices = {group: SPLITS.index(split) for group, split in known.items()}
    indices = stratification.assign(groups, tag_lists, SHARES, known_indices)
    return {group: SPLITS[index] for group, index in sorted(indices.items())}


@dataclasses.dataclass(frozen=True)
class Labels:
    """The tags of the tracks that models are trained and evaluated on, by split."""

    tags: dict[str, dict[str, list[str]]]
    """`tags[split][track_id]`."""
    n_untagged: int
    """Number of tracks without tags. Their tags are unknown, so they are not negative examples either."""
    without_features: TrackCount
    """Tagged tracks that have no features."""
    orphaned: TrackCount
    """Tracks that have features but are not in the catalog."""
    groups: dict[str, str]
    """`groups[track_id]` of the tracks in `tags`."""
    file_by_track: dict[str, str]
    """`file_by_track[track_id]` is the name of the file of the features table with the row of a track in `tags`."""
    row_versions: dict[str, str]
    """`row_versions[track_id]` is a text that changes when the features row of a track in `tags` does."""
    twins: TrackCount
    """Validation and test tracks whose audio is also in an earlier split; they are not in `tags`."""

    def __str__(self) -> str:
        kept = ", ".join(f"{len(self.tags[split]):,} {split}" for split in SPLITS)
        left_out = f"{self.n_untagged:,} without tags, {self.without_features} tagged but without features"
        if self.orphaned.n:
            left_out += f", {self.orphaned} with features but not in the catalog"
        if self.twins.n:
            left_out += f", {self.twins} with the same audio as a track of another split"
        return f"tracks: {kept}; left out: {left_out}"


def tags_by_split(
    tracks: pa.Table,
    features: pa.Table | pa.RecordBatchReader,
    splits_uri: str,
    *,
    merge_tag_case: Iterable[str] | None = None,
) -> Labels:
    """Return the tagged tracks of a catalog that have features, by split.

    The split of a track is its column `split`, else the split of its group. Groups without a split get one, and the
    table at `splits_uri` keeps it, so that an artist's split stays the same when the catalog grows. Groups that share
    audio get the same split; where their splits are given and differ, the validation or test track is left out.

    Args:
        tracks: the columns `track_id`, `artist`, `tags` and `split` of a catalog.
        features: the columns of the features table that `matching.match_features` takes.
        splits_uri: table of `SCHEMA`; created if necessary.
        merge_tag_case: merge tags that differ by case alone, to the spelling of these tags or else to the most
            frequent one; None means to leave them as they are.
    """
    # Of ten million tracks, those without tags would not fit into Python objects.
    rows = tracks.select(list(LABEL_COLUMNS)).filter(is_tagged(tracks)).to_pylist()
    if merge_tag_case is not None:
        merged_tags = merge_case([row["tags"] for row in rows], merge_tag_case)
        rows = [{**row, "tags": tags} for row, tags in zip(rows, merged_tags, strict=True)]
    matches = match_features(tracks, features)
    digests = matches.digests
    groups = [group_of(row["track_id"], row["artist"]) for row in rows]
    of_catalog = {group: row["split"] for group, row in zip(groups, rows, strict=True) if row["split"]}
    tags_of_rows = [row["tags"] for row in rows]
    digests_of_rows = [digests.get(row["track_id"]) for row in rows]

    def assign() -> tuple[dict[str, str], dict[str, str]]:
        n_before, stored = _read_splits(splits_uri)
        known = stored | of_catalog
        assigned, merged = _assign_groups(groups, tags_of_rows, digests_of_rows, known)
        new = {group: split for group, split in assigned.items() if group not in known}
        if new:
            _store_splits(splits_uri, new, n_before + 1)
        return assigned, merged

    # After a conflict, another job has assigned splits meanwhile: they are read.
    assigned, merged = commits.repeat_after_conflicts(assign, lambda: None)
    splits = {
        row["track_id"]: row["split"] or assigned[group]
        for group, row in zip(groups, rows, strict=True)
        if row["track_id"] in digests
    }
    left_out = twins.learned_elsewhere(splits, digests)
    tags: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    kept_groups = {}
    for group, row in zip(groups, rows, strict=True):
        track_id = row["track_id"]
        if track_id in splits and track_id not in left_out:
            tags[splits[track_id]][track_id] = row["tags"]
            kept_groups[track_id] = merged[group]
    # Tracks with the same audio are validated in the same fold, also if their artists have different splits.
    merged_again = twins.merge_groups(list(kept_groups.values()), [digests[track_id] for track_id in kept_groups], {})
    group_by_track = {track_id: merged_again[group] for track_id, group in kept_groups.items()}
    return Labels(
        tags,
        n_untagged=tracks.num_rows - len(rows),
        without_features=TrackCount.of(row["track_id"] for row in rows if row["track_id"] not in digests),
        orphaned=matches.orphaned,
        groups=group_by_track,
        file_by_track={track_id: matches.file_by_track[track_id] for track_id in group_by_track},
        row_versions={track_id: matches.row_versions[track_id] for track_id in group_by_track},
        twins=TrackCount.of(left_out),
    )


def folds(labels: Labels, n_folds: int) -> list[dict[str, dict[str, list[str]]]]:
    """Return the train and validation tracks of each fold: `[fold]["train" or "validation"][track_id]` are tags.

    A single fold has the two splits as they are. Several folds divide the tracks of both splits anew: each track is a
    validation track in one fold, together with its whole group. There are at most as many folds as groups.

    Raises:
        CatalogError: a fold would have no train or no validation track.
    """
    if n_folds == 1:
        for split in _FOLD_SPLITS:
            if not labels.tags[split]:
                raise CatalogError(
                    f"no track of the {split} split has both tags and features: add tracks or change splits"
                )
        return [{split: labels.tags[split] for split in _FOLD_SPLITS}]
    from sklearn.model_selection import GroupKFold  # takes a second to import

    tags = labels.tags["train"] | labels.tags["validation"]
    track_ids = sorted(tags)
    groups = [labels.groups[track_id] for track_id in track_ids]
    if (n_groups := len(set(groups))) < 2:
        raise CatalogError(
            f"{n_folds} folds need 2 or more artists, but the train and validation tracks with tags and features have "
            f"{n_groups}: add tracks or change splits"
        )
    indices_by_fold = GroupKFold(min(n_folds, n_groups)).split(track_ids, groups=groups)
    return [
        {split: {track_ids[n]: tags[track_ids[n]] for n in indices}
         for split, indices in zip(_FOLD_SPLITS, fold, strict=True)}
        for fold in indices_by_fold
    ]  # fmt: skip


def _assign_groups(
    groups: Sequence[str], tags: Sequence[Sequence[str]], digests: Sequence[str | None], known: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the split of each group, and the group with which it is merged because they share audio, or itself.

    Args:
        groups: the group of each track.
        tags: its tags.
        digests: the digest of its audio, or None.
        known: splits of groups that have one.
    """
    merged = twins.merge_groups(groups, digests, known)
    known_merged = {merged[group]: split for group, split in known.items() if group in merged}
    assigned = assign_splits([merged[group] for group in groups], tags, known_merged)
    return {group: assigned[merged[group]] for group in merged}, merged


def _read_splits(uri: str) -> tuple[int, dict[str, str]]:
    """Return the number of the last assignment, and the stored split of each group, which does not change."""
    if not tables.table_exists(uri):
        return 0, {}
    number = commits.recorded_numbers(uri, [_ASSIGNMENTS]).get(_ASSIGNMENTS, 0)
    rows = tables.read_columns(uri, ("group", "split", "assigned_at")).to_pylist()
    rows.sort(key=lambda row: row["assigned_at"], reverse=True)  # of two rows of a group, the earlier one counts
    return number, {row["group"]: row["split"] for row in rows}


def _store_splits(uri: str, assigned: Mapping[str, str], number: int) -> None:
    """Store splits of groups as assignment `number`; raise `ConflictError` if another job stored it meanwhile."""
    now = datetime.datetime.now(datetime.UTC)
    rows = [{"group": group, "split": split, "assigned_at": now} for group, split in sorted(assigned.items())]
    tables.create_table(uri, SCHEMA)
    commits.add_files(uri, SCHEMA, data_files.write_rows(uri, SCHEMA, rows), {_ASSIGNMENTS: number})
