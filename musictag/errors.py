"""Every error that musictag raises on purpose.

An error's text names the file or field and says what to do. `exit_code` is what a command line ends with: 2 where the
call or its input must be changed, 1 where the run itself failed or was refused. `AudioError` concerns one track: it
becomes a row of the failures table, under its class name, and the run goes on.
"""


class MusictagError(Exception):
    """Root of the tree: catch it to catch whatever musictag reports."""

    exit_code = 1


class UsageError(MusictagError):
    """The call cannot mean anything: an unknown model, tag or option value."""

    exit_code = 2


class CatalogError(MusictagError):
    """The catalog as a whole cannot be read. One broken row is a `catalog.Problem` instead."""

    exit_code = 2


class VocabularyError(UsageError):
    """A tag that the vocabulary or the catalog does not have."""


class FeatureMismatchError(MusictagError):
    """Features and model, or features and options, were made by different settings."""


class StoreError(MusictagError):
    """A table is missing, is not ours, or cannot be written."""


class WorkerLostError(MusictagError):
    """Processes that do the work were killed, again and again."""


class ModelError(MusictagError):
    """A model artifact is missing a file or does not fit its description."""


class TrainingError(MusictagError):
    """There is nothing to learn from, or the loss is no longer a number."""


class RegistryError(MusictagError):
    """MLflow cannot be reached, or does not know the model."""


class PromotionError(MusictagError):
    """The gate refused the candidate, or the two models cannot be compared."""


class LedgerError(MusictagError):
    """The accounting equation does not hold, or too many tracks failed."""


class AudioError(MusictagError):
    """One track's audio cannot be used."""


class AudioUnreachableError(AudioError):
    """The uri leads nowhere: no such file, no permission, an unknown scheme, a network that fails."""


class AudioUnsupportedError(AudioError):
    """No decoder recognizes the file as audio."""


class AudioEmptyError(AudioError):
    """The file holds no audio frame."""


class AudioTruncatedError(AudioError):
    """The header declares more audio than the file holds."""


class AudioTooLongError(AudioError):
    """The track is longer than the limit."""


class AudioCrashError(AudioError):
    """The file made the decoder's process end."""


class AudioTimeoutError(AudioError):
    """The file kept the decoder busy for longer than is allowed."""


class AudioCorruptError(AudioError):
    """Decoding broke off, or gave samples that are not numbers."""
