"""From a folk tune to a small band playing it, and to the tags that are known of the result.

The tags, with their rules. Everything about time is measured on what sounds within the song's length.

====================  ==================================================================================
`slow`, `fast`        tempo below 85, or at least 120, quarter notes a minute; between the two, neither
`triple`              the tune is written in 3/4 or 3/8
`major`, `minor`      the third above the tune's last note is major or minor: of the two, the one that
                      sounds longer in the tune; where neither does, neither
`piano` ... `organ`   the instrument that plays the melody, see `LEADS`
`drums`               there are drums
`sparse`, `dense`     fewer than 4, or at least 9, note onsets a second in the whole mix, drums included
`low`, `high`         mean note number of the melody's notes below 57, or at least 72
genre                 as the collection gives it: `shange` (mountain song), `xiaodiao` (ditty), `haozi`
                      (work song); other genres are too rare to be tags
====================  ==================================================================================

A band leans on the genre as singers of it do: mountain songs are slow and far off (reverberant), work songs have drums
on the beat and low voices with the leader, ditties are quick, dry and plucked. So genre can be heard, not for certain.
"""

import dataclasses
import math

import numpy as np

from musictag.corpora.essen import Tune
from musictag.corpora.melody import beats_per_bar, quarters_per_beat, sounding_notes, third

LEADS = {"piano": 0, "flute": 73, "strings": 48, "koto": 107, "trumpet": 56, "organ": 19}
"""General MIDI programs (from 0) that play the melody."""
GENRES = ("shange", "xiaodiao", "haozi")
DRUM_CHANNEL = 9
_MELODY, _VOICE, _CHORDS, _BASS = range(4)
_KICK, _SNARE, _HAT, _WOODBLOCK, _TOM = 36, 38, 42, 76, 45
# The keys (pitch class of do) that bands tune to: D and G, as most bamboo flutes do.
_BAND_KEYS = (2, 7)


@dataclasses.dataclass(frozen=True)
class Note:
    """A note of one instrument; `channel`, `key` and `velocity` are those of MIDI."""

    start_s: float
    end_s: float
    channel: int
    key: int
    velocity: int


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """A song that can be rendered: its notes and how they sound."""

    notes: tuple[Note, ...]
    programs: dict[int, int]
    """General MIDI program (from 0) of each channel but the drums'."""
    reverb: float
    """Fraction of reverberated sound in the mix, 0-1."""
    noise_db: float
    """Level of the noise floor relative to full scale."""
    peak: float
    """Largest sample after scaling, below 1."""
    tags: tuple[str, ...]
    drum_kit: int = 0
    """General MIDI program of the drums."""
    balance_db: dict[int, float] = dataclasses.field(default_factory=dict)
    """Level of every channel that has notes. If empty, levels follow from the velocities and the soundfont."""


@dataclasses.dataclass(frozen=True)
class _Manner:
    """How songs of a genre tend to be played: ranges and odds."""

    tempo: tuple[float, float]
    reverb: tuple[float, float]
    drums: float
    doubled: float
    lead_odds: tuple[float, ...]  # in the order of LEADS


_MANNERS = {
    "shange": _Manner((55, 115), (0.3, 0.5), 0.25, 0.1, (0.08, 0.32, 0.22, 0.08, 0.22, 0.08)),
    "xiaodiao": _Manner((80, 160), (0.0, 0.1), 0.4, 0.1, (0.27, 0.13, 0.13, 0.27, 0.07, 0.13)),
    "haozi": _Manner((75, 130), (0.1, 0.25), 0.85, 0.8, (0.1, 0.06, 0.14, 0.1, 0.35, 0.25)),
}
_ANY_MANNER = _Manner((60, 150), (0.05, 0.3), 0.5, 0.3, (1 / 6,) * 6)


def arrange(tune: Tune, rng: np.random.Generator, *, seconds: float) -> Arrangement:
    """A band's version of `tune`, repeated until `seconds` are full; all chance comes from `rng`."""
    manner = _MANNERS.get(tune.genre, _ANY_MANNER)
    tempo = rng.uniform(*manner.tempo)
    lead = str(rng.choice(list(LEADS), p=manner.lead_odds))
    shift = _transposition(tune, rng)
    beat_s = 60 / tempo
    melody = _melody(tune, rng, beat_s=beat_s, shift=shift, seconds=seconds)
    notes = [*melody]
    if rng.random() < manner.doubled:
        # Work song: the others double the leader an octave below.
        notes += [dataclasses.replace(note, channel=_VOICE, key=note.key - 12) for note in melody]
    notes += _accompaniment(tune, rng, beat_s=beat_s, shift=shift, seconds=seconds)
    if rng.random() < manner.drums:
        notes += _drums(tune, rng, beat_s=beat_s, seconds=seconds)
    notes.sort(key=lambda note: (note.start_s, note.channel, note.key))
    return Arrangement(
        notes=tuple(notes),
        programs={
            _MELODY: LEADS[lead],
            _VOICE: LEADS[lead],
            _CHORDS: int(rng.choice([24, 46, 4, 11])),  # nylon guitar, harp, electric piano, vibraphone
            _BASS: int(rng.choice([32, 33, 43])),  # acoustic bass, fingered bass, contrabass
        },
        reverb=rng.uniform(*manner.reverb),
        noise_db=rng.uniform(-75, -55),
        peak=rng.uniform(0.35, 0.85),
        tags=describe(tune, notes, tempo=tempo, lead=lead, seconds=seconds),
    )


