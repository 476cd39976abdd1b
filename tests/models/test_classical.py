from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import ClassifierChain
from sklearn.svm import SVC

from musictag.errors import ModelError, UsageError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import ARCHITECTURES, SINGLE, build_model
from musictag.models.artifact import load_model, save_model
from musictag.models.classical import CLASSICAL, Classical, standardize
from musictag.models.specs import TaggerSpec
from musictag.training.baselines import fit_setting

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((60, 12)) * RNG.uniform(0.1, 9, 12) + RNG.uniform(-5, 5, 12)).astype(np.float32)
NEW = (X[:20] + RNG.standard_normal((20, 12))).astype(np.float32)
Z = (X - X.mean(axis=0)) / X.std(axis=0)
Y = (Z @ RNG.standard_normal((12, 4)) + RNG.standard_normal((60, 4))) > 0.5
CHOICES = {
    "linear-svm": {"penalty": 0.3, "class_weight": "balanced"},
    "rbf-svm": {"penalty": 2.0, "reach": 0.7, "class_weight": None},
    "classifier-chain": {"penalty": 0.1, "class_weight": None, "n_chains": 3},
    "random-forest": {"min_tracks": 2, "tried": 0.5, "class_weight": None, "n_trees": 7},
    "ml-knn": {"neighbours": 5},
}


def fitted(method: str) -> Classical:
    return fit_setting(method, X, Y, CHOICES[method], 0)


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(NEW)).numpy()


def standardized(descriptors: np.ndarray) -> np.ndarray:
    return standardize(*(torch.from_numpy(of) for of in (descriptors, X.mean(axis=0), X.std(axis=0)))).numpy()


@pytest.mark.parametrize("method", ["linear-svm", "rbf-svm"])
def test_a_support_vector_machine_equals_scikit_learn(method: str) -> None:
    kernel = {"kernel": "linear", "C": 0.3 / 12} if method == "linear-svm" else {"gamma": 0.7 / 12, "C": 2.0}
    machines = [
        SVC(class_weight=CHOICES[method]["class_weight"], tol=1e-6, **kernel).fit(standardized(X), y) for y in Y.T
    ]
    expected = np.stack([machine.decision_function(standardized(NEW)) for machine in machines], axis=1)
    np.testing.assert_allclose(logits(fitted(method)), expected, atol=0.01)


def test_classifier_chains_equal_scikit_learn() -> None:
    model = fitted("classifier-chain")
    chains = [
        ClassifierChain(LogisticRegression(C=0.1, max_iter=2000), order=order).fit(standardized(X), Y)
        for order in model.order.tolist()
    ]
    expected = np.mean([chain.predict_proba(standardized(NEW)) for chain in chains], axis=0)
    assert len({tuple(order) for order in model.order.tolist()}) == 3
    np.testing.assert_allclose(1 / (1 + np.exp(-logits(model))), expected, atol=1e-4)


def test_a_random_forest_equals_scikit_learn() -> None:
    forest = RandomForestClassifier(7, min_samples_leaf=2, max_features=0.5, random_state=0)
    expected = [forest.fit(standardized(X), y).predict_proba(standardized(NEW))[:, 1] for y in Y.T]
    scores = 1 / (1 + np.exp(-logits(fitted("random-forest"))))
    np.testing.assert_allclose(scores, (7 * np.stack(expected, axis=1) + 1) / 9, atol=1e-5)


@pytest.mark.parametrize("method", CLASSICAL)
def test_a_saved_classical_model_loads_with_equal_logits(method: str, tmp_path: Path) -> None:
    model = fitted(method)
    spec = TaggerSpec(
        architecture=method,
        params=model.params,
        feature_config=FeatureConfig(),
        vocabulary=("a", "b", "c", "d"),
        thresholds=(0.5,) * 4,
        calibration=((1.0, 0.0),) * 4,
        provenance={},
    )
    save_model(tmp_path, model, spec)
    loaded, read = load_model(tmp_path)
    assert read == spec
    assert isinstance(loaded, CLASSICAL[method])
    np.testing.assert_array_equal(logits(loaded), logits(model))
    # The same description, weights of another size.
    (tmp_path / "tagger.json").write_text(
        (tmp_path / "tagger.json").read_text().replace('"descriptors": 12', '"descriptors": 13')
    )
    with pytest.raises(ModelError, match="shape"):
        load_model(tmp_path)


@pytest.mark.parametrize("method", CLASSICAL)
def test_invalid_sizes_are_refused(method: str) -> None:
    sizes = fitted(method).params["sizes"]
    for wrong in (None, 3, {}, {**sizes, "learned": 0}, {**sizes, "learned": "4"}, {**sizes, "other": 1}):
        with pytest.raises(UsageError, match=r"sizes|learned"):
            build_model(method, {"sizes": wrong}, n_mels=96, n_tags=4)


def test_more_neighbours_than_tracks_are_refused() -> None:
    sizes = {"descriptors": 2, "learned": 1, "stored": 3, "neighbours": 4}
    with pytest.raises(UsageError, match="neighbours is 4"):
        build_model("ml-knn", {"sizes": sizes}, n_mels=96, n_tags=1)


def test_extreme_descriptors_are_clipped() -> None:
    far = torch.tensor([[1e9, 0.5]])
    assert standardize(far, torch.zeros(2), torch.ones(2)).tolist() == [[8.0, 0.5]]


def test_classical_models_are_not_in_the_networks_to_train() -> None:
    assert CLASSICAL.keys() <= ARCHITECTURES.keys()
    assert not CLASSICAL.keys() & SINGLE.keys()
