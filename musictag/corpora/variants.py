"""Find tunes that are printed twice, and tunes that are variants of the same melody."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from musictag.corpora.essen import Tune

NGRAM_STEPS = 9
MIN_SHARED_NGRAMS, MIN_SHARED_FRACTION = 7, 0.4
"""Two tunes are variants if they share this many n-grams of `NGRAM_STEPS` melodic intervals, or this fraction of the
shorter tune's n-grams. Lower thresholds would join tunes that share only phrases common to all tunes."""


def deduplicate_tunes(tunes: Iterable[Tune]) -> list[Tune]:
    """Return the tunes without those that repeat an earlier id, title or opening (16 notes, in any key)."""
    seen: set[object] = set()
    distinct = []
    for tune in tunes:
        first = next(pitch for pitch, _ in tune.notes if pitch is not None)
        opening = tuple((None if pitch is None else pitch - first, length) for pitch, length in tune.notes[:16])
        keys = {opening, ("id", tune.tune_id), ("title", tune.title)}
        if not keys & seen:
            distinct.append(tune)
        seen |= keys
    return distinct


def group_variants(tunes: Sequence[Tune]) -> list[int]:
    """Return, for each tune, the index of the first tune of its group; a tune without variants is its own group.

    Key and rhythm do not matter. Groups are transitive: two tunes are in one group if a third is a variant of both.
    """
    ngrams = [_interval_ngrams(tune) for tune in tunes]
    tunes_with: dict[tuple[int, ...], list[int]] = {}
    n_shared: Counter[tuple[int, int]] = Counter()
    for index, its_ngrams in enumerate(ngrams):
        for ngram in its_ngrams:
            earlier = tunes_with.setdefault(ngram, [])
            n_shared.update((other, index) for other in earlier)
            earlier.append(index)
    # A union-find forest: the root of a tree is the first tune of its group.
    parent = list(range(len(tunes)))

    def find_root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for (one, other), n in n_shared.items():
        if n >= min(MIN_SHARED_NGRAMS, MIN_SHARED_FRACTION * min(len(ngrams[one]), len(ngrams[other]))):
            roots = find_root(one), find_root(other)
            parent[max(roots)] = min(roots)
    return [find_root(index) for index in range(len(tunes))]


def _interval_ngrams(tune: Tune) -> set[tuple[int, ...]]:
    """Return all n-grams of `NGRAM_STEPS` intervals in semitones; a repeated note is not an interval.

    Note repetitions depend on the syllables of the words, which change first between verses and variants.
    """
    pitches = [pitch for pitch, _ in tune.notes if pitch is not None]
    steps = [after - before for before, after in itertools.pairwise(pitches) if after != before]
    return {tuple(steps[start : start + NGRAM_STEPS]) for start in range(len(steps) - NGRAM_STEPS + 1)}
