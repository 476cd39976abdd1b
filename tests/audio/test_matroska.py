"""Damage of a Matroska or WebM file costs the blocks that it hits, and what follows keeps its time."""

import struct

import pytest

from damage import RUBBISH, lost, overwritten, zeroed
from encoding import by_ffmpeg
from musictag.errors import AudioDamagedError, AudioError
from musictag.features.extract import track_clips
from musictag.features.limits import Limits
from songs import CONFIG, SECONDS, TOLERANCES, around_damage, differences, samples_at, song, undamaged

pytestmark = pytest.mark.slow


def test_lost_header_of_a_cluster_does_not_shift_what_follows(tmp_path):
    data = song(".mka")
    header = data.index(b"\x1f\x43\xb6\x75", len(data) // 3)
    (tmp_path / "good.mka").write_bytes(data)
    for change in (overwritten, lost):
        (tmp_path / "bad.mka").write_bytes(change(data, header - 50))
        samples, found, rate = around_damage(tmp_path / "bad.mka")
        # A cluster has a few seconds.
        assert len(found.spans) == 1
        assert 1 < found.seconds < 7
        assert differences(samples, undamaged(tmp_path / "good.mka"), found, rate).max() < TOLERANCES[".mka"]


@pytest.mark.parametrize("name", ["SeekHead", "Tags", "Cues"])
def test_damage_outside_of_the_clusters_of_a_matroska_file_costs_no_sound(tmp_path, name):
    mark = {"SeekHead": b"\x11\x4d\x9b\x74", "Tags": b"\x12\x54\xc3\x67", "Cues": b"\x1c\x53\xbb\x6b"}[name]
    data = bytearray(song(".mka"))
    data[data.index(mark) + 4] ^= 0x10  # its size
    (tmp_path / "a.mka").write_bytes(data)
    track = track_clips(tmp_path / "a.mka", "a", CONFIG)
    assert track.damaged_s < 0.1
    assert track.duration_s == pytest.approx(SECONDS, abs=0.1)


def test_bytes_before_the_segment_of_a_damaged_matroska_file_are_an_error(tmp_path):
    data = song(".mka")
    segment = data.index(b"\x18\x53\x80\x67")
    (tmp_path / "a.mka").write_bytes(data[:segment] + RUBBISH[:40] + zeroed(data[segment:], len(data) // 2))
    with pytest.raises(AudioError, match=r"^a: "):
        track_clips(tmp_path / "a.mka", "a", CONFIG)


def test_live_stream_may_end_within_a_block_but_not_be_damaged(tmp_path):
    data = by_ffmpeg(samples_at(48_000), 48_000, "webm", "libopus", {"live": "1"})
    path = tmp_path / "a.webm"
    path.write_bytes(data[: len(data) * 9 // 10])
    assert len(undamaged(path)) / 48_000 == pytest.approx(0.9 * SECONDS, abs=0.5)
    path.write_bytes(lost(data, len(data) // 2))
    with pytest.raises(AudioDamagedError, match=r"^a: damaged: no element begins at byte .*; how much is lost is not"):
        track_clips(path, "a", CONFIG)


def test_damaged_timestamp_is_an_error(tmp_path):
    data = bytearray(song(".mka"))
    # The second cluster begins in a thousand hours.
    place = data.index(b"\x1f\x43\xb6\x75", len(data) // 3)
    at = data.index(b"\xe7", place)
    size = data[at + 1] & 0x7F
    data[at + 2 : at + 2 + size] = struct.pack(">Q", 3_600_000_000)[-size:] if size >= 4 else b"\xff" * size
    (tmp_path / "a.mka").write_bytes(overwritten(bytes(data), len(data) // 6))
    with pytest.raises(AudioError, match=r"^a: "):
        track_clips(tmp_path / "a.mka", "a", CONFIG, limits=Limits(max_damage=0.2))
