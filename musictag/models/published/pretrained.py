"""The published networks: their names, and where they are installed."""

import dataclasses
import sys
from pathlib import Path

from musictag.errors import ModelError, UsageError
from musictag.models.artifact_files import SPEC_FILE

PACKAGE = "musicnn==0.1.0"


@dataclasses.dataclass(frozen=True)
class Published:
    """One of the networks in the wheel."""

    checkpoint: str
    """The folder of its checkpoint in the wheel."""
    architecture: str
    tag_list: str
    """The variable in the package's configuration that lists its tags."""
    trained_on: str


_MTT, _MSD = ("MTT_LABELS", "MagnaTagATune"), ("MSD_LABELS", "Million Song Dataset")
PUBLISHED = {
    "msd-musicnn": Published("MSD_musicnn", "musicnn", *_MSD),
    "msd-vgg": Published("MSD_vgg", "vgg", *_MSD),
    "mtt-musicnn": Published("MTT_musicnn", "musicnn", *_MTT),
    "mtt-vgg": Published("MTT_vgg", "vgg", *_MTT),
}
DEFAULT = "msd-musicnn"


def models_folder() -> Path:
    """Return the folder of the converted models, which is inside the Python environment."""
    return Path(sys.prefix) / "share" / "musictag"


def find(name: str) -> Path:
    """Return the artifact folder of a published model.

    Raises:
        UsageError: there is no model with this name; the message lists all names.
        ModelError: the models are not installed.
    """
    if name not in PUBLISHED:
        raise UsageError(f"there is no published model {name!r}; the names are {', '.join(PUBLISHED)}")
    folder = models_folder() / name
    if not (folder / SPEC_FILE).is_file():
        raise ModelError(f"the published models are not in {folder.parent}: run `musictag weights` once to fetch them")
    return folder
