"""Read the labels of a job that trains or judges a model."""

from musictag.catalog.reader import Catalog
from musictag.catalog.splits import Labels, tags_by_split
from musictag.jobs.progress import echo
from musictag.storage import tables


def read_labels(catalog: Catalog, features_uri: str, version: int | None = None) -> Labels:
    """Return the tags of the catalog's tracks that have features, by split.

    The splits are read from the splits table of the features table; groups that it lacks are assigned and added to it.
    With `version`, the features table is read as it was at that version.
    """
    with_features = tables.track_ids(features_uri, version)
    return tags_by_split(catalog.tracks, with_features, tables.companion_uri(features_uri, "splits"))


def echo_problems(catalog: Catalog) -> None:
    """Print one line for each catalog row that cannot be used."""
    for problem in catalog.problems:
        echo(f"{catalog.uri}, {problem}")
