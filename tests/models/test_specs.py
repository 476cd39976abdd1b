import dataclasses

import pytest

from musictag.errors import FeatureMismatchError
from musictag.models.specs import check_features
from small import CONFIG, SPEC


def test_features_of_other_settings_are_refused_with_both_hashes() -> None:
    check_features(SPEC, CONFIG.feature_hash)
    other = dataclasses.replace(CONFIG, hop_length=128).feature_hash
    with pytest.raises(FeatureMismatchError, match=f"hash {other}, the model needs {CONFIG.feature_hash}"):
        check_features(SPEC, other)
