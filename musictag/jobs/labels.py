"""Read the labels of a job that trains or judges a model."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

from musictag.catalog.matching import is_tagged
from musictag.catalog.reader import Catalog
from musictag.catalog.splits import SPLITS, Labels, tags_by_split
from musictag.catalog.validation import iter_problems
from musictag.catalog.vocabulary import case_variants, normalized_tag
from musictag.features.reader import scan_for_labels
from musictag.jobs.progress import counted, echo
from musictag.storage import tables

N_SHOWN = 10
"""Catalog rows that cannot be used, of which the reasons are printed."""


def read_labels(
    catalog: Catalog, features_uri: str, version: int | None = None, *, merge_tag_case: Iterable[str] | None = None
) -> Labels:
    """Return the tags of the catalog's tracks that have features, by split.

    The splits are read from the splits table of the features table; groups that it lacks are assigned and added to it.

    Args:
        catalog: the catalog, with the columns `splits.LABEL_COLUMNS`.
        features_uri: the features table.
        version: read the features table as it was at this version; None means now.
        merge_tag_case: merge tags that differ by case alone, to the spelling of these tags or else to the most
            frequent one; None means to leave them as they are.
    """
    features = scan_for_labels(features_uri, version)
    splits_uri = tables.companion_uri(features_uri, "splits")
    return tags_by_split(catalog.tracks, features, splits_uri, merge_tag_case=merge_tag_case)


def tag_counts_csv(labels: Labels, vocabulary: Sequence[str]) -> str:
    """Return a CSV text with the number of tracks of each tag of the vocabulary in each split."""
    counts = {
        split: Counter(normalized_tag(tag) for tags in labels.tags[split].values() for tag in tags) for split in SPLITS
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tag", *SPLITS])
    writer.writerows([tag, *(counts[split][normalized_tag(tag)] for split in SPLITS)] for tag in vocabulary)
    return text.getvalue()


def echo_problems(catalog: Catalog, *, merge_tag_case: bool) -> None:
    """Print the first catalog rows that cannot be used, and the tags that differ by case alone."""
    for problem in iter_problems(catalog.problems.slice(0, N_SHOWN)):
        echo(f"{catalog.uri}, {problem}")
    if (n_more := catalog.problems.num_rows - N_SHOWN) > 0:
        echo(f"{catalog.uri}: and {counted(n_more, 'more row')} that cannot be used")
    tags = catalog.tracks["tags"].filter(is_tagged(catalog.tracks))
    for counts in case_variants(tags.to_pylist()):
        spellings = ", ".join(f"{tag} ({counted(n, 'track')})" for tag, n in counts.items())
        end = "learned as one" if merge_tag_case else "learned as several tags; --merge-tag-case makes them one"
        echo(f"{catalog.uri}, tags that differ by case alone: {spellings}: {end}")
