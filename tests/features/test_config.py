import dataclasses

import pytest

from musictag.errors import UsageError
from musictag.features import config
from musictag.features.config import FeatureConfig


def test_default_clip_is_three_seconds_long():
    assert FeatureConfig().clip_seconds == pytest.approx(2.992)


def test_from_dict_is_the_inverse_of_to_dict():
    settings = FeatureConfig(n_mels=48, fmax=7_000.0)
    assert FeatureConfig.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FeatureConfig)])
def test_hash_depends_on_every_field(field):
    default = FeatureConfig()
    step = -1 if field == "fmax" else 1
    other = dataclasses.replace(default, **{field: getattr(default, field) + step})
    assert other.feature_hash != default.feature_hash


def test_default_hash_never_changes():
    assert FeatureConfig().feature_hash == "fe981f109277f9a9"


def test_hash_depends_on_the_version_of_the_front_end(monkeypatch):
    before = FeatureConfig().feature_hash
    monkeypatch.setattr(config, "FRONT_END_VERSION", config.FRONT_END_VERSION + 1)
    assert FeatureConfig().feature_hash != before


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"sample_rate": 0}, "sample_rate"),
        ({"n_fft": 0}, "n_fft"),
        ({"hop_length": -1}, "hop_length"),
        ({"hop_length": 513}, "hop_length"),
        ({"n_mels": 0}, "n_mels"),
        ({"clip_frames": 0}, "clip_frames"),
        ({"fmin": -1.0}, "fmin"),
        ({"fmin": 8_000.0}, "fmin"),
        ({"fmax": 8_001.0}, "fmax"),
        ({"log_gain": 0.0}, "log_gain"),
        ({"log_gain": float("nan")}, "log_gain"),
    ],
)
def test_invalid_setting_is_an_error_with_its_name(fields, name):
    with pytest.raises(UsageError, match=name):
        FeatureConfig(**fields)


def test_unknown_field_is_an_error_with_its_name():
    with pytest.raises(UsageError, match="no field n_mel; it has"):
        FeatureConfig.from_dict({"n_mel": 96})
