import dataclasses
import math

import numpy as np
import pytest
import torch

from musictag.errors import FeatureMismatchError, TrainingError, UsageError
from musictag.evaluation import metrics
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.models.artifact import load_model, save_model
from musictag.models.ensemble import Ensemble
from musictag.models.specs import TaggerSpec
from musictag.training.finetune import Network, average_weights, combine, initialize, network_from, network_from_scratch

CONFIG = FeatureConfig(n_mels=16, clip_frames=24)
OLD, OWN = ("fast", "loud", "old", "slow"), ("calm", "joyful", "sad")
TARGETS = [np.array(row, dtype=np.bool_) for row in ([1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0])]
ARCHITECTURES = {
    "cnn": {"channels": [4, 8], "hidden": 16},
    "musicnn": {"timbral": [3, 2], "temporal": [1, 2, 1]},
}


def source(architecture, seed=0, config=CONFIG, params=None):
    """Return a network whose batch normalization has seen a batch, and its spec."""
    spec = TaggerSpec(
        architecture=architecture,
        params=ARCHITECTURES[architecture] if params is None else params,
        feature_config=config,
        vocabulary=OLD,
        thresholds=(0.5,) * len(OLD),
        calibration=((1.0, 0.0),) * len(OLD),
        provenance={},
    )
    torch.manual_seed(seed)
    model = build_model(architecture, spec.params, n_mels=config.n_mels, n_tags=len(OLD))
    model(torch.rand(8, 24, config.n_mels))
    return model.eval(), spec


def bodies(model):
    return {name: weight for name, weight in model.state_dict().items() if "head" not in name}


def assert_equal(some, others):
    assert some.keys() == others.keys()
    for name, weight in some.items():
        assert torch.equal(weight, others[name]), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_source_gives_its_body_and_architecture(architecture):
    model, spec = source(architecture)
    network = network_from([(model, spec)], CONFIG, OWN, TARGETS)
    assert (network.architecture, network.params) == (architecture, spec.params)
    built = network.build(seed=5)
    assert type(built) is type(model)
    assert_equal(bodies(built), bodies(model))


def test_several_sources_become_an_ensemble():
    sources = [source("cnn"), source("musicnn"), source("cnn", seed=1)]
    network = network_from(sources, CONFIG, OWN, TARGETS)
    assert network.architecture == "ensemble"
    built = network.build(seed=5)
    assert isinstance(built, Ensemble)
    for member, (model, _) in zip(built.members, sources, strict=True):
        assert_equal(bodies(member), bodies(model))


def test_members_of_an_ensemble_become_members():
    first = [source("cnn"), source("musicnn")]
    network = network_from(first, CONFIG, OLD, [np.ones(len(OLD), np.bool_)])
    spec = dataclasses.replace(first[0][1], architecture=network.architecture, params=network.params)
    third = source("cnn", seed=1)
    again = network_from([(network.build(0), spec), third], CONFIG, OWN, TARGETS)
    assert [member["architecture"] for member in again.params["members"]] == ["cnn", "musicnn", "cnn"]
    for member, (model, _) in zip(again.build(0).members, [*first, third], strict=True):
        assert_equal(bodies(member), bodies(model))
    alone = network_from([(network.build(0), spec)], CONFIG, OWN, TARGETS)
    assert alone.params == network.params


@pytest.mark.parametrize("kinds", [["cnn"], ["cnn", "musicnn"]], ids=str)
def test_initial_scores_are_the_frequencies_of_tags(kinds):
    built = network_from([source(kind) for kind in kinds], CONFIG, OWN, TARGETS).build(seed=5).eval()
    with torch.inference_mode():
        scores = torch.sigmoid(built(10 * torch.rand(3, 24, CONFIG.n_mels)))
    torch.testing.assert_close(scores, torch.tensor([[0.99, 0.25, 0.01]]).expand(3, 3))


def test_prior_is_the_bounded_logit_of_the_frequency():
    logits = metrics.prior_logits(TARGETS)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, [math.log(99), math.log(1 / 3), -math.log(99)], rtol=1e-6)


def test_combined_weights_have_the_names_of_the_new_network():
    (cnn, cnn_spec), (musicnn, musicnn_spec) = sources = [source("cnn"), source("musicnn")]
    architecture, params, weights = combine(sources, CONFIG.feature_hash)
    assert (architecture, params) == (
        "ensemble",
        {"members": [{"architecture": "cnn", "params": cnn_spec.params},
                     {"architecture": "musicnn", "params": musicnn_spec.params}]},
    )  # fmt: skip
    expected = {f"members.0.{name}" for name in bodies(cnn)} | {f"members.1.{name}" for name in bodies(musicnn)}
    assert set(weights) == expected


def test_training_does_not_change_the_sources():
    model, spec = source("cnn")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    built = network_from([(model, spec)], CONFIG, OWN, TARGETS).build(seed=5)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(1.0)
    assert_equal(model.state_dict(), before)


