import dataclasses

import pytest

from musictag.errors import UsageError
from musictag.features import config
from musictag.features.config import FeatureConfig


def test_a_default_clip_lasts_three_seconds():
    assert FeatureConfig().clip_seconds == pytest.approx(2.992)


def test_settings_survive_their_json_form():
    settings = FeatureConfig(n_mels=48, fmax=7_000.0)
    assert FeatureConfig.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FeatureConfig)])
def test_the_hash_depends_on_every_field(field):
    default = FeatureConfig()
    step = -1 if field == "fmax" else 1
    other = dataclasses.replace(default, **{field: getattr(default, field) + step})
    assert other.feature_hash != default.feature_hash


def test_the_default_hash_is_that_of_the_tables_already_written():
    assert FeatureConfig().feature_hash == "fe981f109277f9a9"


def test_the_hash_depends_on_the_version_of_the_code(monkeypatch):
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
def test_settings_that_mean_nothing_are_refused_by_name(fields, name):
    with pytest.raises(UsageError, match=name):
        FeatureConfig(**fields)


def test_an_unknown_field_is_named():
    with pytest.raises(UsageError, match="no field n_mel; it has"):
        FeatureConfig.from_dict({"n_mel": 96})
