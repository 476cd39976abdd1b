"""Build the vocabulary of a model and encode tags as multi-hot targets.

A vocabulary is a tuple of unique tags, sorted by code point, so that it does not depend on the order of the tracks in a
catalog.
"""

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from musictag.errors import VocabularyError

TagsBySplit = Mapping[str, Mapping[str, Iterable[str]]]
"""The tags of each track, by split and track id."""


def normalized_tag(tag: str) -> str:
    """Return a tag in Unicode form NFC, trimmed, with single spaces between its words."""
    return " ".join(unicodedata.normalize("NFC", tag).split())


def case_variants(tag_lists: Iterable[Iterable[str]]) -> list[dict[str, int]]:
    """Return the tags that differ by case alone: the number of tracks of each spelling, most frequent first."""
    variants: dict[str, Counter[str]] = defaultdict(Counter)
    for tags in tag_lists:
        for tag in tags:
            variants[tag.casefold()][tag] += 1
    return [
        dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        for _, counts in sorted(variants.items())
        if len(counts) > 1
    ]


def merge_case(tag_lists: Sequence[Iterable[str]], vocabulary: Iterable[str] = ()) -> list[list[str]]:
    """Return the tag lists with one spelling of the tags that differ by case alone.

    It is the spelling in `vocabulary`, the tags that a model knows, or else the most frequent one.
    """
    spelling = {tag: next(iter(counts)) for counts in case_variants(tag_lists) for tag in counts}
    known = {tag.casefold(): tag for tag in vocabulary}
    return [sorted({known.get(tag.casefold(), spelling.get(tag, tag)) for tag in tags}) for tags in tag_lists]


def make_vocabulary(tag_lists: Iterable[Iterable[str]], only: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the tags of a catalog, or the tags `only`, sorted by code point.

    Args:
        tag_lists: the tags of each training track.
        only: the tags to learn; None means every tag that occurs.

    Raises:
        VocabularyError: a tag in `only` occurs on no track (the message suggests similar tags), or there is no tag.
    """
    found = {tag for tags in tag_lists for tag in tags}
    chosen = found if only is None else set(map(normalized_tag, only))
    if missing := sorted(chosen - found):
        hints = "; ".join(_with_similar(tag, found) for tag in missing)
        raise VocabularyError(f"no training track has the tag {hints}")
    if not chosen:
        reason = "no training track has a tag: fill the catalog's column `tags`" if only is None else "no tag is chosen"
        raise VocabularyError(f"{reason}; a vocabulary needs at least one tag")
    return tuple(sorted(chosen))


def encode(tag_lists: Sequence[Iterable[str]], vocabulary: Sequence[str]) -> NDArray[np.bool_]:
    """Return targets (N, K), bool: which of the K tags each of the N tracks has.

    Tags outside the vocabulary are ignored; `unknown_tags` counts them.
    """
    column = {normalized_tag(tag): k for k, tag in enumerate(vocabulary)}  # old models may know other forms
    targets = np.zeros((len(tag_lists), len(vocabulary)), dtype=np.bool_)
    for n, tags in enumerate(tag_lists):
        for tag in tags:
            if tag in column:
                targets[n, column[tag]] = True
    return targets


def targets_by_track(tags: Mapping[str, Iterable[str]], vocabulary: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Return the targets (K,) of each track, by track id."""
    return dict(zip(tags, encode(list(tags.values()), vocabulary), strict=True))


def unknown_tags(tag_lists: Iterable[Iterable[str]], vocabulary: Sequence[str]) -> dict[str, int]:
    """Return the number of tracks with each tag that is not in the vocabulary, most frequent first."""
    known = set(map(normalized_tag, vocabulary))
    n_tracks = Counter(tag for tags in tag_lists for tag in set(tags) - known)
    return dict(sorted(n_tracks.items(), key=lambda item: (-item[1], item[0])))


def coverage_warnings(vocabulary: Sequence[str], folds: Sequence[TagsBySplit], tags: TagsBySplit) -> list[str]:
    """Return a message for each group of tags that cannot be learned or predicted; an empty list if there is none.

    Args:
        vocabulary: the tags that the model learns.
        folds: train and validation tracks of each fold (see `musictag.catalog.splits.folds`).
        tags: all tracks with features, in the splits `train`, `validation` and `test`.
    """
    tags_by_fold = [_tag_sets(fold) for fold in folds]
    in_train = set[str]().union(*(fold["train"] for fold in tags_by_fold))
    in_validation = set[str]().union(*(fold["validation"] for fold in tags_by_fold))
    warnings = []
    if not_in_train := sorted(set[str]().union(*_tag_sets(tags).values()) - in_train):
        warnings.append(f"not learned, since no train track has them: {', '.join(not_in_train)}")
    if not_in_validation := sorted(set(vocabulary) - in_validation):
        warnings.append(
            f"never predicted, since no validation track has them to fit a threshold on: {', '.join(not_in_validation)}"
        )
    for number, fold in enumerate(tags_by_fold, start=1):
        if missing := sorted(set(vocabulary) - fold["train"]):
            warnings.append(f"not learned in fold {number}, which validates on all their tracks: {', '.join(missing)}")
    return warnings


def _tag_sets(tags: TagsBySplit) -> dict[str, set[str]]:
    """Return the set of tags that occur in each split."""
    return {split: {tag for track_tags in tracks.values() for tag in track_tags} for split, tracks in tags.items()}


def by_tag(values: Mapping[str, float], vocabulary: Sequence[str]) -> NDArray[np.float64]:
    """Return the values of some tags as (K,), with NaN for the other tags.

    Raises:
        VocabularyError: a tag is not in the vocabulary.
    """
    by_form = {normalized_tag(tag): value for tag, value in values.items()}
    known = list(map(normalized_tag, vocabulary))
    if missing := sorted(set(by_form) - set(known)):
        hints = "; ".join(_with_similar(tag, set(known)) for tag in missing)
        raise VocabularyError(f"the vocabulary has no tag {hints}")
    return np.array([by_form.get(tag, np.nan) for tag in known], dtype=np.float64)


def _with_similar(tag: str, known: set[str]) -> str:
    """Return the tag and similar known tags, for a message."""
    similar = difflib.get_close_matches(tag, sorted(known))
    return f"{tag!r} (close: {', '.join(map(repr, similar))})" if similar else repr(tag)
