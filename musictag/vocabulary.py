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


def make_vocabulary(tag_lists: Iterable[Iterable[str]], only: Sequence[str] | None = None) -> tuple[str, ...]:
    """The tags of a catalog, or the chosen ones among them, sorted by code point.

    Args:
        tag_lists: the tags of each track.
        only: the tags to learn; None takes every tag that occurs.

    Raises:
        VocabularyError: a chosen tag is on no track (the text offers the closest that are), or no tag is left.
    """
    found = {tag for tags in tag_lists for tag in tags}
    wanted = found if only is None else set(only)
    if missing := sorted(wanted - found):
        raise VocabularyError(f"no track of the catalog has the tag {'; '.join(_hint(tag, found) for tag in missing)}")
    if not wanted:
        cause = "no track of the catalog has a tag: fill its column `tags`" if only is None else "no tag is chosen"
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


def by_tag(values: Mapping[str, float], vocabulary: Sequence[str]) -> NDArray[np.float64]:
    """Values of some tags as (K,), NaN for the others. Raises `VocabularyError` for a tag that is not one of them."""
    if missing := sorted(set(values) - set(vocabulary)):
        hints = "; ".join(_hint(tag, set(vocabulary)) for tag in missing)
        raise VocabularyError(f"the vocabulary has no tag {hints}")
    return np.array([values.get(tag, np.nan) for tag in vocabulary], dtype=np.float64)


def _hint(tag: str, found: set[str]) -> str:
    close = difflib.get_close_matches(tag, sorted(found))
    return f"{tag!r} (close: {', '.join(map(repr, close))})" if close else repr(tag)