def describe(tune: Tune, notes: list[Note], *, tempo: float, lead: str, seconds: float) -> tuple[str, ...]:
    """The tags of a song by the rules above, sorted."""
    melody = [note.key for note in notes if note.channel == _MELODY]
    onsets_per_s = len(notes) / seconds
    rules = {
        "slow": tempo < 85,
        "fast": tempo >= 120,
        "triple": beats_per_bar(tune) == 3,
        "major": third(tune) == 4,
        "minor": third(tune) == 3,
        lead: True,
        "drums": any(note.channel == DRUM_CHANNEL for note in notes),
        "sparse": onsets_per_s < 4,
        "dense": onsets_per_s >= 9,
        "low": np.mean(melody) < 57,
        "high": np.mean(melody) >= 72,
        tune.genre: tune.genre in GENRES,
    }
    return tuple(sorted(tag for tag, holds in rules.items() if holds))


def _transposition(tune: Tune, rng: np.random.Generator) -> int:
    """Semitones that bring the tune to a band's key, near a mean pitch drawn at random."""
    target = rng.uniform(50, 79)
    mean = sum(pitch * length for pitch, length in sounding_notes(tune)) / sum(
        length for _, length in sounding_notes(tune)
    )
    key_shift = int(rng.choice(_BAND_KEYS)) - tune.do
    return key_shift + 12 * round((target - mean - key_shift) / 12)


def _melody(tune: Tune, rng: np.random.Generator, *, beat_s: float, shift: int, seconds: float) -> list[Note]:
    notes: list[Note] = []
    loudness = rng.uniform(85, 110)
    legato = rng.uniform(0.7, 1.0)
    quarter = 0.0
    while quarter * beat_s < seconds:
        for pitch, length in tune.notes:
            start_s = max(0.0, quarter * beat_s + rng.normal(0, 0.008))
            quarter += length
            if pitch is not None and start_s < seconds:
                end_s = start_s + max(0.05, legato * length * beat_s)
                velocity = int(np.clip(rng.normal(loudness, 6), 40, 127))
                notes.append(Note(start_s, end_s, _MELODY, pitch + shift, velocity))
    return notes


def _accompaniment(tune: Tune, rng: np.random.Generator, *, beat_s: float, shift: int, seconds: float) -> list[Note]:
    """Nothing, a drone, broken chords, or bass notes with chords after them: all on the tune's last note."""
    style = str(rng.choice(["none", "drone", "broken chords", "bass and chords"], p=[0.2, 0.2, 0.3, 0.3]))
    root = 48 + (sounding_notes(tune)[-1][0] + shift) % 12
    chord = (root, root + (third(tune) or 7), root + 7)  # an open fifth where the tune has no third
    step_s = beat_s * quarters_per_beat(tune)
    bar = beats_per_bar(tune)
    loudness = int(rng.uniform(55, 85))
    notes: list[Note] = []
    for beat in range(math.ceil(seconds / step_s)):
        start_s, end_s = beat * step_s, (beat + 0.9) * step_s
        if style == "drone" and beat % (4 * bar) == 0:
            long_s = start_s + 4 * bar * step_s
            notes += [
                Note(start_s, long_s, _BASS, root - 12, loudness),
                Note(start_s, long_s, _CHORDS, root + 7, loudness),
            ]
        elif style == "broken chords":
            for half in range(2):
                key = chord[(2 * (beat % bar) + half) % 3] + (12 if half else 0)
                start = start_s + half * step_s / 2
                accent = 15 if beat % bar == half == 0 else 0
                notes.append(Note(start, start + step_s, _CHORDS, key, loudness + accent))
        elif style == "bass and chords" and beat % bar == 0:
            notes.append(Note(start_s, end_s, _BASS, root - 12, loudness + 30))
        elif style == "bass and chords":
            notes += [Note(start_s, end_s, _CHORDS, key, loudness) for key in sorted(set(chord))]
    return [note for note in notes if note.start_s < seconds]


def _drums(tune: Tune, rng: np.random.Generator, *, beat_s: float, seconds: float) -> list[Note]:
    """One of three patterns in the tune's metre, accented on the first beat of the bar."""
    patterns = (
        ((_KICK,), (_SNARE,), (_HAT,)),  # first beat, other beats, half beats
        ((_TOM,), (_WOODBLOCK,), ()),
        ((_KICK, _TOM), (_HAT,), (_HAT,)),
    )
    first, other, half = patterns[int(rng.integers(len(patterns)))]
    step_s = beat_s * quarters_per_beat(tune)
    loudness = int(rng.uniform(75, 105))
    notes: list[Note] = []
    for beat in range(math.ceil(seconds / step_s)):
        on_first = beat % beats_per_bar(tune) == 0
        strokes = [(0.0, key, loudness + 15 * on_first) for key in (first if on_first else other)]
        strokes += [(step_s / 2, key, loudness - 20) for key in half]
        for offset_s, key, velocity in strokes:
            start_s = max(0.0, beat * step_s + offset_s + rng.normal(0, 0.004))
            notes.append(Note(start_s, start_s + 0.1, DRUM_CHANNEL, key, velocity))
    return [note for note in notes if note.start_s < seconds]
