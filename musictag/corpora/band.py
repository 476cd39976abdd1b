"""Arrange a folk tune for a small band: melody, an optional second melody instrument, accompaniment and drums.

All instruments follow one clock. Its beats may swing and its tempo drifts. Every note is a little early or late.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

from musictag.corpora.accompaniment import BASS_CHANNEL, CHORDS_CHANNEL, InstrumentPart, make_accompaniment
from musictag.corpora.arrangement import DRUM_CHANNEL, Arrangement, Note
from musictag.corpora.drumming import KITS, make_drums
from musictag.corpora.essen import Tune
from musictag.corpora.labels import assign_tags
from musictag.corpora.melody import beats_per_bar, quarters_per_beat, sounding_notes
from musictag.corpora.performance_style import (
    HELD_PROGRAMS,
    MELODY_PROGRAMS,
    STRUCK_PROGRAMS,
    PerformanceStyle,
    sample_style,
)

MELODY_CHANNEL, DOUBLING_CHANNEL = 0, 1
_BASS_PROGRAMS = (32, 33, 35, 38, 43, 58)  # acoustic, fingered, fretless and synth bass, contrabass, tuba
# Lowest and highest level of each channel relative to the melody. They are close enough that every instrument that
# a tag names can be heard.
_BALANCE_DB = {
    MELODY_CHANNEL: (0.0, 0.0),
    DOUBLING_CHANNEL: (-7.0, 0.0),
    CHORDS_CHANNEL: (-11.0, -3.0),
    BASS_CHANNEL: (-11.0, -4.0),
    DRUM_CHANNEL: (-9.0, 0.0),
}

Clock = Callable[[float], float]
"""Returns the time in seconds of a position in quarter notes."""


def arrange(tune: Tune, rng: np.random.Generator, *, seconds: float) -> Arrangement:
    """Arrange `tune` in a random style and repeat it until `seconds` are full."""
    return arrange_in_style(sample_style(tune, rng), tune, rng, seconds=seconds)


def arrange_in_style(style: PerformanceStyle, tune: Tune, rng: np.random.Generator, *, seconds: float) -> Arrangement:
    """Arrange `tune` in a given style; details that the style leaves open are random."""
    clock = make_clock(style, rng, beat_quarters=quarters_per_beat(tune))
    shift = _transposition(tune, style)
    melody = _melody(tune, style, rng, clock, shift=shift, seconds=seconds)
    notes = list(melody)
    if style.doubling:
        notes += _double(melody, rng)
    if style.accompaniment != "none":
        part = make_accompaniment(tune, style.accompaniment, rng, shift=shift)
        notes += _play_part(part, tune, rng, clock, loudness=rng.uniform(58, 86), seconds=seconds)
    if style.drum_pattern != "none":
        part = make_drums(style.drum_pattern, rng, beats=beats_per_bar(tune))
        notes += _play_part(part, tune, rng, clock, loudness=rng.uniform(70, 105), seconds=seconds)
    notes.sort(key=lambda note: (note.start_s, note.channel, note.key))
    channels = sorted({note.channel for note in notes})
    balance_db = {channel: rng.uniform(*_BALANCE_DB[channel]) for channel in channels}
    # Independent of the style, so that the level of a file says nothing about its tags.
    peak = float(np.exp(rng.uniform(np.log(0.1), np.log(0.9))))
    mean_key = float(np.mean([note.key for note in melody]))
    return Arrangement(
        notes=tuple(notes),
        programs=_choose_programs(style, rng),
        reverb=style.reverb,
        noise_db=rng.uniform(-75, -55) + 20 * math.log10(peak),
        peak=peak,
        tags=assign_tags(tune, style, mean_key=mean_key, onsets_per_s=len(notes) / seconds),
        drum_kit=int(rng.choice(KITS)),
        balance_db=balance_db,
    )


def make_clock(style: PerformanceStyle, rng: np.random.Generator, *, beat_quarters: float) -> Clock:
    """Return a clock with the tempo and swing of `style` and a tempo that slowly drifts up and down."""
    beat_s = 60 / style.tempo * beat_quarters
    # The drift is a sine: relative depth, radians per beat, phase at the start.
    depth, frequency, phase = rng.uniform(0, 0.04), 2 * math.pi / rng.uniform(12, 48), rng.uniform(0, 2 * math.pi)

    def seconds_at(quarter: float) -> float:
        whole, part = divmod(quarter / beat_quarters, 1)
        swung = 2 * part * style.swing if part < 0.5 else 1 - 2 * (1 - part) * (1 - style.swing)
        beats = whole + swung
        # The integral of the relative length of a beat, 1 + depth * cos(frequency * beats + phase).
        return beat_s * (beats + depth / frequency * (math.sin(frequency * beats + phase) - math.sin(phase)))

    return seconds_at


def _choose_programs(style: PerformanceStyle, rng: np.random.Generator) -> dict[int, int]:
    """Return a General MIDI program for each channel but the drums'."""
    chord_programs = {**HELD_PROGRAMS, **STRUCK_PROGRAMS}.get(style.chords, (0,))
    return {
        MELODY_CHANNEL: int(rng.choice(MELODY_PROGRAMS[style.lead])),
        DOUBLING_CHANNEL: int(rng.choice(MELODY_PROGRAMS[style.doubling or style.lead])),
        CHORDS_CHANNEL: int(rng.choice(chord_programs)),
        BASS_CHANNEL: int(rng.choice(_BASS_PROGRAMS)),
    }


