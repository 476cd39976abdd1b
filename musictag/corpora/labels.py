"""The 23 tags of the experiment, and the rule by which each arises. Nobody listens: a tag holds where its rule does.

======================  ================================================================================================
beat
`slow`, `fast`          tempo below 85, or at least 120, quarter notes a minute; between the two, neither
`drums`                 there are drums
`four-on-the-floor`     the drums have a kick on every beat of a duple metre: patterns `house` and `disco`
`backbeat`              the drums have a snare or clap on the second beat of a duple metre: `disco` and `rock`
rhythm
`triple`                the tune is written in 3/4 or 3/8
`swing`                 the second half of every beat begins at 0.6 of it or later
`dense`                 at least 10 note onsets a second in the whole mix, drums included
mood
`minor`                 the third above the tune's last note is minor: of both thirds, the one that sounds longer
`low`, `high`           mean note number of the melody's notes below 57, or at least 72
`energetic`, `calm`     `energy` at least 0.6, or below 0.25
`happy`                 `valence` at least 0.6, `energy` at least 0.35
`sad`                   `valence` below 0.38, `energy` below 0.35
instruments
`piano` ... `brass`     the instrument plays melody, its doubling or the chords; basses do not count
genre
`shange` ... `haozi`    as the collection gives it: mountain song, ditty, work song; others are too rare to be tags
======================  ================================================================================================

Energy and valence are the axes of Russell's circumplex ("A circumplex model of affect", 1980), both from 0 to 1. Each
is a weighted sum of cues, since cues of emotion in music add up so (Eerola, Friberg and Bresin, "Emotional expression
in music: contribution, linearity, and additivity of primary musical cues", 2013); the cues and their direction are
those of that literature, the weights ours:

    energy  = 0.5 tempo + 0.25 articulation + 0.25 drums
    valence = 0.4 mode + 0.3 tempo + 0.15 articulation + 0.15 register

tempo goes from 0 at 60 to 1 at 160 quarter notes a minute, register from 0 at note 50 to 1 at note 80; articulation is
0 legato, 1 staccato; drums 0 or 1; mode 0 minor, 0.5 neither, 1 major. Loudness, a cue of energy elsewhere, is none
here: the level of a file is drawn by itself.
"""

from musictag.corpora.arrangement import GENRES, beats_per_bar, third
from musictag.corpora.essen import Tune
from musictag.corpora.manners import MELODY_PROGRAMS, Manner

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


def describe(tune: Tune, manner: Manner, *, mean_key: float, onsets_per_s: float) -> tuple[str, ...]:
    """The tags of a song by the rules above, in the order of `TAGS`.

    `mean_key` is the mean note number of its melody, `onsets_per_s` counts the notes of all instruments.
    """
    energy, valence = energy_of(manner), valence_of(tune, manner, mean_key=mean_key)
    rules = {
        "slow": manner.tempo < 85,
        "fast": manner.tempo >= 120,
        "drums": manner.drums != "none",
        "four-on-the-floor": manner.drums in ("house", "disco"),
        "backbeat": manner.drums in ("disco", "rock"),
        "triple": beats_per_bar(tune) == 3,
        "swing": manner.swing >= 0.6,
        "dense": onsets_per_s >= 10,
        "minor": third(tune) == 3,
        "low": mean_key < 57,
        "high": mean_key >= 72,
        "energetic": energy >= 0.6,
        "calm": energy < 0.25,
        "happy": valence >= 0.6 and energy >= 0.35,
        "sad": valence < 0.38 and energy < 0.35,
        **{name: name in (manner.lead, manner.second, manner.chords) for name in MELODY_PROGRAMS},
        **{name: name == tune.genre for name in GENRES},
    }
    return tuple(tag for tag in TAGS if rules[tag])


def energy_of(manner: Manner) -> float:
    """Arousal, 0-1, by the sum above."""
    return 0.5 * _quickness(manner) + 0.25 * manner.detached + 0.25 * (manner.drums != "none")


def valence_of(tune: Tune, manner: Manner, *, mean_key: float) -> float:
    """Pleasantness, 0-1, by the sum above."""
    return (
        0.4 * _MODES[third(tune)] + 0.3 * _quickness(manner) + 0.15 * manner.detached + 0.15 * _share(mean_key, 50, 80)
    )


def _quickness(manner: Manner) -> float:
    return _share(manner.tempo, 60, 160)


def _share(value: float, lowest: float, highest: float) -> float:
    """Where a value lies between two others, cut off at 0 and 1."""
    return min(1.0, max(0.0, (value - lowest) / (highest - lowest)))
