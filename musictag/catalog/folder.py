"""List the audio files of a folder of music, and report what is left out and what cannot be listed."""

import collections
import dataclasses
import mimetypes
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import fsspec
from fsspec.asyn import AsyncFileSystem

from musictag.storage import etags

AUDIO_SUFFIXES = frozenset(
    """
    .3g2 .3ga .3gp .aac .adts .aif .aifc .aiff .ape .asf .au .avr .bwf .caf .dsf .f4a .flac .htk .m2a .m4a .m4b .m4r
    .m4v .mk3d .mka .mkv .mov .mp2 .mp3 .mp4 .mpa .mpga .oga .ogg .ogv .ogx .opus .paf .pvf .qt .rf64 .sf .snd .sph .spx
    .svx .tta .voc .w64 .wav .wave .weba .webm .wma .wmv .wv
    """.split()  # noqa: SIM905 # a list of so many literals would have a line for each
)
"""Suffixes of the files that the decoders of `musictag.audio` open, in lower case."""
# Suffixes of files beside audio that `mimetypes` does not know.
_SIDECAR_SUFFIXES = frozenset(".accurip .cue .log .lrc .m3u .md5 .nfo .sfv".split())  # noqa: SIM905
# Without the types of this machine, so that all machines list alike: some know ".1" as a manual page.
_FILE_TYPES = mimetypes.MimeTypes()
SHOWN_SUFFIXES = 10
# Keys of `FolderListing.left_out` besides suffixes.
HIDDEN, NO_SUFFIX, FOLDER_LINKS, FILE_LINKS = "hidden", "without suffix", "linked folders", "links to listed files"


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """The audio files of a folder, and the numbers of its other files.

    Paths are relative to the folder, with `/` between names.
    """

    audio: tuple[str, ...]
    """Audio files, sorted."""
    left_out: Mapping[str, int]
    """Numbers of the other files by suffix, and of hidden files and links that are not followed."""
    unlistable: Mapping[str, str]
    """Subfolders that could not be listed, with the reason."""
    etags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Etags of files in `audio` (see `storage.etags.audio_etag`), as far as the listing tells them."""


@dataclasses.dataclass
class _Found:
    """A listing that is being made; the fields are those of `FolderListing`."""

    audio: list[str] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    unlistable: dict[str, str] = dataclasses.field(default_factory=dict)
    etags: dict[str, str] = dataclasses.field(default_factory=dict)

    def add_file(self, relative: str, etag: str | None = None) -> None:
        if is_audio(relative):
            self.audio.append(relative)
            if etag:
                self.etags[relative] = etag
        else:
            self.left_out[_suffix(relative) or NO_SUFFIX] += 1


def list_folder(filesystem: fsspec.AbstractFileSystem, folder: str, *, follow_links: bool = True) -> FolderListing:
    """List the audio files below a folder.

    Files and folders whose name begins with a dot are left out. With `follow_links`, folders that are symbolic links
    are listed, too; each folder and each file is listed once, under its own path if that is below `folder`.

    Args:
        filesystem: the filesystem of the folder.
        folder: its path in the filesystem.
        follow_links: whether to list the folders that symbolic links lead to.

    Raises:
        OSError: the folder itself cannot be listed. A store may raise errors of its own library.
    """
    if "file" in filesystem.protocol:
        found = _list_local(folder, follow_links)
    elif _lists_trees(filesystem):
        found = _list_tree(filesystem, folder)
    else:
        found = _list_folder_by_folder(filesystem, folder)
    return FolderListing(tuple(sorted(found.audio)), found.left_out, found.unlistable, found.etags)


def is_audio(path: str) -> bool:
    """Return whether the name of a file ends in a suffix of `AUDIO_SUFFIXES`."""
    return _suffix(path) in AUDIO_SUFFIXES


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _names_a_file(path: str) -> bool:
    """Return whether a name is that of a file by its suffix; folders have names with dots, too, such as `Vol. 2`."""
    suffix = _suffix(path)
    return suffix in _SIDECAR_SUFFIXES or _FILE_TYPES.guess_type(f"a{suffix}", strict=False)[0] is not None


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Return the numbers of left out files as text, such as `12 .jpg, 3 .cue`; the most frequent suffixes first."""
    counts = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{n:,} {suffix}" for suffix, n in counts[:SHOWN_SUFFIXES]]
    n_others = sum(n for _, n in counts[SHOWN_SUFFIXES:])
    return ", ".join([*shown, *([f"{n_others:,} with other suffixes"] if n_others else [])])


