"""Assign tags to a song by rules on its tune, its performance style and its notes. No person listens to it.

======================  ================================================================================================
beat
`slow`, `fast`          tempo below 85, or at least 120, quarter notes per minute
`drums`                 there are drums
`four-on-the-floor`     the drums have a kick on every beat of a duple metre: patterns `house` and `disco`
`backbeat`              the drums have a snare or clap on the second beat of a duple metre: `disco` and `rock`
rhythm
`triple`                the tune is written in 3/4 or 3/8
`swing`                 the second half of every beat begins at 0.6 of it or later
`dense`                 at least 10 note onsets per second in the whole mix, drums included
mood
`minor`                 the third above the tune's last note is minor: see `melody.third`
`low`, `high`           mean note number of the melody below 57, or at least 72
`energetic`, `calm`     energy at least 0.6, or below 0.25
`happy`                 valence at least 0.6 and energy at least 0.35
`sad`                   valence below 0.38 and energy below 0.35
instruments
`piano` ... `brass`     the instrument plays the melody, its doubling or the chords; basses do not count
genre
`shange` ... `haozi`    the genre in the collection: mountain song, ditty, work song; other genres are too rare
======================  ================================================================================================

Energy and valence, both from 0 to 1, are the axes of Russell's circumplex ("A circumplex model of affect", 1980). Each
is a weighted sum of cues, because emotional cues in music add up (Eerola, Friberg and Bresin, "Emotional expression in
music: contribution, linearity, and additivity of primary musical cues", 2013). The cues and their signs come from that
literature; the weights are our own:

    energy  = 0.5 tempo + 0.25 articulation + 0.25 drums
    valence = 0.4 mode + 0.3 tempo + 0.15 articulation + 0.15 register

tempo is 0 at 60 and 1 at 160 quarter notes per minute; register is 0 at note 50 and 1 at note 80; articulation is 0 for
legato and 1 for staccato; drums are 0 or 1; mode is 0 for minor, 0.5 for neither and 1 for major. Loudness is usually a
cue of energy as well. It is not used here, because the level of a file is random.
"""

from musictag.corpora.essen import Tune
from musictag.corpora.melody import beats_per_bar, third
from musictag.corpora.performance_style import MELODY_PROGRAMS, PerformanceStyle

GENRES = ("shange", "xiaodiao", "haozi")
TAGS = (
    "slow",
    "fast",
    "drums",
    "four-on-the-floor",
    "backbeat",
    "triple",
    "swing",
    "dense",
    "minor",
    "low",
    "high",
    "energetic",
    "calm",
    "happy",
    "sad",
    *MELODY_PROGRAMS,
    *GENRES,
)
_MODES = {3: 0.0, 4: 1.0, None: 0.5}


def assign_tags(tune: Tune, style: PerformanceStyle, *, mean_key: float, onsets_per_s: float) -> tuple[str, ...]:
    """Return the tags of a song in the order of `TAGS`.

    `mean_key` is the mean note number of the melody. `onsets_per_s` counts the notes of all instruments.
    """
    energy = compute_energy(style)
    valence = compute_valence(tune, style, mean_key=mean_key)
    rules = {
        "slow": style.tempo < 85,
        "fast": style.tempo >= 120,
        "drums": style.drum_pattern != "none",
        "four-on-the-floor": style.drum_pattern in ("house", "disco"),
        "backbeat": style.drum_pattern in ("disco", "rock"),
        "triple": beats_per_bar(tune) == 3,
        "swing": style.swing >= 0.6,
        "dense": onsets_per_s >= 10,
        "minor": third(tune) == 3,
        "low": mean_key < 57,
        "high": mean_key >= 72,
        "energetic": energy >= 0.6,
        "calm": energy < 0.25,
        "happy": valence >= 0.6 and energy >= 0.35,
        "sad": valence < 0.38 and energy < 0.35,
        **{name: name in (style.lead, style.doubling, style.chords) for name in MELODY_PROGRAMS},
        **{name: name == tune.genre for name in GENRES},
    }
    return tuple(tag for tag in TAGS if rules[tag])


def compute_energy(style: PerformanceStyle) -> float:
    """Return the arousal of a song, 0-1, by the sum above."""
    return 0.5 * _relative_tempo(style) + 0.25 * style.staccato + 0.25 * (style.drum_pattern != "none")


def compute_valence(tune: Tune, style: PerformanceStyle, *, mean_key: float) -> float:
    """Return the pleasantness of a song, 0-1, by the sum above."""
    return (
        0.4 * _MODES[third(tune)]
        + 0.3 * _relative_tempo(style)
        + 0.15 * style.staccato
        + 0.15 * _rescale(mean_key, 50, 80)
    )


def _relative_tempo(style: PerformanceStyle) -> float:
    return _rescale(style.tempo, 60, 160)


def _rescale(value: float, lowest: float, highest: float) -> float:
    """Map `lowest` to 0 and `highest` to 1, and clip to that range."""
    return min(1.0, max(0.0, (value - lowest) / (highest - lowest)))
