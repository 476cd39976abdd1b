"""Decoding continues after damage: lost audio becomes silence of the same length, and is reported."""

import itertools
import mmap
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_music
from damage import inserted, lost, overwritten, zeroed
from encoding import FORMATS, by_ffmpeg, encoded
from musictag.audio import mp3
from musictag.audio.damaged import open_damaged
from musictag.audio.mixing import Mixer
from musictag.audio.parts import Damage
from musictag.errors import AudioDamagedError, AudioError, AudioTooLongError, AudioTruncatedError
from musictag.features.config import FeatureConfig
from musictag.features.extract import TrackClips, track_clips
from musictag.features.limits import Limits
from songs import CONFIG, RATE, SECONDS, TOLERANCES, around_damage, differences, samples_at, song, undamaged


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*FORMATS} - {"fragmented.m4a"}))
def test_undamaged_file_is_decoded_without_loss(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(name))
    expected = undamaged(path)
    with open_damaged(path, "a", Mixer(), 0.5) as audio:
        blocks = audio.blocks()
        samples = [next(blocks)]
        with pytest.raises(AudioDamagedError, match="FFmpeg finds no damage"):
            samples.extend(blocks)
    assert audio.damage.seconds == 0
    np.testing.assert_allclose(np.concatenate(samples), expected, atol=1e-5)


# Formats whose frames, pages or packets have checksums or places of their own.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *itertools.product(
            [".mp3", ".flac", ".ogg", ".opus", ".wv", ".m4a", ".mp4", ".mka"], [overwritten, lost, zeroed, inserted]
        ),
        *itertools.product([".webm"], [lost, zeroed, inserted]),
        *itertools.product([".mp2"], [lost, zeroed]),  # without a header, inserted bytes are lost frames
    ],
)
def test_damage_in_the_middle_is_left_out_and_keeps_its_time(tmp_path, suffix, damage):
    (tmp_path / f"good{suffix}").write_bytes(song(suffix))
    # Not in the middle of the file: there, a cluster of the WebM file begins.
    (tmp_path / f"bad{suffix}").write_bytes(damage(song(suffix), len(song(suffix)) * 45 // 100))
    expected = undamaged(tmp_path / f"good{suffix}")
    with pytest.raises((AudioDamagedError, AudioTruncatedError)):
        track_clips(tmp_path / f"bad{suffix}", "a", CONFIG, limits=Limits(max_damage=0))
    samples, found, rate = around_damage(tmp_path / f"bad{suffix}")
    assert len(samples) == pytest.approx(len(expected), abs=0.01 * rate)
    # Pages of Ogg and blocks of WavPack have a second of sound.
    assert 0 < found.seconds < (2.5 if suffix in (".ogg", ".opus", ".wv") else 0.5)
    assert differences(samples, expected, found, rate).max() < TOLERANCES.get(suffix, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [overwritten, zeroed])
@pytest.mark.parametrize("suffix", [".aac", ".m4a", ".wma", ".wv", ".tta", ".mka", ".webm"])
def test_packets_that_cannot_be_decoded_are_left_out(tmp_path, suffix, damage):
    (tmp_path / f"good{suffix}").write_bytes(song(suffix))
    expected = undamaged(tmp_path / f"good{suffix}")
    n_found = 0
    for share in (0.3, 0.45, 0.7):
        (tmp_path / f"bad{suffix}").write_bytes(damage(song(suffix), int(len(song(suffix)) * share)))
        try:
            undamaged(tmp_path / f"bad{suffix}")
        except AudioDamagedError:
            n_found += 1
            samples, found, rate = around_damage(tmp_path / f"bad{suffix}")
            assert found.spans[0][0] / SECONDS == pytest.approx(share, abs=0.15)
            assert found.seconds < 3  # packets of WavPack and TTA have one or two seconds
            # The timestamps of WMA are in ms.
            is_near = differences(samples, expected, found, rate).max() < TOLERANCES.get(suffix, 1e-4)
            assert is_near or suffix == ".wma"
            assert len(samples) == pytest.approx(len(expected), abs=0.001 * rate)
    # WMA and AAC do not show all damage.
    assert n_found > 0 or (suffix, damage) == (".wma", overwritten)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    suffix=st.sampled_from([".mp3", ".flac", ".ogg", ".opus", ".wv", ".m4a", ".mp4", ".mka", ".webm"]),
    place=st.floats(0.1, 0.9),
    n_bytes=st.integers(1, 3_000),
    is_lost=st.booleans(),
)
def test_lost_and_inserted_bytes_never_shift_what_follows(suffix, place, n_bytes, is_lost):
    data = song(suffix)
    change = lost if is_lost else inserted
    with tempfile.TemporaryDirectory() as folder:
        good, bad = Path(folder) / f"good{suffix}", Path(folder) / f"bad{suffix}"
        good.write_bytes(data)
        bad.write_bytes(change(data, int(len(data) * place), n_bytes))
        samples, found, rate = around_damage(bad)
        assert differences(samples, undamaged(good), found, rate).max() < TOLERANCES.get(suffix, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".au", ".flac", ".mp3", ".m4a", ".mka", ".wma", ".tta"])
