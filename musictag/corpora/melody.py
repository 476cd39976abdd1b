"""Read musical properties of a tune: its beats, its sounding notes and its mode."""

from musictag.corpora.essen import Tune


def sounding_notes(tune: Tune) -> list[tuple[int, float]]:
    """Return the MIDI note number and the length in quarter notes of every note, without the rests."""
    return [(pitch, length) for pitch, length in tune.notes if pitch is not None]


def third(tune: Tune) -> int | None:
    """Return 3 if the tune is minor, 4 if it is major, None if it is neither.

    The number is the interval in semitones from the last note up to its third. Of the minor and the major third, the
    one that sounds longer in the whole tune counts. The result is None if both sound equally long or not at all.
    """
    notes = sounding_notes(tune)
    final = notes[-1][0]
    minor, major = (sum(length for pitch, length in notes if (pitch - final) % 12 == steps) for steps in (3, 4))
    return None if minor == major else 3 if minor > major else 4


def beats_per_bar(tune: Tune) -> int:
    """Return 3 in triple metre, else 2 (also if the metre is free or rare)."""
    return 3 if tune.metre in ("3/4", "3/8") else 2


def quarters_per_beat(tune: Tune) -> float:
    """Return the length of a beat in quarter notes: an eighth note in 3/8, a quarter note in all other metres."""
    return 0.5 if tune.metre == "3/8" else 1.0
