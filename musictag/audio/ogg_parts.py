"""Find the undamaged pages of an Ogg file by their checksums."""

import itertools
import mmap
import struct
from collections.abc import Iterator
from fractions import Fraction

from musictag.audio import ogg_pages
from musictag.audio.ogg_pages import LAST, MAGIC, NO_POSITION, OPUS_SETTLING_S, Page
from musictag.audio.parts import Anchor, Part, Parts, merged_spans


def find_parts(data: mmap.mmap, sample_rate: int) -> Parts | None:
    """Return the undamaged parts of a file whose stream has `sample_rate` Hz.

    Return None if it is not Ogg, has several streams, its header is damaged, or its last page, which tells the length,
    is missing.
    """
    pages = list(_intact_pages(data))
    n_header = sum(1 for _ in itertools.takewhile(lambda page: page.position in (0, NO_POSITION), pages))
    header, audio = pages[:n_header], pages[n_header:]
    is_whole = [page.number for page in header] == list(range(n_header)) and header and header[0].begin == 0
    if not is_whole or not audio or not audio[-1].flags & LAST or len({page.stream for page in pages}) > 1:
        return None
    is_opus = ogg_pages.is_opus(data, header[0])
    settling_s = OPUS_SETTLING_S if is_opus else 0.0  # other streams settle within the packet that is left out
    # Opus declares how many samples decoders leave out at the beginning (RFC 7845, 5.1).
    skipped = struct.unpack_from("<10xH", data, data.find(b"OpusHead"))[0] if is_opus else 0
    rate = ogg_pages.OPUS_RATE if is_opus else sample_rate
    header_span = (0, header[-1].end)

    def seconds(position: int) -> Fraction:
        return Fraction(max(0, position - skipped), rate)

    parts = []
    for run in _runs(audio):
        # The position of a page counts the samples up to the end of the last packet that ends on it.
        first = next((page for page in run if page.position != NO_POSITION), None)
        if first is None:
            continue
        anchor = Anchor((header_span, (run[0].begin, first.end)), seconds(first.position), run[0].number == n_header)
        spans = (header_span, *merged_spans((page.begin, page.end) for page in run))
        parts.append(Part(spans, anchor, settling_s))
    has_other_bytes = sum(page.end - page.begin for page in pages) < len(data)
    return Parts(parts, seconds(audio[-1].position), has_other_bytes=has_other_bytes)


def _runs(pages: list[Page]) -> list[list[Page]]:
    """Return the runs of pages of which none is missing. Bytes that are no page may be between them."""
    runs = [[pages[0]]]
    for before, page in itertools.pairwise(pages):
        if page.number == before.number + 1:
            runs[-1].append(page)
        else:
            runs.append([page])
    return runs


def _intact_pages(data: mmap.mmap) -> Iterator[Page]:
    begin = data.find(MAGIC)
    while begin >= 0:
        page = ogg_pages.parse_page(data, begin)
        if page is not None and ogg_pages.is_intact(data[page.begin : page.end]):
            yield page
            begin = data.find(MAGIC, page.end)
        else:
            begin = data.find(MAGIC, begin + 1)
