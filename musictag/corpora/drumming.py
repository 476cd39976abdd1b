"""Make drum parts: patterns whose details and fills differ from song to song.

====================  ============================================================================================
`house`               kick on every beat
`disco`               kick on every beat, snare or clap on the second
`rock`                kick on the first beat, in half of the songs also before it; snare or clap on the second
`waltz`               in triple metre: kick on the first beat; snare, side stick or hat on the others
`folk`                a low drum on the first beat; wood, bell or high drum on the others; no kick, no snare
====================  ============================================================================================
"""

import itertools

import numpy as np

from musictag.corpora.accompaniment import BarNote, InstrumentPart
from musictag.corpora.arrangement import DRUM_CHANNEL

KITS = (0, 8, 16, 24, 25, 32, 40)
"""General MIDI programs of drum kits: standard, room, power, electronic, TR-808, jazz, brush."""
KICKS = (35, 36)
SNARES = (38, 40, 39)
"""Two snares and the hand clap."""
_WALTZ_OFFBEATS = (38, 37, 42)  # snare, side stick, closed hat
_TIMEKEEPERS = (42, 44, 46, 51, 54, 70, 82)  # hats, ride, tambourine, maracas, shaker
_LOW_DRUMS = (41, 43, 45, 64)  # toms, low conga
_WOODEN = (76, 77, 75, 56, 60, 62)  # wood blocks, claves, cowbell, bongo, conga
_FILLS = ((38, 38, 38, 38), (48, 47, 45, 43), (38, 48, 45, 41))
_LENGTH_BEATS = 0.25  # has no effect on the sound: the soundfont's drums ring out


def make_drums(pattern: str, rng: np.random.Generator, *, beats: int) -> InstrumentPart:
    """Return drums for bars of `beats` beats, with a fill on the last beat of every 4th, 8th or 16th bar."""
    plain = _folk_bar(rng, beats) if pattern == "folk" else _kit_bar(pattern, rng, beats)
    fill_every = int(rng.choice([4, 8, 16]))
    fill = rng.choice(_LOW_DRUMS, size=4).tolist() if pattern == "folk" else _FILLS[rng.integers(len(_FILLS))]
    filled = plain + [_hit(beats - 1 + part / 4, key, 3 * part - 6) for part, key in enumerate(fill)]
    return lambda bar: filled if bar % fill_every == fill_every - 1 else plain


def _kit_bar(pattern: str, rng: np.random.Generator, beats: int) -> list[BarNote]:
    kick, snare, offbeat = (int(rng.choice(keys)) for keys in (KICKS, SNARES, _WALTZ_OFFBEATS))
    hits = [_hit(0, kick, 12)]
    if pattern in ("house", "disco"):
        hits += [_hit(beat, kick, 8) for beat in range(1, beats)]
    if pattern in ("disco", "rock"):
        hits.append(_hit(1, snare, 10))
    if pattern == "rock" and rng.random() < 0.5:
        hits.append(_hit(beats - 0.5, kick, -2))
    if pattern == "waltz":
        hits += [_hit(beat, offbeat, -4) for beat in range(1, beats)]
    return hits + _timekeeping(rng, beats)


def _folk_bar(rng: np.random.Generator, beats: int) -> list[BarNote]:
    low, wooden = int(rng.choice(_LOW_DRUMS)), int(rng.choice(_WOODEN))
    hits = [_hit(0, low, 14), *(_hit(beat, wooden, 0) for beat in range(1, beats))]
    if rng.random() < 0.4:
        hits.append(_hit(beats - 0.5, wooden, -10))
    if rng.random() < 0.3:
        hits.append(_hit(0.5, low, -8))
    return hits


def _timekeeping(rng: np.random.Generator, beats: int) -> list[BarNote]:
    """Return hits of a hat or a similar instrument: none, on the beats, between them, both, or four in a beat."""
    key = int(rng.choice(_TIMEKEEPERS))
    choices: tuple[tuple[float, ...], ...] = ((), (0,), (0.5,), (0, 0.5), (0, 0.25, 0.5, 0.75))
    positions = choices[rng.choice(len(choices), p=[0.1, 0.15, 0.25, 0.35, 0.15])]
    return [_hit(beat + position, key, -10) for beat, position in itertools.product(range(beats), positions)]


def _hit(beat: float, key: int, accent: int) -> BarNote:
    return BarNote(beat, _LENGTH_BEATS, DRUM_CHANNEL, key, accent)
