"""Which tunes of a collection are one melody: the same one printed twice, or variants of it sung elsewhere."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from musictag.corpora.essen import Tune

RUN_STEPS = 9
SHARED_RUNS, SHARED_SHARE = 7, 0.4
"""Tunes are variants if they have this many runs of `RUN_STEPS` melodic steps in common, or this share of those of the
shorter one. Stricter figures chain tunes that have no more in common than the phrases of all."""


def distinct_tunes(tunes: Iterable[Tune]) -> list[Tune]:
    """Leave out what is not a tune of its own: an id or a title seen before, or the same opening in any key."""
    seen: set[object] = set()
    distinct = []
    for tune in tunes:
        first = next(pitch for pitch, _ in tune.notes if pitch is not None)
        opening = tuple((None if pitch is None else pitch - first, length) for pitch, length in tune.notes[:16])
        marks = {opening, ("id", tune.tune_id), ("title", tune.title)}
        if not marks & seen:
            distinct.append(tune)
        seen |= marks
    return distinct


def melody_families(tunes: Sequence[Tune]) -> list[int]:
    """For each tune the place, in `tunes`, of the first tune of its family; a tune without variants is its own.

    Variants are one family, in any key and rhythm; so are two tunes that a third one links.
    """
    runs = [_runs(tune) for tune in tunes]
    places_of: dict[tuple[int, ...], list[int]] = {}
    shared: Counter[tuple[int, int]] = Counter()
    for place, its_runs in enumerate(runs):
        for run in its_runs:
            earlier = places_of.setdefault(run, [])
            shared.update((other, place) for other in earlier)
            earlier.append(place)
    head = list(range(len(tunes)))

    def first_of(place: int) -> int:
        while head[place] != place:
            place = head[place]
        return place

    for (one, other), n_shared in shared.items():
        if n_shared >= min(SHARED_RUNS, SHARED_SHARE * min(len(runs[one]), len(runs[other]))):
            heads = first_of(one), first_of(other)
            head[max(heads)] = min(heads)
    return [first_of(place) for place in range(len(tunes))]


def _runs(tune: Tune) -> set[tuple[int, ...]]:
    """Every run of `RUN_STEPS` steps (semitones up or down) of a tune; a note struck again is no step.

    Repeated notes follow the words' syllables, which are what verses and variants change first.
    """
    pitches = [pitch for pitch, _ in tune.notes if pitch is not None]
    steps = [after - before for before, after in itertools.pairwise(pitches) if after != before]
    return {tuple(steps[start : start + RUN_STEPS]) for start in range(len(steps) - RUN_STEPS + 1)}
