"""The drums of the experiment's songs: patterns with variants and fills that differ from song to song.

====================  ============================================================================================
`house`               kick on every beat
`disco`               kick on every beat, snare or clap on the second
`rock`                kick on the first beat, in half of the songs also before it; snare or clap on the second
`waltz`               in triple metre: kick on the first beat, snare, side stick or hat on the others
`folk`                a deep drum on the first beat, wood, bell or high drum on the others: no kick, no snare
====================  ============================================================================================
"""

import itertools

import numpy as np

from musictag.corpora.accompaniment import Part, Stroke
from musictag.corpora.arrangement import DRUM_CHANNEL

KITS = (0, 8, 16, 24, 25, 32, 40)
"""General MIDI programs of drum kits: standard, room, power, electronic, TR-808, jazz, brush."""
KICKS = (35, 36)
SNARES = (38, 40, 39)
"""Two snares and the hand clap."""
_SOFT_BEATS = (38, 37, 42)  # snare, side stick, closed hat
_TIMEKEEPERS = (42, 44, 46, 51, 54, 70, 82)  # hats, ride, tambourine, maracas, shaker
_DEEP = (41, 43, 45, 64)  # toms, low conga
_WOODEN = (76, 77, 75, 56, 60, 62)  # wood blocks, claves, cowbell, bongo, conga
_FILLS = ((38, 38, 38, 38), (48, 47, 45, 43), (38, 48, 45, 41))
_STROKE_BEATS = 0.25  # drums ring as they like


def drum(pattern: str, rng: np.random.Generator, *, beats: int) -> Part:
    """The drums in bars of `beats` beats, with a fill on the last beat of every 4th, 8th or 16th bar."""
    plain = _folk_bar(rng, beats) if pattern == "folk" else _kit_bar(pattern, rng, beats)
    fill_every = int(rng.choice([4, 8, 16]))
    fill = rng.choice(_DEEP, size=4).tolist() if pattern == "folk" else _FILLS[rng.integers(len(_FILLS))]
    filled = plain + [_stroke(beats - 1 + part / 4, key, 3 * part - 6) for part, key in enumerate(fill)]
    return lambda bar: filled if bar % fill_every == fill_every - 1 else plain


def _kit_bar(pattern: str, rng: np.random.Generator, beats: int) -> list[Stroke]:
    """A bar of a pattern that kick, snare and something that keeps time play."""
    kick, snare, soft = (int(rng.choice(keys)) for keys in (KICKS, SNARES, _SOFT_BEATS))
    strokes = [_stroke(0, kick, 12)]
    if pattern in ("house", "disco"):
        strokes += [_stroke(beat, kick, 8) for beat in range(1, beats)]
    if pattern in ("disco", "rock"):
        strokes.append(_stroke(1, snare, 10))
    if pattern == "rock" and rng.random() < 0.5:
        strokes.append(_stroke(beats - 0.5, kick, -2))
    if pattern == "waltz":
        strokes += [_stroke(beat, soft, -4) for beat in range(1, beats)]
    return strokes + _time(rng, beats)


def _folk_bar(rng: np.random.Generator, beats: int) -> list[Stroke]:
    """A bar of drums and wood, as processions and work have them."""
    deep, wooden = int(rng.choice(_DEEP)), int(rng.choice(_WOODEN))
    strokes = [_stroke(0, deep, 14), *(_stroke(beat, wooden, 0) for beat in range(1, beats))]
    if rng.random() < 0.4:
        strokes.append(_stroke(beats - 0.5, wooden, -10))
    if rng.random() < 0.3:
        strokes.append(_stroke(0.5, deep, -8))
    return strokes


def _time(rng: np.random.Generator, beats: int) -> list[Stroke]:
    """Strokes that keep time: not at all, on the beats, between them, both, or four a beat."""
    key = int(rng.choice(_TIMEKEEPERS))
    kinds: tuple[tuple[float, ...], ...] = ((), (0,), (0.5,), (0, 0.5), (0, 0.25, 0.5, 0.75))
    places = kinds[rng.choice(len(kinds), p=[0.1, 0.15, 0.25, 0.35, 0.15])]
    return [_stroke(beat + place, key, -10) for beat, place in itertools.product(range(beats), places)]


def _stroke(beat: float, key: int, accent: int) -> Stroke:
    return Stroke(beat, _STROKE_BEATS, DRUM_CHANNEL, key, accent)
