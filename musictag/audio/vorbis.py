"""Decoding Ogg Vorbis by FFmpeg, with exact positions."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterator

import av

from musictag.audio import ffmpeg, ogg_pages, pcm
from musictag.audio.ffmpeg_damage import ERRORS
from musictag.audio.libsndfile import SoundFileDecoder
from musictag.audio.pcm import Float32
from musictag.errors import AudioDamagedError, AudioUnsupportedError


@dataclasses.dataclass(frozen=True)
class VorbisDecoder(SoundFileDecoder):
    """Decode Ogg Vorbis with FFmpeg.

    Seeking in FFmpeg and in libsndfile is sometimes wrong by some hundred samples. So a part is found by the positions
    of the pages, and its packets are passed to FFmpeg. If the positions do not count samples, everything before the
    part is decoded.
    """

    pages: ogg_pages.OggPages

    def _whole(self) -> Iterator[Float32]:
        self.pages.check_checksums()
        try:
            with ffmpeg.open_ffmpeg(self.path, self.name, self.mixer) as whole:
                yield from whole.blocks()
        except AudioUnsupportedError as error:
            raise AudioDamagedError(f"{self.name}: decoding failed at the beginning ({error})") from error

    def _part(self, start: int, stop: float) -> Iterator[Float32]:
        samples = self._decode_packets(start, int(min(stop, self.file.frames)))
        yield from pcm.between(self._whole(), 0, start, stop) if samples is None else [samples]

    def _decode_packets(self, start: int, stop: int) -> Float32 | None:
        """Decode the samples [start, stop) from their packets; return None if the positions do not allow it."""
        index = bisect.bisect_right(self._page_ends, start, key=lambda end: end[0]) - 1
        if index < 0:
            return None
        begin, first_page = self._page_ends[index]
        try:
            samples = self._decode_pages(first_page, begin, stop)
        except ERRORS:
            return None
        return None if samples is None else samples[start - begin : stop - begin]

    def _decode_pages(self, first_page: int, begin: int, stop: int) -> Float32 | None:
        """Decode the samples [begin, stop) or more; page `first_page` ends at sample `begin`.

        Return None if the numbers of decoded samples differ from the positions of the pages.
        """
        position, decoded = begin, av.AudioFifo()
        pages = self.pages.packets(first_page)
        self._context.flush_buffers()
        # A packet yields the samples where it overlaps with the packet before it, so the first packet yields none.
        _, preceding = next(pages)
        if begin and (not preceding or self._context.decode(av.Packet(preceding[-1]))):
            return None
        for page, packets in pages:
            for frame in itertools.chain.from_iterable(self._context.decode(av.Packet(each)) for each in packets):
                frame.pts = None
                decoded.write(frame)
                position += frame.samples
            if page.position not in (position, ogg_pages.NO_POSITION) and not page.flags & ogg_pages.LAST:
                return None
            if position >= stop:
                break
        frame_of_all = decoded.read()
        return ffmpeg.mono_of(frame_of_all, self.mixer) if frame_of_all else None

    @functools.cached_property
    def _page_ends(self) -> list[tuple[int, int]]:
        """Sample positions with the index of the page that ends there; empty if positions do not count samples."""
        pages = self.pages.pages
        counts_samples = pages[-1].position == self.file.frames and self.pages.n_streams == 1
        if not counts_samples or self.file.channels > ffmpeg.MAX_PLANES:
            return []
        ends = [(page.position, at) for at, page in enumerate(pages) if page.position not in (0, ogg_pages.NO_POSITION)]
        return [(0, ends[0][1] - 1), *ends]

    @functools.cached_property
    def _context(self) -> av.AudioCodecContext:
        """FFmpeg's Vorbis decoder, initialized with the three header packets of the stream."""
        packets = itertools.chain.from_iterable(packets for _, packets in self.pages.packets())
        headers = list(itertools.islice(packets, 3))
        # Xiph's lacing: the number of headers less one, the lengths of all but the last, then the headers.
        lengths = b"".join(bytes([255] * (len(header) // 255) + [len(header) % 255]) for header in headers[:-1])
        context = av.CodecContext.create("vorbis", "r")
        context.extradata = bytes([len(headers) - 1]) + lengths + b"".join(headers)
        return context
