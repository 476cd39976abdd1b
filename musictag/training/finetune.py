"""Prepare the network to train: from scratch, or from pretrained models (the sources).

One source gives its architecture and the weights of its body; several become the members of an ensemble. The head is
new, because it learns the vocabulary of the catalog.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import musictag
from musictag.errors import TrainingError, UsageError
from musictag.evaluation import metrics
from musictag.evaluation.calibration import fit_outputs
from musictag.features.config import FeatureConfig
from musictag.models.architectures import SINGLE, build_network, params_from
from musictag.models.artifact import load_model
from musictag.models.classical import CLASSICAL
from musictag.models.ensemble import Ensemble
from musictag.models.musicnn import Musicnn
from musictag.models.specs import NetworkSpec, TaggerSpec, check_features
from musictag.training.dataset import Dataset
from musictag.training.loop import is_head
from musictag.training.recipes import DEFAULT_MODEL

Source = tuple[nn.Module, TaggerSpec]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(NetworkSpec):
    """A network to train: its description and its initial weights."""

    weights: dict[str, Tensor] | None = None
    """Initial weights of the body, by name; None means random weights."""
    head_bias: tuple[float, ...] = ()
    """Initial bias (K,) of the head; used only with `weights`."""

    def build(self, seed: int) -> nn.Module:
        """Build the network in its initial state; `seed` makes its random weights.

        Raises `UsageError` for wrong params, and what `initialize` raises.
        """
        torch.manual_seed(seed)
        network = build_network(self)
        if self.weights is not None:
            initialize(network, self.weights, self.head_bias)
        return network

    def spec(
        self,
        truth: npt.NDArray[np.bool_],
        scores: npt.NDArray[np.float32],
        provenance: Mapping[str, str],
        min_precision: npt.NDArray[np.float64] | None = None,
    ) -> TaggerSpec:
        """Describe the trained network, with calibration and thresholds from validation tracks.

        Args:
            truth: targets (N, K) of the validation tracks.
            scores: joined scores (N, K) of the validation tracks.
            provenance: origin of the weights, by name; the version of musictag is added.
            min_precision: (K,), see `calibration.fit_thresholds`.
        """
        calibration, thresholds = fit_outputs(truth, scores, min_precision)
        return TaggerSpec(
            architecture=self.architecture,
            params=self.params,
            feature_config=self.feature_config,
            vocabulary=self.vocabulary,
            thresholds=thresholds,
            calibration=calibration,
            provenance={"musictag": musictag.__version__, **provenance},
        )


def network_from_scratch(
    architecture: str, params: Mapping[str, Any], feature_config: FeatureConfig, vocabulary: tuple[str, ...]
) -> Network:
    """Describe a network with random weights; `params` are those of `models.architectures.build_model`."""
    defaults = params_from(architecture, fmin=feature_config.fmin, fmax=feature_config.fmax)
    return Network(
        architecture=architecture,
        params={**defaults, **params},
        feature_config=feature_config,
        vocabulary=vocabulary,
    )


def make_network(
    dataset: Dataset, sources: Sequence[Path], architecture: str | None, params: Mapping[str, Any]
) -> Network:
    """Describe the network to train on a dataset.

    Args:
        dataset: its tracks and vocabulary.
        sources: artifact folders of the models to start from; if there are none, the network starts from scratch.
        architecture: of a network from scratch; None is `recipes.DEFAULT_MODEL`.
        params: of a network from scratch.

    Raises as `artifact.load_model` and `combine` do.
    """
    if not sources:
        return network_from_scratch(architecture or DEFAULT_MODEL, params, dataset.feature_config, dataset.vocabulary)
    loaded = [load_model(folder) for folder in sources]
    return network_from(loaded, dataset.feature_config, dataset.vocabulary, dataset.train_targets().values())


def network_from(
    sources: Sequence[Source],
    feature_config: FeatureConfig,
    vocabulary: tuple[str, ...],
    train_targets: Iterable[npt.NDArray[np.bool_]],
) -> Network:
    """Describe a network that starts from sources; the `train_targets` (K,) of its tracks give the bias of its head.

    Raises `FeatureMismatchError` unless all sources need features of `feature_config`.
    """
    architecture, params, weights = combine(sources, feature_config.feature_hash)
    return Network(
        architecture=architecture,
        params=params,
        feature_config=feature_config,
        vocabulary=vocabulary,
        weights=weights,
        head_bias=tuple(metrics.prior_logits(list(train_targets)).tolist()),
    )


def combine(sources: Sequence[Source], feature_hash: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Combine sources into one network: return its architecture, its params, and the weights of its body.

    The members of a source that is an ensemble become members of the new one: ensembles are not nested.

    Raises:
        FeatureMismatchError: a source needs features of another hash.
        UsageError: a source is not a network.
    """
    for _, spec in sources:
        check_features(spec, feature_hash)
        if spec.architecture in CLASSICAL:
            raise UsageError(
                f"a model to start from is a {spec.architecture}: it has no network to train further; name models "
                f"of other architectures ({', '.join(sorted(SINGLE))}, ensemble)"
            )
    members, bodies = zip(*(member for source in sources for member in _members(*source)), strict=True)
    if len(members) == 1:
        return members[0]["architecture"], members[0]["params"], bodies[0]
    weights = {f"members.{n}.{name}": weight for n, body in enumerate(bodies) for name, weight in body.items()}
    return "ensemble", {"members": list(members)}, weights


@torch.no_grad()
def initialize(network: nn.Module, weights: Mapping[str, Tensor], head_bias: Sequence[float]) -> None:
    """Load the weights into the network's body; set the weights of each head to 0 and its bias (K,) to `head_bias`.

    The convolutions of musicnn are frozen (ADR 9).

    Raises:
        TrainingError: the weights do not fit the body, or the bias does not fit the head; names the first mismatch.
    """
    expected, given = _shapes(_body(network)), _shapes(weights)
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise TrainingError(
                f"the weights to start from do not fit the network: {name} has shape {given.get(name, 'none')}, "
                f"expected {expected.get(name, 'none')}"
            )
    heads = [layer for name, layer in network.named_modules() if is_head(name) and isinstance(layer, nn.Linear)]
    for head in heads:
        if head.out_features != len(head_bias):
            raise TrainingError(f"the network has {head.out_features} tags, but the initial bias has {len(head_bias)}")
    network.load_state_dict(dict(weights), strict=False)
    for head in heads:
        head.weight.zero_()
        head.bias.copy_(torch.tensor(head_bias))
    for module in network.modules():
        if isinstance(module, Musicnn):
            module.freeze_encoder()


def average_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the weights of networks that started from the same weights.

    "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
    Wortsman et al., ICML 2022.
    """
    means = {name: torch.stack([state[name].double() for state in weights]).mean(dim=0) for name in weights[0]}
    return {name: mean.to(weights[0][name].dtype) for name, mean in means.items()}


def _members(model: nn.Module, spec: TaggerSpec) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Return the description and the body of the source, or those of each member if it is an ensemble."""
    if isinstance(model, Ensemble):
        return list(zip(spec.params["members"], map(_body, model.members), strict=True))
    return [({"architecture": spec.architecture, "params": spec.params}, _body(model))]


def _body(network: nn.Module) -> dict[str, Tensor]:
    """Return the network's state without its heads."""
    return {name: weight for name, weight in network.state_dict().items() if not is_head(name)}


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}
