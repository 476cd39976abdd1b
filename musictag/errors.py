"""Every error that musictag raises on purpose.

The message of an error names the file or field and says what to do. `exit_code` is the exit code of a command that the
error ends: 2 if the call or its input is wrong, 1 if the run failed or was refused. An `AudioError` concerns one track:
it becomes a row of the failures table, under the name of its class, and the run continues.
"""


class MusictagError(Exception):
    """Base class of all errors of musictag."""

    exit_code = 1


class UsageError(MusictagError):
    """The call is wrong, for example an unknown model, tag or option value."""

    exit_code = 2


class CatalogError(MusictagError):
    """The whole catalog cannot be read. A single broken row is a `catalog.validation.Problem`."""

    exit_code = 2


class VocabularyError(UsageError):
    """A tag that the vocabulary or the catalog does not have."""


class FeatureMismatchError(MusictagError):
    """Features and model, or features and options, have different settings."""


class StoreError(MusictagError):
    """A table is missing, has another schema, or cannot be read or written."""


class ConflictError(StoreError):
    """Another writer removed the same files of a table, or committed the same parts, meanwhile."""


class BrokenManifestError(StoreError):
    """A file that names what a worker has written is incomplete, or names what is not there."""


class WorkerLostError(MusictagError):
    """Worker processes were killed repeatedly, do not start, or make no progress."""


class ModelError(MusictagError):
    """A model artifact is missing a file or does not fit its description."""


class TrainingError(MusictagError):
    """There is no training data, the loss is not finite, or a checkpoint cannot be used."""


class RegistryError(MusictagError):
    """MLflow cannot be reached, or does not know the model."""


class PromotionError(MusictagError):
    """The gate refused the candidate, or the two models cannot be compared."""


class LedgerError(MusictagError):
    """Tracks are not accounted for, or more of them failed or would be deleted than is allowed."""


class AudioError(MusictagError):
    """One track's audio cannot be used."""


class AudioUnreachableError(AudioError):
    """The file cannot be read: access is denied, the scheme is unknown, or the network fails."""


class AudioMissingError(AudioUnreachableError):
    """The store says that there is no such file."""


class AudioUnsupportedError(AudioError):
    """No decoder recognizes the file as audio."""


class AudioEmptyError(AudioError):
    """The file holds no audio frame."""


class AudioTruncatedError(AudioError):
    """The header declares more audio than the file holds."""


class AudioTooLongError(AudioError):
    """The track is longer than the limit."""


class AudioCrashError(AudioError):
    """The decoder process crashed on the file."""


class AudioDecoderBugError(AudioError):
    """A parser or decoder raised an error that it should not raise: it has a bug, or the file was made to find one."""


class AudioTimeoutError(AudioError):
    """Decoding the file exceeded the time limit."""


class AudioCorruptError(AudioError):
    """The samples cannot be sound, or the file holds more than its header declares."""


class AudioDamagedError(AudioCorruptError):
    """Frames, pages or packets of the file are damaged or missing."""
