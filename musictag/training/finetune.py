"""Where training starts: a network with fresh weights, or networks that have learned from other music already.

Those give their bodies and the shape of the new network: one source passes its own on, several become an ensemble. The
head is new, for it has the catalog's own vocabulary to learn.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
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
from musictag.models.architectures import SINGLE, fresh_params
from musictag.models.classical import CLASSICAL
from musictag.models.ensemble import Ensemble
from musictag.models.musicnn import Musicnn
from musictag.models.specs import NetworkSpec, TaggerSpec
from musictag.tagging.tagger import check_features
from musictag.training.loop import is_head

Source = tuple[nn.Module, TaggerSpec]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(NetworkSpec):
    """The description of a network to train, and its initial weights."""

    weights: dict[str, Tensor] | None = None
    """What its body starts with, by names in the network; None starts with fresh weights."""
    head_bias: tuple[float, ...] = ()
    """With `weights`: the logits (K,) with which the head starts."""

    def build(self, seed: int) -> nn.Module:
        """The network as training starts; the seed decides what is fresh. Raises `UsageError`, and as `start` does."""
        torch.manual_seed(seed)
        network = self.build_network()
        if self.weights is not None:
            start(network, self.weights, self.head_bias)
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
            truth: their targets (N, K).
            scores: their joined scores (N, K).
            provenance: where the weights come from, by name; the version of musictag is added.
            min_precision: (K,), see `metrics.fit_thresholds`.
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
    """The network that starts with fresh weights; `params` are as `models.architectures` takes them."""
    of_front_end = fresh_params(architecture, fmin=feature_config.fmin, fmax=feature_config.fmax)
    return Network(
        architecture=architecture,
        params={**of_front_end, **params},
        feature_config=feature_config,
        vocabulary=vocabulary,
    )


def network_from(
    sources: Sequence[Source],
    feature_config: FeatureConfig,
    vocabulary: tuple[str, ...],
    train_targets: Iterable[npt.NDArray[np.bool_]],
) -> Network:
    """The network that starts from some sources, to learn the `train_targets` (K,) of some tracks.

    Raises `FeatureMismatchError` unless all sources take features of `feature_config`.
    """
    architecture, params, weights = combined(sources, feature_config.feature_hash)
    return Network(
        architecture=architecture,
        params=params,
        feature_config=feature_config,
        vocabulary=vocabulary,
        weights=weights,
        head_bias=tuple(metrics.prior_logits(list(train_targets)).tolist()),
    )


def combined(sources: Sequence[Source], feature_hash: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Architecture, params and weights, without those of the heads, of a network that is all sources in one.

    A source that is an ensemble is its members: there are no ensembles of ensembles.

    Raises `FeatureMismatchError` unless all of them, at least one, take features of this hash, `UsageError` if one of
    them is no network.
    """
    for _, spec in sources:
        check_features(spec, feature_hash)
        if spec.architecture in CLASSICAL:
            raise UsageError(
                f"a model to start from is a {spec.architecture}: it has no network that could learn on; name models "
                f"of other architectures ({', '.join(sorted(SINGLE))}, ensemble)"
            )
    members, bodies = zip(*(part for source in sources for part in _parts(*source)), strict=True)
    if len(members) == 1:
        return members[0]["architecture"], members[0]["params"], bodies[0]
    weights = {f"members.{n}.{name}": weight for n, body in enumerate(bodies) for name, weight in body.items()}
    return "ensemble", {"members": list(members)}, weights


@torch.no_grad()
def start(network: nn.Module, weights: Mapping[str, Tensor], head_bias: Sequence[float]) -> None:
    """Give the network's body its weights, and each of its heads weights of 0 and the bias (K,).

    The convolutions of musicnn learn nothing more (ADR 9).

    Raises:
        TrainingError: the weights are not those of the network's body, or the bias has not the K numbers of a head;
            names the first that does not fit.
    """
    needed, given = ({name: tuple(weight.shape) for name, weight in of.items()} for of in (_body(network), weights))
    for name in sorted(needed.keys() | given.keys()):
        if needed.get(name) != given.get(name):
            raise TrainingError(
                f"the weights to start from do not fit the network: {name} has shape {given.get(name, 'none')}, "
                f"needed is {needed.get(name, 'none')}"
            )
    heads = [layer for name, layer in network.named_modules() if is_head(name) and isinstance(layer, nn.Linear)]
    for head in heads:
        if head.out_features != len(head_bias):
            raise TrainingError(f"the network has {head.out_features} tags, its first bias {len(head_bias)}")
    network.load_state_dict(dict(weights), strict=False)
    for head in heads:
        head.weight.zero_()
        head.bias.copy_(torch.tensor(head_bias))
    for module in network.modules():
        if isinstance(module, Musicnn):
            module.freeze_encoder()


def average_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the weights of networks that started from the same ones: one network that learned what all did.

    "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
    Wortsman et al., ICML 2022.
    """
    means = {name: torch.stack([of[name].double() for of in weights]).mean(dim=0) for name in weights[0]}
    return {name: mean.to(weights[0][name].dtype) for name, mean in means.items()}


def _parts(model: nn.Module, spec: TaggerSpec) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """What an ensemble must know to have the source as a member, and its body; of an ensemble, of each member."""
    if isinstance(model, Ensemble):
        return list(zip(spec.params["members"], map(_body, model.members), strict=True))
    return [({"architecture": spec.architecture, "params": spec.params}, _body(model))]


def _body(network: nn.Module) -> dict[str, Tensor]:
    """The network's state without its heads."""
    return {name: weight for name, weight in network.state_dict().items() if not is_head(name)}
