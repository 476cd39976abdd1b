import struct

import numpy as np
import pytest

from musictag.audio import ogg_pages, reader
from musictag.audio.vorbis import VorbisDecoder
from musictag.errors import AudioCorruptError

RATE, SECONDS = 44_100, 12


@pytest.fixture(scope="module", params=[1, 2, 6])
def path(request, tmp_path_factory, write_audio):
    """Soft noise with attacks, so that Vorbis uses long and short packets."""
    rng = np.random.default_rng(0)
    samples = 0.02 * rng.standard_normal((SECONDS * RATE, request.param))
    for attack in range(5_000, len(samples) - 400, 20_011):
        samples[attack : attack + 300] *= 40
    return write_audio(tmp_path_factory.mktemp("ogg") / "a.ogg", np.clip(samples, -1, 1).astype(np.float32), RATE)


def joined(decoder, *span):
    return np.concatenate(list(decoder.blocks(*span)))


def spans():
    starts = np.random.default_rng(1).integers(0, (SECONDS - 1) * RATE, 100).tolist()
    lengths = np.random.default_rng(2).integers(1, RATE, 100).tolist()
    return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]


@pytest.mark.slow
def test_parts_equal_the_same_parts_of_the_whole(path):
    with reader.open_audio(path, "a") as decoder:
        everything = joined(decoder)
        assert len(everything) == SECONDS * RATE
        for start, stop in [*spans(), (0, 1), (0, RATE), (SECONDS * RATE - 1, SECONDS * RATE)]:
            np.testing.assert_allclose(joined(decoder, start, stop), everything[start:stop], atol=1e-6)


def rewritten(path, change):
    """Return the file with each page replaced by `change(number, page)` and its new checksum."""
    pages = ogg_pages.read_pages(path, "a")
    data = path.read_bytes()
    parts = []
    for number, page in enumerate(pages.pages):
        content = bytearray(change(number, bytearray(data[page.begin : page.end])))
        if content:
            content[ogg_pages.CHECKSUM] = ogg_pages.checksum(bytes(content))
        parts.append(content)
    return b"".join(parts)


def later(number, page):
    """Move the position by 5000 samples, as in a stream that was cut out of a longer one."""
    (position,) = struct.unpack_from("<Q", page, 6)
    if position not in (0, ogg_pages.NO_POSITION):
        struct.pack_into("<Q", page, 6, position + 5_000)
    return page


def misplaced(number, page):
    if number == 9:
        struct.pack_into("<Q", page, 6, struct.unpack_from("<Q", page, 6)[0] + 100)
    return page


@pytest.mark.slow
@pytest.mark.parametrize("change", [later, misplaced])
def test_parts_are_right_if_page_positions_do_not_count_samples(path, tmp_path, change):
    (tmp_path / "a.ogg").write_bytes(rewritten(path, change))
    with reader.open_audio(tmp_path / "a.ogg", "a") as decoder:
        assert isinstance(decoder, VorbisDecoder)
        everything = joined(decoder)
        for start, stop in spans()[:20]:
            np.testing.assert_allclose(joined(decoder, start, stop), everything[start:stop], atol=1e-6)


def test_a_damaged_page_is_an_error_of_the_parts_that_need_it(path, tmp_path):
    with reader.open_audio(path, "a") as decoder:
        everything = joined(decoder)
    data = bytearray(path.read_bytes())
    page = ogg_pages.read_pages(path, "a").pages[10]
    data[page.end - 5] ^= 1
    (tmp_path / "a.ogg").write_bytes(data)
    with reader.open_audio(tmp_path / "a.ogg", "a") as decoder:
        with pytest.raises(
            AudioCorruptError, match=f"a: damaged: the Ogg page at byte {page.begin:,} does not match its checksum"
        ):
            joined(decoder, page.position - 100, page.position + 100)
        with pytest.raises(AudioCorruptError, match="damaged"):
            joined(decoder)
        # Later parts are decoded from their own pages, without the damaged page.
        for start in range(page.position + RATE, len(everything) - RATE, 50_021):
            part = joined(decoder, start, start + RATE)
            np.testing.assert_allclose(part, everything[start : start + RATE], atol=1e-6)
