"""How a song of the experiment is played, before any of its notes: drawn with odds that lean on the genre of the tune.

Each genre has several leanings, none of them certain, so that it can be heard only from all of them together: mountain
songs (`shange`) are slow, high, legato and far off; ditties (`xiaodiao`) quick, dry, plucked and detached; work songs
(`haozi`) low, with drums on the beat and a crew that doubles the leader. They follow what the genres are sung for; the
figures are ours. What no genre leans on (swing, keys, kits, programs, recording) is drawn alike for all.
"""

import dataclasses

import numpy as np

from musictag.corpora.arrangement import beats_per_bar
from musictag.corpora.essen import Tune

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
"""Programs that accompany with notes that ring out."""
HELD_PROGRAMS = {"strings": (48, 49, 50, 51), "organ": (16, 19, 20, 21)}
"""Programs that accompany with notes that are held."""
STYLES = ("none", "drone", "pad", "broken", "bass and chords", "comping")
"""Accompaniments; `drone` and `pad` are held, the later ones ring out."""
DRUMS = ("none", "house", "disco", "rock", "folk")
"""Drum patterns in duple metre; in triple metre house, disco and rock become `waltz`."""
_HELD = ("drone", "pad")


@dataclasses.dataclass(frozen=True)
class Manner:
    """How one song is played: with the tune, all that its tags depend on but the notes themselves."""

    tempo: float
    """Quarter notes a minute, before drift."""
    swing: float
    """Where the second half of a beat begins, as a share of it: 0.5 is straight."""
    detached: float
    """Articulation from 0, legato, to 1, staccato."""
    lead: str
    """Instrument of the melody, of `MELODY_PROGRAMS`."""
    second: str
    """Instrument that doubles the melody, or empty."""
    style: str
    """Accompaniment, of `STYLES`."""
    chords: str
    """Instrument of the accompaniment, of `STRUCK_PROGRAMS` or `HELD_PROGRAMS`; empty where there is none."""
    drums: str
    """Of `DRUMS`, or `waltz`."""
    centre: float
    """Note number near which the melody lies."""
    reverb: float
    """Share of the reverberated sound, 0-1."""


@dataclasses.dataclass(frozen=True)
class _Leaning:
    """Ranges and odds of a genre; odds in the order of the table that they choose from."""

    tempo: tuple[float, float]
    centre: tuple[float, float]
    detached: tuple[float, float]
    reverb: tuple[float, float]
    second: float
    lead: tuple[float, ...]
    style: tuple[float, ...]
    drums: tuple[float, ...]


_LEANINGS = {
    "shange": _Leaning(
        tempo=(56, 112),
        centre=(58, 82),
        detached=(0.0, 0.5),
        reverb=(0.3, 0.55),
        second=0.08,
        lead=(0.06, 0.36, 0.28, 0.08, 0.22),
        style=(0.16, 0.2, 0.3, 0.14, 0.1, 0.1),
        drums=(0.74, 0.05, 0.05, 0.06, 0.1),
    ),
    "xiaodiao": _Leaning(
        tempo=(76, 164),
        centre=(51, 79),
        detached=(0.1, 1.0),
        reverb=(0.0, 0.16),
        second=0.12,
        lead=(0.26, 0.17, 0.15, 0.28, 0.14),
        style=(0.06, 0.04, 0.13, 0.3, 0.26, 0.21),
        drums=(0.46, 0.12, 0.12, 0.22, 0.08),
    ),
    "haozi": _Leaning(
        tempo=(84, 132),
        centre=(46, 64),
        detached=(0.3, 0.9),
        reverb=(0.14, 0.32),
        second=0.8,
        lead=(0.08, 0.05, 0.2, 0.12, 0.55),
        style=(0.14, 0.12, 0.06, 0.13, 0.38, 0.17),
        drums=(0.08, 0.3, 0.12, 0.05, 0.45),
    ),
}
_ANY_LEANING = _Leaning(
    tempo=(60, 156),
    centre=(50, 80),
    detached=(0.0, 1.0),
    reverb=(0.05, 0.4),
    second=0.25,
    lead=(0.2, 0.2, 0.2, 0.2, 0.2),
    style=(0.1, 0.1, 0.2, 0.2, 0.22, 0.18),
    drums=(0.4, 0.15, 0.15, 0.15, 0.15),
)
_SWUNG = 0.25


def draw_manner(tune: Tune, rng: np.random.Generator) -> Manner:
    """A manner for `tune`; all chance comes from `rng`."""
    leaning = _LEANINGS.get(tune.genre, _ANY_LEANING)
    style = str(rng.choice(STYLES, p=leaning.style))
    drums = str(rng.choice(DRUMS, p=leaning.drums))
    if drums in ("house", "disco", "rock") and beats_per_bar(tune) == 3:
        drums = "waltz"
    return Manner(
        tempo=float(np.exp(rng.uniform(*np.log(leaning.tempo)))),
        swing=rng.uniform(0.64, 0.7) if rng.random() < _SWUNG else 0.5,
        detached=rng.uniform(*leaning.detached),
        lead=str(rng.choice(list(MELODY_PROGRAMS), p=leaning.lead)),
        second=str(rng.choice(list(MELODY_PROGRAMS), p=leaning.lead)) if rng.random() < leaning.second else "",
        style=style,
        chords="" if style == "none" else str(rng.choice(list(HELD_PROGRAMS if style in _HELD else STRUCK_PROGRAMS))),
        drums=drums,
        centre=rng.uniform(*leaning.centre),
        reverb=rng.uniform(*leaning.reverb),
    )
