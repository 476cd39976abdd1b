"""Read the labels of a job that trains or judges a model."""

from collections.abc import Iterable

from musictag.catalog.reader import Catalog
from musictag.catalog.splits import Labels, tags_by_split
from musictag.catalog.vocabulary import case_variants, merge_case
from musictag.jobs.progress import counted, echo
from musictag.storage import tables


def read_labels(
    catalog: Catalog, features_uri: str, version: int | None = None, *, merge_tag_case: Iterable[str] | None = None
) -> Labels:
    """Return the tags of the catalog's tracks that have features, by split.

    The splits are read from the splits table of the features table; groups that it lacks are assigned and added to it.

    Args:
        catalog: the catalog.
        features_uri: the features table.
        version: read the features table as it was at this version; None means now.
        merge_tag_case: merge tags that differ by case alone, to the spelling of these tags or else to the most
            frequent one; None means to leave them as they are.
    """
    tracks = catalog.tracks
    if merge_tag_case is not None:
        merged = merge_case(tracks["tags"].to_pylist(), merge_tag_case)
        position = tracks.schema.get_field_index("tags")
        tracks = tracks.set_column(position, tracks.schema.field("tags"), [merged])
    rows = tables.read_columns(features_uri, ("track_id", "audio_sha256"), version)
    digests = dict(zip(rows["track_id"].to_pylist(), rows["audio_sha256"].to_pylist(), strict=True))
    return tags_by_split(tracks, digests, tables.companion_uri(features_uri, "splits"))


def echo_problems(catalog: Catalog, *, merge_tag_case: bool) -> None:
    """Print one line for each catalog row that cannot be used, and for tags that differ by case alone."""
    for problem in catalog.problems:
        echo(f"{catalog.uri}, {problem}")
    for counts in case_variants(catalog.tracks["tags"].to_pylist()):
        spellings = ", ".join(f"{tag} ({counted(n, 'track')})" for tag, n in counts.items())
        end = "learned as one" if merge_tag_case else "learned as several tags; --merge-tag-case makes them one"
        echo(f"{catalog.uri}, tags that differ by case alone: {spellings}: {end}")
