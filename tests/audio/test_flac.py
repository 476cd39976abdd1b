import mmap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictag.audio import flac


def second_file(path: Path) -> int | None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return flac.second_file(data)


@pytest.mark.parametrize("n_samples", [1, 15, 4_096, 4_097, 100_000, 700_001])
@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(44_100, 2, "PCM_16"), (96_000, 1, "PCM_24"), (11_025, 1, "PCM_S8")]
)
def test_last_frame_ends_at_the_declared_number_of_samples(
    tmp_path: Path, n_samples: int, rate: int, channels: int, subtype: str
) -> None:
    noise = np.random.default_rng(n_samples).uniform(-0.5, 0.5, (n_samples, channels))
    soundfile.write(tmp_path / "a.flac", noise, rate, subtype=subtype)
    content = (tmp_path / "a.flac").read_bytes()
    with (tmp_path / "a.flac").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = flac.parse_header(data[flac.last_frame(data) :][: flac.MAX_HEADER_BYTES])
        assert header.number * 4_096 + header.n_samples == n_samples
    assert second_file(tmp_path / "a.flac") is None
    (tmp_path / "b.flac").write_bytes(content + b"TAG" + bytes(125))
    assert second_file(tmp_path / "b.flac") is None
    soundfile.write(tmp_path / "c.flac", np.vstack([noise, noise[:7]]), rate, subtype=subtype)
    (tmp_path / "d.flac").write_bytes(content + (tmp_path / "c.flac").read_bytes())
    assert second_file(tmp_path / "d.flac") == len(content)


def test_tag_that_is_longer_than_the_end_that_is_read_is_searched(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (50_000, 2))
    soundfile.write(tmp_path / "a.flac", noise, 44_100)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "b.flac").write_bytes(content + bytes(100_000))
    assert second_file(tmp_path / "b.flac") is None
    (tmp_path / "c.flac").write_bytes(content + content + bytes(100_000))
    assert second_file(tmp_path / "c.flac") == len(content)
