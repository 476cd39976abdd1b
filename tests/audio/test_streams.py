"""A file with several streams is as long as the audio stream that players choose."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from av.stream import Disposition

from musictag.audio.reader import open_audio, waveform_blocks
from musictag.errors import AudioTruncatedError

pytestmark = pytest.mark.slow

SAMPLE_RATE = 44_100


class Tone(NamedTuple):
    """An audio stream."""

    frequency: float
    seconds: float
    start_s: float = 0.0
    is_default: bool = False


def write(path: Path, tones: Iterable[Tone], video_s: float = 0.0, options: dict[str, str] | None = None) -> Path:
    """Write AAC streams (WMA in ASF), after a video stream if `video_s` is not 0."""
    container_format = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov", ".wmv": "asf"}[path.suffix]
    codec = "wmav2" if path.suffix == ".wmv" else "aac"
    with av.open(str(path), "w", format=container_format, container_options=options or {}) as container:
        video = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if video_s else None
        streams = [container.add_stream(codec, rate=SAMPLE_RATE, layout="mono") for _ in tones]
        for stream, tone in zip(streams, tones, strict=True):
            stream.bit_rate = 64_000
            stream.codec_context.open(strict=False)
            stream.disposition = Disposition.default if tone.is_default else Disposition(0)
        if video:
            for n in range(round(video_s * 10)):
                picture = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
                picture.pts = n
                container.mux(video.encode(picture))
        for stream, tone in zip(streams, tones, strict=True):
            time = np.arange(round(tone.seconds * SAMPLE_RATE)) / SAMPLE_RATE
            samples = (0.3 * np.sin(2 * np.pi * tone.frequency * time)).astype(np.float32)
            for begin in range(0, len(samples), stream.frame_size):
                part = samples[None, begin : begin + stream.frame_size]
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                frame.pts = begin + round(tone.start_s * SAMPLE_RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if video:
            container.mux(video.encode(None))
    return path


def heard(path: Path) -> tuple[float, float]:
    """Return the duration in s and the frequency in Hz of what is decoded."""
    with open_audio(path, "a") as audio:
        waveform = np.concatenate(list(waveform_blocks(audio, SAMPLE_RATE)))
    spectrum = np.abs(np.fft.rfft(waveform))
    return len(waveform) / SAMPLE_RATE, float(np.argmax(spectrum) * SAMPLE_RATE / len(waveform))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize(
    "tone", [Tone(440, 4), Tone(440, 4, start_s=3), Tone(440, 4, start_s=9)], ids=["shorter", "later", "beyond"]
)
def test_audio_may_be_shorter_than_the_video_or_begin_later(tmp_path: Path, suffix: str, tone: Tone) -> None:
    seconds, frequency = heard(write(tmp_path / f"a{suffix}", [tone], video_s=10))
    assert seconds == pytest.approx(4, abs=0.1)
    assert frequency == pytest.approx(440, abs=1)


def test_audio_of_asf_may_be_shorter_than_the_video(tmp_path: Path) -> None:
    assert heard(write(tmp_path / "a.wmv", [Tone(440, 4)], video_s=10))[0] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+empty_moov", "frag_keyframe+delay_moov", "dash"])
@pytest.mark.parametrize("start_s", [0, 5])
def test_audio_of_fragmented_mp4_may_be_shorter_than_the_video_or_begin_later(
    tmp_path: Path, flags: str, start_s: float
) -> None:
    path = write(tmp_path / "a.mp4", [Tone(440, 20, start_s)], video_s=25, options={"movflags": flags})
    assert heard(path)[0] == pytest.approx(20, abs=0.1)


def test_audio_alone_may_begin_later(tmp_path: Path) -> None:
    assert heard(write(tmp_path / "a.mkv", [Tone(440, 4, start_s=3)]))[0] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    ("tones", "expected"),
    [
        ([Tone(440, 4), Tone(880, 6, is_default=True)], (6, 880)),
        ([Tone(440, 4, is_default=True), Tone(880, 6)], (4, 440)),
        ([Tone(440, 4, is_default=True), Tone(880, 6, is_default=True)], (4, 440)),
    ],
)
def test_default_stream_is_chosen(
    tmp_path: Path, suffix: str, tones: list[Tone], expected: tuple[float, float]
) -> None:
    assert heard(write(tmp_path / f"a{suffix}", tones, video_s=2)) == pytest.approx(expected, abs=1)


def test_length_after_an_edit_list_is_that_of_what_is_played(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [Tone(440, 6)])
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 12  # after the version, the flags and the number of entries
    _, media_time = struct.unpack_from(">Ii", content, entry)
    struct.pack_into(">Ii", content, entry, 2_000, media_time + SAMPLE_RATE)  # two seconds, from the first second on
    path.write_bytes(content)
    assert heard(path)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_truncated_matroska_is_found_by_the_size_of_its_segment(tmp_path: Path, cut: float) -> None:
    path = write(tmp_path / "a.mkv", [Tone(440, 4), Tone(880, 4)], video_s=4)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(AudioTruncatedError, match="truncated: its part 'Segment' ends at byte"), open_audio(path, "a"):
        pass