def test_random_weights_depend_only_on_the_seed():
    network = Network(architecture="cnn", params=ARCHITECTURES["cnn"], feature_config=CONFIG, vocabulary=OWN)
    torch.manual_seed(3)
    expected = build_model("cnn", ARCHITECTURES["cnn"], n_mels=CONFIG.n_mels, n_tags=len(OWN))
    assert_equal(network.build(seed=3).state_dict(), expected.state_dict())
    assert not torch.equal(network.build(seed=4).head.weight, expected.head.weight)


def test_network_from_scratch_gets_its_bands_from_the_features():
    front_end = dataclasses.replace(CONFIG, fmin=40.0, fmax=6000.0)
    given = {"channels": [4, 8], "hidden": 16}
    network = network_from_scratch("three-path", given, front_end, OWN)
    assert network == Network(
        architecture="three-path",
        params={"fmin": 40.0, "fmax": 6000.0, **given},
        feature_config=front_end,
        vocabulary=OWN,
    )
    assert given == {"channels": [4, 8], "hidden": 16}
    own_bands = network_from_scratch("three-path", {"fmax": 5000.0}, front_end, OWN)
    assert own_bands.params == {"fmin": 40.0, "fmax": 5000.0}
    assert network_from_scratch("cnn", given, front_end, OWN).params == given


def test_network_from_scratch_has_random_weights():
    built = network_from_scratch("cnn", ARCHITECTURES["cnn"], CONFIG, OWN).build(seed=3)
    torch.manual_seed(3)
    expected = build_model("cnn", ARCHITECTURES["cnn"], n_mels=CONFIG.n_mels, n_tags=len(OWN))
    assert_equal(built.state_dict(), expected.state_dict())


def test_source_of_other_features_is_refused():
    other = dataclasses.replace(CONFIG, hop_length=128)
    with pytest.raises(FeatureMismatchError, match=f"{CONFIG.feature_hash}, the model needs {other.feature_hash}"):
        network_from([source("cnn"), source("musicnn", config=other)], CONFIG, OWN, TARGETS)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda weights: weights.pop("dense.1.bias"), r"dense\.1\.bias has shape none, expected \(16,\)"),
        (lambda weights: weights.update(other=torch.zeros(2)), r"other has shape \(2,\), expected none"),
        (lambda weights: weights.update({"dense.1.bias": torch.zeros(9)}), r"has shape \(9,\), expected \(16,\)"),
        (lambda weights: weights.update({"head.bias": torch.zeros(3)}), r"head\.bias has shape \(3,\), expected none"),
    ],
)
def test_weights_of_another_shape_are_refused_and_change_nothing(change, complaint):
    model, _ = source("cnn")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights = {name: weight + 1 for name, weight in bodies(model).items()}
    change(weights)
    with pytest.raises(TrainingError, match=complaint):
        initialize(model, weights, (0.0,) * len(OLD))
    assert_equal(model.state_dict(), before)


def test_bias_of_another_vocabulary_is_refused():
    model, _ = source("cnn")
    with pytest.raises(TrainingError, match="the network has 4 tags, but the initial bias has 3"):
        initialize(model, bodies(model), (0.0,) * 3)


def test_trained_network_is_saved_as_an_artifact(tmp_path):
    network = network_from([source("cnn"), source("musicnn")], CONFIG, OWN, TARGETS)
    model = network.build(seed=0)
    rng = np.random.default_rng(0)
    truth, scores = rng.random((30, 3)) < 0.5, rng.random((30, 3)).astype(np.float32)
    save_model(tmp_path, model, network.spec(truth, scores, {"init": "a,b"}))
    loaded, spec = load_model(tmp_path)
    assert_equal(loaded.state_dict(), model.state_dict())
    assert (spec.vocabulary, spec.feature_config, spec.provenance["init"]) == (OWN, CONFIG, "a,b")
    assert spec.provenance["musictag"]
    assert len(set(spec.thresholds)) > 1


def test_average_weights_is_the_mean_with_the_same_dtypes():
    first, second = (source("cnn", seed=seed)[0].state_dict() for seed in (0, 1))
    mixed = average_weights([first, second])
    assert mixed.keys() == first.keys()
    for name, weight in mixed.items():
        assert weight.dtype == first[name].dtype
        torch.testing.assert_close(weight, ((first[name] + second[name]) / 2).to(weight.dtype))
    assert_equal(average_weights([first]), first)


def test_classical_source_is_refused():
    sizes = {"descriptors": 5, "learned": 4}
    model = build_model("linear-svm", {"sizes": sizes}, n_mels=CONFIG.n_mels, n_tags=len(OLD))
    spec = dataclasses.replace(source("cnn")[1], architecture="linear-svm", params=model.params)
    with pytest.raises(UsageError, match="is a linear-svm: it has no network to train"):
        combine([source("cnn"), (model, spec)], CONFIG.feature_hash)
