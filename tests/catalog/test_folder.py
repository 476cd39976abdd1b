"""Every audio file below a folder is listed once; what is not listed is counted, what cannot be listed is named."""

import contextlib
import functools
import http.server
import mimetypes
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.catalog.folder import FolderListing, describe_left_out, is_audio, list_folder
from musictag.catalog.reader import read_catalog
from musictag.catalog.validation import iter_problems
from musictag.errors import CatalogError
from musictag.storage.etags import audio_etag
from websites import serving


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listing_of(folder: Path, *, follow_links: bool = True) -> FolderListing:
    return list_folder(fsspec.filesystem("file"), str(folder), follow_links=follow_links)


def test_audio_is_listed_and_everything_else_is_counted_by_suffix(tmp_path: Path) -> None:
    make_files(
        tmp_path, "b/2.FLAC", "a/1.mp3", "a/book.m4b", "cover.jpg", "a/cover.JPG", "a.cue", "README", ".git/3.mp3"
    )
    listing = listing_of(tmp_path)
    assert listing.audio == ("a/1.mp3", "a/book.m4b", "b/2.FLAC")
    assert listing.left_out == {".jpg": 2, ".cue": 1, "without suffix": 1, "hidden": 1}
    assert listing.unlistable == {}
    assert describe_left_out(listing.left_out) == "2 .jpg, 1 .cue, 1 hidden, 1 without suffix"


def test_listing_tells_the_etags_that_the_files_have(tmp_path: Path) -> None:
    make_files(tmp_path, "music/a/1.mp3", "music/2.ogg", "elsewhere/3.mp3")
    (tmp_path / "5.mp3").touch()
    (tmp_path / "music/4.mp3").symlink_to("../5.mp3")
    (tmp_path / "music/linked").symlink_to(tmp_path / "elsewhere")
    os.utime(tmp_path / "music/2.ogg", (0, 0))
    catalog = read_catalog(str(tmp_path / "music"))
    etags = dict(zip(catalog.tracks["track_id"].to_pylist(), catalog.tracks["etag"].to_pylist(), strict=True))
    uris = dict(zip(catalog.tracks["track_id"].to_pylist(), catalog.tracks["uri"].to_pylist(), strict=True))
    assert etags.pop("4.mp3") is None  # its target may change without the link
    assert etags == {track_id: audio_etag(uris[track_id]) for track_id in ("2.ogg", "a/1.mp3", "linked/3.mp3")}


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """A store that lists trees, and tells checksums of some files."""

    protocol = "bucket"

    def find(self, path: str, **_: Any) -> dict[str, dict[str, Any]]:
        """Return two files, of which one has an ETag."""
        return {f"{path}/1.mp3": {"ETag": '"abc"', "size": 1}, f"{path}/2.mp3": {"size": 1, "LastModified": "today"}}


def test_listing_of_a_store_tells_checksums_alone() -> None:
    listing = list_folder(Bucket(), "/music")
    assert (listing.audio, listing.etags) == (("1.mp3", "2.mp3"), {"1.mp3": "abc"})


def test_rare_suffixes_are_summed_up() -> None:
    assert describe_left_out({f".{n:02d}": 30 - n for n in range(12)}).endswith("21 .09, 39 with other suffixes")
    assert describe_left_out({}) == ""


@pytest.mark.parametrize("name", ["a.ape", "a.dsf", "a.DSF", "a.wv", "a.caf", "a.webm", "a.w64"])
def test_suffixes_of_decoders_are_audio(name: str) -> None:
    assert is_audio(name)


