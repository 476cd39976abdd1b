import socket
from collections.abc import Iterator

import av
import numpy as np
import pytest

from encoding import encoded
from hostile import FILES
from musictag.errors import AudioUnsupportedError
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips

# Clips are so short that two clips of a file are decoded by seeking.
CONFIG = FeatureConfig(clip_frames=20)
# These files are damaged at a place that the clips may not cover.
DAMAGED_BETWEEN_CLIPS = "garbage-"


@pytest.mark.parametrize(
    ("name", "clips_per_track"),
    [(name, n) for name in FILES for n in (None, 2) if n is None or not name.startswith(DAMAGED_BETWEEN_CLIPS)],
)
def test_a_file_is_decoded_or_fails_with_the_expected_error(tmp_path, name, clips_per_track):
    make, outcome = FILES[name]
    path = tmp_path / name
    path.write_bytes(make())
    if isinstance(outcome, tuple):
        with pytest.raises(outcome, match=r"^a track: "):
            track_clips(path, "a track", CONFIG, clips_per_track)
        return
    clips, starts, duration_s, _ = track_clips(path, "a track", CONFIG, clips_per_track)
    assert clips.shape == (len(starts), CONFIG.clip_frames, CONFIG.n_mels)
    assert np.isfinite(clips).all()
    assert duration_s == pytest.approx(outcome, abs=0.1)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {}\n",
    "concat-protocol": "concat:{}|{}",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
}


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A local port that must not get a connection."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        yield server


@pytest.fixture
def other(tmp_path):
    """A file that a playlist must not open."""
    path = tmp_path / "other.aac"
    path.write_bytes(encoded("adts.aac"))
    return path


@pytest.mark.parametrize("suffix", [".mp3", ".m4a", ".m3u8", ".sdp", ".mpd"])
@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_a_playlist_opens_no_other_file_and_no_connection(tmp_path, server, other, playlist, suffix):
    path = tmp_path / f"playlist{suffix}"
    for target in (other.name, str(other), f"http://127.0.0.1:{server.getsockname()[1]}/a.aac"):
        path.write_text(PLAYLISTS[playlist].format(target, target))
        with pytest.raises(AudioUnsupportedError):
            track_clips(path, "a track", CONFIG)
    with pytest.raises(BlockingIOError):  # no connection is waiting
        server.accept()


@pytest.mark.parametrize(("playlist", "suffix"), [("hls", ".m3u8"), ("concat", ".mp3")])
def test_ffmpeg_without_our_options_opens_the_other_file(tmp_path, other, playlist, suffix):
    path = tmp_path / f"playlist{suffix}"
    path.write_text(PLAYLISTS[playlist].format(other.name, other.name))
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 80_000
