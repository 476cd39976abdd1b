"""The vocabulary: which tags a model knows, in which order, and tag lists as a table of true and false.

A vocabulary is a tuple of unique tags sorted by code point, so that it depends on the tags alone, never on the order in
which a catalog happens to list its tracks.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from musictag.errors import VocabularyError

TagsBySplit = Mapping[str, Mapping[str, Iterable[str]]]
"""The tags of each track, by split and track id."""


def make_vocabulary(tag_lists: Iterable[Iterable[str]], only: Sequence[str] | None = None) -> tuple[str, ...]:
    """The tags of a catalog, or the chosen ones among them, sorted by code point.

    Args:
        tag_lists: the tags of each track to learn from.
        only: the tags to learn; None takes every tag that occurs.

    Raises:
        VocabularyError: a chosen tag is on no track (the text offers the closest that are), or no tag is left.
    """
    found = {tag for tags in tag_lists for tag in tags}
    wanted = found if only is None else set(only)
    if missing := sorted(wanted - found):
        raise VocabularyError(f"no track to learn from has the tag {'; '.join(_hint(tag, found) for tag in missing)}")
    if not wanted:
        cause = (
            "no track to learn from has a tag: fill the catalog's column `tags`" if only is None else "no tag is chosen"
        )
        raise VocabularyError(f"{cause}; a vocabulary needs at least one tag")
    return tuple(sorted(wanted))


def encode(tag_lists: Sequence[Iterable[str]], vocabulary: Sequence[str]) -> NDArray[np.bool_]:
    """Targets (N, K), bool: which of the K tags each of the N tracks has.

    A tag outside the vocabulary is left aside; `unknown_tags` tells which those are.
    """
    column = {tag: k for k, tag in enumerate(vocabulary)}
    targets = np.zeros((len(tag_lists), len(vocabulary)), dtype=np.bool_)
    for n, tags in enumerate(tag_lists):
        for tag in tags:
            if tag in column:
                targets[n, column[tag]] = True
    return targets


def targets_by_track(tags: Mapping[str, Iterable[str]], vocabulary: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Targets (K,) of each track, from its tags by its id."""
    return dict(zip(tags, encode(list(tags.values()), vocabulary), strict=True))


def unknown_tags(tag_lists: Iterable[Iterable[str]], vocabulary: Sequence[str]) -> dict[str, int]:
    """Number of tracks of each tag that the vocabulary lacks, the most frequent first."""
    known = set(vocabulary)
    tracks = Counter(tag for tags in tag_lists for tag in set(tags) - known)
    return dict(sorted(tracks.items(), key=lambda item: (-item[1], item[0])))


def coverage_warnings(vocabulary: Sequence[str], folds: Sequence[TagsBySplit], tags: TagsBySplit) -> list[str]:
    """What a model cannot learn of the catalog's tags, in sentences with their names; none if all is well.

    Args:
        vocabulary: the tags that the model learns.
        folds: what it learns from, and what is held back to fit thresholds on (see `musictag.catalog.splits.folds`).
        tags: all tracks with features, in the splits `train`, `validation` and `test`.
    """
    of_folds = [_tags_found(fold) for fold in folds]
    learned, held_back = (set[str]().union(*(fold[split] for fold in of_folds)) for split in ("train", "validation"))
    sentences = []
    if unlearned := sorted(set[str]().union(*_tags_found(tags).values()) - learned):
        sentences.append(f"not learned, since no train track has them: {', '.join(unlearned)}")
    if never := sorted(set(vocabulary) - held_back):
        sentences.append(f"never given, since no validation track has them to fit a threshold on: {', '.join(never)}")
    for number, fold in enumerate(of_folds, start=1):
        if missing := sorted(set(vocabulary) - fold["train"]):
            sentences.append(f"not learned in fold {number}, which holds back all their tracks: {', '.join(missing)}")
    return sentences


def _tags_found(tags: TagsBySplit) -> dict[str, set[str]]:
    return {split: {tag for of_track in tracks.values() for tag in of_track} for split, tracks in tags.items()}


def by_tag(values: Mapping[str, float], vocabulary: Sequence[str]) -> NDArray[np.float64]:
    """Values of some tags as (K,), NaN for the others. Raises `VocabularyError` for a tag that is not one of them."""
    if missing := sorted(set(values) - set(vocabulary)):
        hints = "; ".join(_hint(tag, set(vocabulary)) for tag in missing)
        raise VocabularyError(f"the vocabulary has no tag {hints}")
    return np.array([values.get(tag, np.nan) for tag in vocabulary], dtype=np.float64)


def _hint(tag: str, found: set[str]) -> str:
    close = difflib.get_close_matches(tag, sorted(found))
    return f"{tag!r} (close: {', '.join(map(repr, close))})" if close else repr(tag)