def test_truncation_is_damage_at_the_end(tmp_path, suffix):
    data = song(suffix)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    expected = undamaged(path)
    path.write_bytes(data[: int(len(data) * 0.95)])
    track = track_clips(path, "a", CONFIG, limits=Limits(max_damage=0.2))
    assert track.duration_s == pytest.approx(SECONDS, abs=0.2)
    assert 0.3 < track.damaged_s < 3
    assert track.starts == [start for start in track.starts if start * 0.016 < SECONDS - track.damaged_s]
    samples, found, rate = around_damage(path)
    assert found.spans[-1][1] == pytest.approx(len(samples) / rate, abs=0.1)
    assert differences(samples, expected, found, rate).max() < 1e-4
    with pytest.raises(AudioError, match=r"a: (truncated|damaged|decoding failed)"):
        track_clips(path, "a", CONFIG, limits=Limits(max_damage=0.01))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".ogg", ".aac"])
def test_truncation_of_unknown_length_is_an_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(song(suffix)[: int(len(song(suffix)) * 0.99)])
    with pytest.raises(AudioError, match=r"how much is lost is not known"):
        track_clips(path, "a", CONFIG)


@pytest.mark.slow
def test_fragments_that_follow_a_damaged_one_are_missed(tmp_path):
    """FFmpeg stops at a damaged fragment without an error."""
    data = encoded("fragmented.m4a", seconds=5.0)
    (tmp_path / "a.m4a").write_bytes(zeroed(data, len(data) // 2))
    with pytest.raises(AudioTruncatedError, match=r"truncated: .*; how much is lost is not known"):
        track_clips(tmp_path / "a.m4a", "a", CONFIG)


def clips_by_start(track: TrackClips) -> dict[int, np.ndarray]:
    return dict(zip(track.starts, track.clips.astype(np.float32), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg", ".m4a"])
def test_clips_that_touch_damage_are_left_out_and_others_are_equal(tmp_path, suffix):
    data = song(suffix)
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    good.write_bytes(data)
    bad.write_bytes(zeroed(data, len(data) // 2))
    expected = clips_by_start(track_clips(good, "a", CONFIG))
    track = track_clips(bad, "a", CONFIG, limits=Limits(max_damage=0.2))
    missing = set(expected) - set(track.starts)
    clip_s = CONFIG.clip_seconds
    assert 1 <= len(missing) <= 2 + track.damaged_s / clip_s
    assert all(start * 0.016 == pytest.approx(SECONDS / 2, abs=track.damaged_s + 1.5) for start in missing)
    for start, clip in clips_by_start(track).items():
        np.testing.assert_allclose(clip, expected[start], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg"])
def test_of_n_clips_others_are_drawn(tmp_path, suffix):
    data = song(suffix)
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    good.write_bytes(data)
    bad.write_bytes(zeroed(data, len(data) // 2))
    wanted = track_clips(good, "a", CONFIG, 5)
    track = track_clips(bad, "a", CONFIG, 5, Limits(max_damage=0.2))
    assert len(track.starts) == 5
    assert wanted.starts[2] not in track.starts
    assert abs(track.starts[2] - wanted.starts[2]) * 0.016 < track.damaged_s + 1
    same = set(track.starts) & set(wanted.starts)
    assert len(same) >= 4
    for start in same:
        np.testing.assert_allclose(clips_by_start(track)[start], clips_by_start(wanted)[start], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_damage_that_no_clip_reads_is_not_counted(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(zeroed(song(suffix), len(song(suffix)) // 3))
    assert track_clips(path, "a", CONFIG, 1).damaged_s == 0  # the clip is in the middle


@pytest.mark.slow
@pytest.mark.parametrize("max_damage", [0, 0.001])
def test_more_damage_than_the_limit_is_an_error_that_says_how_much(tmp_path, max_damage):
    path = tmp_path / "a.flac"
    path.write_bytes(zeroed(song(".flac"), len(song(".flac")) // 2, 10_000))
    with pytest.raises(AudioError, match=r"^a: ") as raised:
        track_clips(path, "a", CONFIG, limits=Limits(max_damage=max_damage))
    assert ("of 20.00 s are lost, --max-damage allows 0.001" in str(raised.value)) == (max_damage > 0)


def test_damage_everywhere_leaves_no_clip(tmp_path):
    path = tmp_path / "a.flac"
    data = encoded("plain.flac", seconds=1.0)
    path.write_bytes(zeroed(data, len(data) // 2, 10))
    with pytest.raises(AudioTruncatedError, match="every clip is damaged"):
        track_clips(path, "a", FeatureConfig(), limits=Limits(max_damage=0.5))


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "begin"), [(".ogg", b"OggS"), (".opus", b"OggS"), (".wv", b"wvpk")])
def test_inserted_bytes_between_pages_and_blocks_lose_nothing(tmp_path, suffix, begin):
    data = song(suffix)
    (tmp_path / f"good{suffix}").write_bytes(data)
    (tmp_path / f"bad{suffix}").write_bytes(inserted(data, data.index(begin, len(data) // 2)))
    samples, found, rate = around_damage(tmp_path / f"bad{suffix}")
    assert found.seconds == 0
    assert differences(samples, undamaged(tmp_path / f"good{suffix}"), found, rate).max() < TOLERANCES.get(suffix, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp2", ".mp3"])
def test_files_without_a_declared_length_have_the_length_of_their_frames(tmp_path, suffix):
    options = {"write_xing": "0", "id3v2_version": "0"} if suffix == ".mp3" else {}
    codec = {".mp2": "mp2", ".mp3": "libmp3lame"}[suffix]
    (tmp_path / f"a{suffix}").write_bytes(by_ffmpeg(samples_at(RATE), RATE, suffix[1:], codec, options))
    whole, five = (track_clips(tmp_path / f"a{suffix}", "a", CONFIG, n) for n in (None, 5))
    assert whole.duration_s == five.duration_s


@pytest.mark.slow
def test_damaged_track_that_is_too_long_says_both(tmp_path):
    (tmp_path / "a.mp3").write_bytes(zeroed(song(".mp3"), len(song(".mp3")) // 2))
    with pytest.raises(AudioTooLongError, match=r"longer than .* hours.*it is damaged.*frames are missing"):
        track_clips(tmp_path / "a.mp3", "a", CONFIG, 3, Limits(max_hours=SECONDS / 7_200))


spans = st.lists(st.tuples(st.integers(-20, 120), st.integers(0, 30)), max_size=12)


@given(spans, st.tuples(st.integers(0, 100), st.integers(1, 30)))
def test_damage_is_the_union_of_its_spans(added, question):
    damage, is_lost = Damage(100.0), np.zeros(100, np.bool_)
    for begin, length in added:
        damage.add(float(begin), float(begin + length))
        is_lost[max(0, begin) : max(0, begin + length)] = True
    assert damage.seconds == is_lost.sum()
    assert damage.spans == sorted(damage.spans)
    begin, length = question
    assert damage.touches(begin, begin + length) == is_lost[begin : begin + length].any()


def crc_protected(data: bytes) -> bytes:
    """Return an MP3 file with a Xing frame without a checksum, whose other frames seem to have one."""
    changed = bytearray(data)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        for begin in mp3.find_frames(mapped).begins.tolist():
            changed[begin + 1] &= 0xFE
    return bytes(changed)


def test_frames_with_and_without_a_checksum_are_of_one_file():
    data = encoded("plain.mp3")
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        expected = mp3.find_frames(mapped).begins.tolist()
        mapped[:] = crc_protected(data)
        assert mp3.find_frames(mapped).begins.tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("after", [b"", bytes(20_000), b"\x01" * 20_000])
def test_header_of_a_flac_file_alone_is_truncated(tmp_path, after):
    (tmp_path / "a.flac").write_bytes(encoded("plain.flac")[:86] + after)
    with pytest.raises(AudioError, match=r"^a: "):
        track_clips(tmp_path / "a.flac", "a", CONFIG)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec", "suffix"), [("mp4", "aac", ".m4a"), ("wv", "wavpack", ".wv")])
def test_damage_in_eight_channels_does_not_crash(tmp_path, container, codec, suffix):
    data = by_ffmpeg(make_music(8.0, 48_000, 8), 48_000, container, codec, {}, "7.1")
    (tmp_path / f"a{suffix}").write_bytes(zeroed(data, len(data) // 2))
    track = track_clips(tmp_path / f"a{suffix}", "a", CONFIG, limits=Limits(max_damage=0.5))
    assert 0 < track.damaged_s < 3


@pytest.mark.slow
def test_lost_pages_of_flac_in_ogg_do_not_shift_what_follows(tmp_path):
    data = by_ffmpeg(samples_at(RATE), RATE, "ogg", "flac", {})
    good, bad = tmp_path / "good.oga", tmp_path / "bad.oga"
    good.write_bytes(data)
    for share in (0.1, 0.3, 0.7):
        bad.write_bytes(zeroed(data, int(len(data) * share)))
        samples, found, rate = around_damage(bad)
        assert len(found.spans) == 1
        assert found.spans[0][0] / SECONDS == pytest.approx(share, abs=0.1)
        assert differences(samples, undamaged(good), found, rate).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("n_bytes", [2_000, 16_000])
def test_lost_beginning_of_an_mp3_file_is_damage_at_the_beginning(tmp_path, n_bytes):
    data = song(".mp3")
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        first = int(mp3.find_frames(mapped).begins[0])
    good, bad = tmp_path / "good.mp3", tmp_path / "bad.mp3"
    good.write_bytes(data)
    for change in (zeroed, lost):
        bad.write_bytes(change(data, first, n_bytes))
        samples, found, rate = around_damage(bad)
        assert found.spans[0][0] == 0
        assert differences(samples, undamaged(good), found, rate).max() < 1e-4


@pytest.mark.slow
def test_other_boxes_between_samples_and_index_are_not_inserted_bytes(tmp_path):
    data = song(".mp4")
    index = data.rindex(b"moov") - 4
    free = struct.pack(">I4s", 3_000, b"free") + bytes(2_992)
    path = tmp_path / "a.mp4"
    path.write_bytes(zeroed(data[:index] + free + data[index:], index // 2, 6_000))
    _, found, _ = around_damage(path)
    assert found.seconds < 1


@pytest.mark.slow
def test_damaged_first_packet_of_an_m4a_file_is_left_out(tmp_path):
    data = song(".m4a")
    (tmp_path / "a.m4a").write_bytes(zeroed(data, data.index(b"mdat") + 4, 400))
    _, found, _ = around_damage(tmp_path / "a.m4a")
    assert found.spans[0][0] < 0.1
    assert found.seconds < 0.2
