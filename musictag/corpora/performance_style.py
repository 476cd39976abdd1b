"""Choose how a song is played: tempo, swing, articulation, instruments, accompaniment, drums, register, reverb.

The probabilities depend on the genre of the tune. No single choice is certain for a genre, so a listener or a model
must combine several to recognize it. Mountain songs (`shange`) tend to be slow, high, legato and reverberant; ditties
(`xiaodiao`) fast, dry, plucked and staccato; work songs (`haozi`) low, with drums on the beat and a second voice that
doubles the melody. These tendencies follow the uses of the genres; the numbers are our own. Swing, musical keys, drum
kits, the MIDI program within an instrument and the simulated recording do not depend on the genre.
"""

import dataclasses

import numpy as np

from musictag.corpora.essen import Tune
from musictag.corpora.melody import beats_per_bar

MELODY_PROGRAMS = {
    "piano": (0, 1, 2, 3),  # grand, bright, electric grand, honky-tonk
    "flute": (72, 73, 74, 75, 77),  # piccolo, flute, recorder, pan flute, shakuhachi
    "strings": (40, 41, 42, 48, 49, 110),  # violin, viola, cello, two ensembles, fiddle
    "plucked": (24, 25, 46, 104, 105, 106, 107),  # two guitars, harp, sitar, banjo, shamisen, koto
    "brass": (56, 57, 59, 60, 61),  # trumpet, trombone, muted trumpet, horn, section
}
"""General MIDI programs (from 0) that play the melody, by instrument."""
STRUCK_PROGRAMS = {
    "piano": MELODY_PROGRAMS["piano"],
    "plucked": (24, 25, 46, 107),
    "mallets": (8, 11, 12, 13),  # celesta, vibraphone, marimba, xylophone
}
"""Programs for accompaniments whose notes decay by themselves, by instrument."""
HELD_PROGRAMS = {"strings": (48, 49, 50, 51), "organ": (16, 19, 20, 21)}
"""Programs for accompaniments whose notes are held, by instrument."""
ACCOMPANIMENTS = ("none", "drone", "pad", "broken", "bass and chords", "comping")
"""See the table in `musictag.corpora.accompaniment`."""
DRUM_PATTERNS = ("none", "house", "disco", "rock", "folk")
"""Drum patterns in duple metre. In triple metre, `waltz` replaces `house`, `disco` and `rock`."""
_HELD_ACCOMPANIMENTS = ("drone", "pad")
_SWING_PROBABILITY = 0.25


@dataclasses.dataclass(frozen=True)
class PerformanceStyle:
    """How one song is played. Its tags depend on this, on the tune and on the arranged notes."""

    tempo: float
    """Quarter notes per minute, before drift."""
    swing: float
    """Position of the second half of a beat, as a fraction of the beat: 0.5 is straight."""
    staccato: float
    """Articulation from 0 (legato) to 1 (staccato)."""
    lead: str
    """Instrument of the melody: a key of `MELODY_PROGRAMS`."""
    doubling: str
    """Instrument that doubles the melody: a key of `MELODY_PROGRAMS`, or empty."""
    accompaniment: str
    """One of `ACCOMPANIMENTS`."""
    chords: str
    """Instrument of the accompaniment: a key of `STRUCK_PROGRAMS` or `HELD_PROGRAMS`, or empty."""
    drum_pattern: str
    """One of `DRUM_PATTERNS`, or `waltz`."""
    register: float
    """MIDI note number around which the melody lies."""
    reverb: float
    """Fraction of reverberated sound in the mix, 0-1."""


@dataclasses.dataclass(frozen=True)
class _GenreStyle:
    """Ranges and probabilities for a genre.

    Probabilities are in the order of `MELODY_PROGRAMS`, `ACCOMPANIMENTS` and `DRUM_PATTERNS`.
    """

    tempo: tuple[float, float]
    register: tuple[float, float]
    staccato: tuple[float, float]
    reverb: tuple[float, float]
    doubling_probability: float
    lead: tuple[float, ...]
    accompaniment: tuple[float, ...]
    drum_pattern: tuple[float, ...]


_GENRE_STYLES = {
    "shange": _GenreStyle(
        tempo=(56, 112),
        register=(58, 82),
        staccato=(0.0, 0.5),
        reverb=(0.3, 0.55),
        doubling_probability=0.08,
        lead=(0.06, 0.36, 0.28, 0.08, 0.22),
        accompaniment=(0.16, 0.2, 0.3, 0.14, 0.1, 0.1),
        drum_pattern=(0.74, 0.05, 0.05, 0.06, 0.1),
    ),
    "xiaodiao": _GenreStyle(
        tempo=(76, 164),
        register=(51, 79),
        staccato=(0.1, 1.0),
        reverb=(0.0, 0.16),
        doubling_probability=0.12,
        lead=(0.26, 0.17, 0.15, 0.28, 0.14),
        accompaniment=(0.06, 0.04, 0.13, 0.3, 0.26, 0.21),
        drum_pattern=(0.46, 0.12, 0.12, 0.22, 0.08),
    ),
    "haozi": _GenreStyle(
        tempo=(84, 132),
        register=(46, 64),
        staccato=(0.3, 0.9),
        reverb=(0.14, 0.32),
        doubling_probability=0.8,
        lead=(0.08, 0.05, 0.2, 0.12, 0.55),
        accompaniment=(0.14, 0.12, 0.06, 0.13, 0.38, 0.17),
        drum_pattern=(0.08, 0.3, 0.12, 0.05, 0.45),
    ),
}
_OTHER_GENRE_STYLE = _GenreStyle(
    tempo=(60, 156),
    register=(50, 80),
    staccato=(0.0, 1.0),
    reverb=(0.05, 0.4),
    doubling_probability=0.25,
    lead=(0.2, 0.2, 0.2, 0.2, 0.2),
    accompaniment=(0.1, 0.1, 0.2, 0.2, 0.22, 0.18),
    drum_pattern=(0.4, 0.15, 0.15, 0.15, 0.15),
)


def sample_style(tune: Tune, rng: np.random.Generator) -> PerformanceStyle:
    """Return a random style for `tune`, by the probabilities of its genre."""
    genre = _GENRE_STYLES.get(tune.genre, _OTHER_GENRE_STYLE)
    accompaniment = str(rng.choice(ACCOMPANIMENTS, p=genre.accompaniment))
    drum_pattern = str(rng.choice(DRUM_PATTERNS, p=genre.drum_pattern))
    if drum_pattern in ("house", "disco", "rock") and beats_per_bar(tune) == 3:
        drum_pattern = "waltz"
    chord_programs = HELD_PROGRAMS if accompaniment in _HELD_ACCOMPANIMENTS else STRUCK_PROGRAMS
    # The order of the draws from `rng`, here and above, must not change: another order makes other songs.
    return PerformanceStyle(
        tempo=float(np.exp(rng.uniform(*np.log(genre.tempo)))),
        swing=rng.uniform(0.64, 0.7) if rng.random() < _SWING_PROBABILITY else 0.5,
        staccato=rng.uniform(*genre.staccato),
        lead=str(rng.choice(list(MELODY_PROGRAMS), p=genre.lead)),
        doubling=str(rng.choice(list(MELODY_PROGRAMS), p=genre.lead))
        if rng.random() < genre.doubling_probability
        else "",
        accompaniment=accompaniment,
        chords="" if accompaniment == "none" else str(rng.choice(list(chord_programs))),
        drum_pattern=drum_pattern,
        register=rng.uniform(*genre.register),
        reverb=rng.uniform(*genre.reverb),
    )