def _transposition(tune: Tune, style: PerformanceStyle) -> int:
    """Return the semitones that bring the mean pitch of the tune near the style's register."""
    total = sum(length for _, length in sounding_notes(tune))
    return round(style.register - sum(pitch * length for pitch, length in sounding_notes(tune)) / total)


def _melody(
    tune: Tune, style: PerformanceStyle, rng: np.random.Generator, clock: Clock, *, shift: int, seconds: float
) -> list[Note]:
    """Return the tune again and again; each repetition starts at a bar, and the first note of a bar is accented."""
    bar_quarters = beats_per_bar(tune) * quarters_per_beat(tune)
    loudness, jitter_s = rng.uniform(85, 115), rng.uniform(0.002, 0.012)
    sounding_share = 1 - 0.7 * style.staccato
    notes: list[Note] = []
    quarter = 0.0
    while clock(quarter) < seconds:
        for pitch, length in tune.notes:
            start_s = max(0.0, clock(quarter) + rng.normal(0, jitter_s))
            if pitch is not None and start_s < seconds:
                end_s = start_s + max(0.05, sounding_share * (clock(quarter + length) - clock(quarter)))
                velocity = _velocity(rng.normal(loudness, 6) + 14 * (quarter % bar_quarters == 0))
                notes.append(Note(start_s, end_s, MELODY_CHANNEL, pitch + shift, velocity))
            quarter += length
        quarter = bar_quarters * math.ceil(quarter / bar_quarters)
    return notes


def _double(melody: list[Note], rng: np.random.Generator) -> list[Note]:
    """Return the melody for a second instrument, in unison, an octave lower or higher, each note slightly late."""
    octave = int(rng.choice([-12, 0, 12], p=[0.6, 0.25, 0.15]))
    delays_s = np.abs(rng.normal(0.01, 0.01, len(melody))).tolist()
    return [
        Note(note.start_s + delay_s, note.end_s + delay_s, DOUBLING_CHANNEL, note.key + octave, note.velocity)
        for note, delay_s in zip(melody, delays_s, strict=True)
    ]


def _play_part(
    part: InstrumentPart, tune: Tune, rng: np.random.Generator, clock: Clock, *, loudness: float, seconds: float
) -> list[Note]:
    """Return the notes of all bars of a part that start before `seconds`."""
    beats, beat_quarters = beats_per_bar(tune), quarters_per_beat(tune)
    jitter_s = rng.uniform(0.002, 0.01)
    notes: list[Note] = []
    for bar in itertools.takewhile(lambda bar: clock(bar * beats * beat_quarters) < seconds, itertools.count()):
        for note in part(bar):
            start, end = ((bar * beats + beat) * beat_quarters for beat in (note.beat, note.beat + note.length_beats))
            start_s = max(0.0, clock(start) + rng.normal(0, jitter_s))
            end_s = start_s + max(0.05, 0.95 * (clock(end) - clock(start)))
            velocity = _velocity(rng.normal(loudness + note.accent, 5))
            if start_s < seconds:
                notes.append(Note(start_s, end_s, note.channel, note.key, velocity))
    return notes


def _velocity(loudness: float) -> int:
    return int(min(127, max(20, loudness)))