@pytest.fixture
def as_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of an ordinary user, with the rights of that user: root may list everything."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid():
            yield Path(folder)
            return
        os.chown(folder, 65_534, 65_534)
        os.seteuid(65_534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_folder_without_permission_is_named_and_the_others_are_listed(as_user: Path) -> None:
    make_files(as_user, "closed/1.mp3", "open/2.mp3")
    (as_user / "closed").chmod(0)
    try:
        listing = listing_of(as_user)
        with pytest.raises(PermissionError):
            listing_of(as_user / "closed")
    finally:
        (as_user / "closed").chmod(0o700)
    assert listing.audio == ("open/2.mp3",)
    assert listing.unlistable == {"closed": "Permission denied"}


def test_folder_that_cannot_be_listed_is_a_problem_of_its_catalog(tmp_path: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    os.chdir(tmp_path)
    try:
        for _ in range(20):  # until the path is longer than the system allows
            Path("long" * 60).mkdir()
            os.chdir("long" * 60)
        Path("1.mp3").touch()
    finally:
        os.fchdir(before)
        os.close(before)
    make_files(tmp_path, "2.mp3")
    catalog = read_catalog(str(tmp_path))
    assert catalog.tracks["track_id"].to_pylist() == ["2.mp3"]
    [problem] = iter_problems(catalog.problems)
    assert problem.track_id.endswith("long/")
    assert problem.uri == f"{tmp_path}/{problem.track_id}".rstrip("/")
    reason = "the folder cannot be listed: File name too long; the rows of its tracks are kept"
    assert str(problem) == f"{problem.track_id}: {reason}"


def test_linked_folders_are_listed_once_under_their_own_path(tmp_path: Path) -> None:
    make_files(tmp_path, "music/album/1.mp3", "elsewhere/2.mp3", "elsewhere/more/3.mp3", "music/.store/4.mp3")
    music = tmp_path / "music"
    links = {
        "a link to an album of the folder": music / "album",
        "another disk": tmp_path / "elsewhere",
        "another disk again": tmp_path / "elsewhere",
        "part of that disk": tmp_path / "elsewhere/more",
        "loop": music,
        "parent": tmp_path,
        "hidden store": music / ".store",
    }
    for name, target in links.items():
        (music / name).symlink_to(target)
    (music / "album/self").symlink_to("../album")
    listing = listing_of(music)
    assert listing.audio == ("album/1.mp3", "another disk/2.mp3", "another disk/more/3.mp3", "hidden store/4.mp3")
    assert listing.unlistable == {}
    assert listing_of(music, follow_links=False).audio == ("album/1.mp3",)
    assert listing_of(music, follow_links=False).left_out == {"hidden": 1, "linked folders": 8}


def test_linked_files_are_listed_once(tmp_path: Path) -> None:
    make_files(tmp_path, "music/1.mp3", "2.mp3", "3.jpg")
    for name, target in {
        "favourite.mp3": "1.mp3",
        "b.mp3": "../2.mp3",
        "c.mp3": "../2.mp3",
        "d.jpg": "../3.jpg",
    }.items():
        (tmp_path / "music" / name).symlink_to(target)
    listing = listing_of(tmp_path / "music")
    assert listing.audio == ("1.mp3", "b.mp3")
    assert listing.left_out == {"links to listed files": 2, ".jpg": 1}


def test_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    make_files(tmp_path, "1.mp3")
    for name, target in {"NAS": "/mnt/not/connected", "2.mp3": "gone.mp3", "me": "me", "a.jpg": "gone.jpg"}.items():
        (tmp_path / name).symlink_to(target)
    listing = listing_of(tmp_path)
    assert listing.audio == ("1.mp3", "2.mp3")  # a track whose failure says why
    assert listing.unlistable == {
        "NAS": "it is a link to a missing folder: No such file or directory",
        "me": "it is a link to a missing folder: Too many levels of symbolic links",
    }
    assert listing.left_out == {".jpg": 1}
    assert listing_of(tmp_path, follow_links=False).unlistable == {}


@pytest.mark.parametrize("name", ["Mixtape Vol. 2", "Dr. Dre", "Mixtape 2.0", "Artist.Live", "Live 1.1", "NAS"])
def test_link_to_a_missing_folder_is_named_though_its_name_has_a_dot(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".1", "application/x-troff-man")  # some machines list it
    make_files(tmp_path, "1.mp3")
    (tmp_path / name).symlink_to("/mnt/not/connected")
    assert list(listing_of(tmp_path).unlistable) == [name]


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a.PNG", "a.webp", "a.m3u", "a.pdf", "a.txt", "a.cue", "a.LOG", "a.nfo", "a.sfv", "a.md5", "a.accurip"],
)
def test_link_to_a_missing_file_that_is_no_audio_hides_no_track(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, "1.mp3")
    (tmp_path / name).symlink_to("/mnt/not/connected")
    listing = listing_of(tmp_path)
    assert listing.unlistable == {}
    assert listing.left_out == {Path(name).suffix.lower(): 1}


def test_file_whose_name_has_a_line_break_is_a_problem_that_hides_no_other_track(tmp_path: Path) -> None:
    make_files(tmp_path, "a\nb.mp3", "c.mp3")
    (tmp_path / os.fsdecode(b"d\n\xff.mp3")).touch()
    catalog = read_catalog(str(tmp_path))
    assert catalog.tracks["track_id"].to_pylist() == ["c.mp3"]
    assert [problem.track_id for problem in iter_problems(catalog.problems)] == ["a\nb.mp3", "d\n\\udcff.mp3"]
    for problem in iter_problems(catalog.problems):
        assert problem.message == "the name of the file or of its folder has a line break: rename it"
        assert not problem.hides_any_track


def test_folders_may_have_names_that_are_not_expanded(tmp_path: Path) -> None:
    make_files(tmp_path, "~/a.mp3", "file:/b.mp3", "http:/c.mp3")
    uris = read_catalog(str(tmp_path)).tracks["uri"].to_pylist()
    assert uris == [f"{tmp_path}/{name}" for name in ("file:/b.mp3", "http:/c.mp3", "~/a.mp3")]


names = st.sampled_from("abc")
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@settings(max_examples=50, deadline=None)
@given(files=st.sets(paths, max_size=6), links=st.dictionaries(paths, paths, max_size=5))
def test_every_reachable_file_is_listed_exactly_once(files: set[str], links: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in files:
            make_files(root, f"{name}.mp3")
        for name, target in links.items():
            with contextlib.suppress(OSError):  # a file or a broken link is in the way
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).symlink_to(root / target)
        found = [os.path.realpath(root / path) for path in listing_of(root).audio]
        assert sorted(found) == sorted(str(path.resolve()) for path in root.rglob("*.mp3") if not path.is_symlink())


class Pages(http.server.SimpleHTTPRequestHandler):
    """A website that lists its folders, apart from `secret/` and `gone/`."""

    def send_head(self) -> Any:
        """Return what is sent, or refuse."""
        for folder, status in (("/secret/", 403), ("/gone/", 404)):
            if self.path.endswith(folder):
                return self.send_error(status)
        return super().send_head()

    def log_message(self, *message: object) -> None:
        """Print nothing."""


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    with serving(functools.partial(Pages, directory=tmp_path)) as url:
        yield f"{url}/"


def test_folder_of_a_website_that_is_refused_is_named(tmp_path: Path, website: str) -> None:
    make_files(tmp_path, "open/1.mp3", "secret/2.mp3", "gone/3.mp3", "open/notes.txt")
    filesystem, path = fsspec.core.url_to_fs(website)
    listing = list_folder(filesystem, path)
    assert listing.audio == ("open/1.mp3",)
    assert sorted(listing.unlistable) == ["gone", "secret"]
    assert "403" in listing.unlistable["secret"]
    assert listing.left_out == {".txt": 1}


def test_catalog_of_a_website_that_is_refused_is_an_error(tmp_path: Path, website: str) -> None:
    make_files(tmp_path, "secret/2.mp3")
    with pytest.raises(CatalogError, match="cannot be read: 403"):
        read_catalog(f"{website}secret/")


@pytest.fixture
def memory() -> Callable[..., str]:
    def make(*names: str) -> str:
        for name in names:
            fsspec.filesystem("memory").pipe(f"/listed/{name}", b"x")
        return "memory://listed"

    return make


def test_folder_of_a_store_is_listed_alike(memory: Callable[..., str]) -> None:
    catalog = read_catalog(memory("a/1.mp3", "2.ogg", ".cache/3.mp3", "a/.4.mp3", "cover.png"))
    assert catalog.tracks["track_id"].to_pylist() == ["2.ogg", "a/1.mp3"]
    assert catalog.left_out == {"hidden": 2, ".png": 1}