def _list_local(root: str, follow_links: bool) -> _Found:
    """List a folder of this machine: first everything that is in it, then what links lead to."""
    found = _Found()
    # Folders to list: the path relative to the root, and the path without links.
    folders = collections.deque([("", os.path.realpath(root))])
    links = collections.deque[str]()
    listed: dict[str, str] = {}  # path without links to relative path
    file_links: list[str] = []
    while folders or links:
        if folders:
            relative, real = folders.popleft()
            if real not in listed:
                listed[real] = relative
                for name in _scan(real, relative, found, links):
                    folders.append((_joined(relative, name), f"{real}/{name}"))
            continue
        relative = links.popleft()
        try:
            target = os.path.realpath(f"{root}/{relative}", strict=True)
        except OSError as error:
            if is_audio(relative):
                found.audio.append(relative)  # its track fails with the reason
            elif _names_a_file(relative) or not follow_links:
                found.add_file(relative)
            else:  # it may be a folder of music on a disk that is not connected
                found.unlistable[relative] = f"it is a link to a missing folder: {error.strerror}"
            continue
        if not os.path.isdir(target):  # noqa: PTH112 # paths are text here, as in fsspec
            file_links.append(relative)
        elif follow_links:
            folders.append((relative, target))
        else:
            found.left_out[FOLDER_LINKS] += 1
    _add_file_links(root, file_links, listed, found)
    return found


def _scan(real: str, relative: str, found: _Found, links: collections.deque[str]) -> list[str]:
    """Add the files of one folder to `found` and its links to `links`; return the names of its folders."""
    try:
        with os.scandir(real) as entries:
            ordered = sorted(
                (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False), _local_etag(entry))
                for entry in entries
            )
    except OSError as error:
        if not relative:
            raise
        found.unlistable[relative] = error.strerror or str(error)
        return []
    folders = []
    for name, is_link, is_folder, etag in ordered:
        if name.startswith("."):
            found.left_out[HIDDEN] += 1
        elif is_link:
            links.append(_joined(relative, name))
        elif is_folder:
            folders.append(name)
        else:
            found.add_file(_joined(relative, name), etag)
    return folders


def _local_etag(entry: os.DirEntry[str]) -> str | None:
    """Return the etag of an audio file; None for other entries, and for links, which another file's etag is for."""
    if not is_audio(entry.name) or entry.is_symlink():
        return None
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:  # it was deleted meanwhile: its track fails with the reason
        return None
    return etags.etag_of({"size": found.st_size, "mtime": found.st_mtime, "created": found.st_ctime})


def _add_file_links(root: str, file_links: Iterable[str], listed: Mapping[str, str], found: _Found) -> None:
    """Add links to audio files, unless the file is listed already under its own path or by another link."""
    if not file_links:
        return
    real_folders = {relative: real for real, relative in listed.items()}
    seen = {f"{real_folders[folder]}/{name}" for folder, _, name in (path.rpartition("/") for path in found.audio)}
    for relative in file_links:
        target = os.path.realpath(f"{root}/{relative}")
        if is_audio(relative) and target in seen:
            found.left_out[FILE_LINKS] += 1
        else:
            found.add_file(relative)
            seen.add(target)


def _lists_trees(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Return whether `find` lists a whole tree at once, and raises if that fails, as object stores do.

    fsspec's own `find` lists folder by folder, and omits folders that cannot be listed.
    """
    cls = type(filesystem)
    return (
        cls.find is not fsspec.AbstractFileSystem.find
        or getattr(cls, "_find", AsyncFileSystem._find) is not AsyncFileSystem._find
    )


def _list_tree(filesystem: fsspec.AbstractFileSystem, root: str) -> _Found:
    found = _Found()
    for path, info in filesystem.find(root, detail=True).items():
        relative = path[len(root) :].lstrip("/")
        if any(name.startswith(".") for name in relative.split("/")):
            found.left_out[HIDDEN] += 1
        elif relative and not relative.endswith("/"):  # such keys stand for empty folders
            found.add_file(relative, etags.checksum_of(info))
    return found


def _list_folder_by_folder(filesystem: fsspec.AbstractFileSystem, root: str) -> _Found:
    found = _Found()
    folders, listed = collections.deque([root]), set[str]()
    while folders:
        folder = folders.popleft()
        if folder in listed:
            continue
        listed.add(folder)
        try:
            entries = filesystem.ls(folder, detail=True)
        except Exception as error:  # fsspec's filesystems raise errors of many libraries
            if folder == root:
                raise
            found.unlistable[folder[len(root) :].strip("/")] = str(error) or type(error).__name__
            continue
        for entry in entries:
            path = entry["name"].rstrip("/")
            if path.rpartition("/")[2].startswith("."):
                found.left_out[HIDDEN] += 1
            elif entry["type"] == "directory":
                folders.append(path)
            else:
                found.add_file(path[len(root) :].lstrip("/"), etags.checksum_of(entry))
    return found


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
