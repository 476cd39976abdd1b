"""Fitted classical models for multi-label classification, as torch modules.

`training.baselines` fits them. They are torch modules so that a fitted model is a `state_dict`: the model artifact
stores it like the weights of a network, and it is read without scikit-learn and without unpickling.

Shapes: N tracks, D descriptors, K tags, J learned tags.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError

MAX_DEVIATIONS = 8.0
"""Standardized descriptors are clipped here, so that one extreme value does not outweigh hundreds of others."""
# Probabilities are clipped to [PROBABILITY_EPS, 1 - PROBABILITY_EPS] before they become logits.
PROBABILITY_EPS = 1e-6


def standardize(descriptors: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return (descriptors - mean) / scale (N, D), clipped to +-`MAX_DEVIATIONS`; `mean` and `scale` are (D,)."""
    return ((descriptors - mean) / scale).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)


class Classical(nn.Module, abc.ABC):
    """Descriptors (N, D) float32 of whole tracks to logits (N, K).

    A tag that all train tracks have, or none, cannot be learned: every track gets the prior as its logit. Subclasses
    compute the logits of the other J tags, the learned ones, in `learned_logits`.

    Args:
        n_mels: mel bands of the clips; not used, present because `build_model` gives it to every model.
        n_tags: K.
        described_by: `musictag.features.descriptors.VERSION` of the descriptors that the model was fitted on.
        sizes: sizes of the tensors, by name: `descriptors` (D), `learned` (J), and those in `extra_sizes`.

    Raises:
        UsageError: a size is missing, unknown or not a positive integer; the message names it.
    """

    extra_sizes: ClassVar[tuple[str, ...]] = ()
    mean: Tensor
    scale: Tensor
    prior: Tensor
    learned: Tensor

    def __init__(
        self, *, n_mels: int, n_tags: int, described_by: int = 1, sizes: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        sizes, needed = sizes or {}, {"descriptors", "learned", *self.extra_sizes}
        if not isinstance(sizes, Mapping) or set(sizes) != needed:
            raise UsageError(f"{type(self).__name__} sizes is {sizes!r}: it must have {', '.join(sorted(needed))}")
        for name, size in {"n_mels": n_mels, "n_tags": n_tags, "described_by": described_by, **sizes}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"{type(self).__name__} {name} is {size!r}: a positive integer is needed")
        self.sizes, self.described_by = dict(sizes), described_by
        tensors = {
            "mean": torch.zeros(sizes["descriptors"]),
            "scale": torch.ones(sizes["descriptors"]),
            "prior": torch.zeros(n_tags),  # logits
            "learned": torch.zeros(sizes["learned"], dtype=torch.int64),  # indices into the vocabulary
            **self.initial_tensors(self.sizes),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @property
    def params(self) -> dict[str, Any]:
        """The `params` with which `musictag.models.architectures.build_model` builds a model of the same sizes."""
        return {"described_by": self.described_by, "sizes": self.sizes}

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return logits (N, K) for descriptors (N, D) float32."""
        logits = self.prior.repeat(len(descriptors), 1)
        logits[:, self.learned] = self.learned_logits(standardize(descriptors, self.mean, self.scale))
        return logits

    @abc.abstractmethod
    def initial_tensors(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """Return the tensors of the subclass by name, before fitting."""

    @abc.abstractmethod
    def learned_logits(self, standardized: Tensor) -> Tensor:
        """Return logits (N, J) of the learned tags for standardized descriptors (N, D)."""


class LinearSVM(Classical):
    """A linear support vector machine for each tag (Cortes & Vapnik, "Support-vector networks", 1995)."""

    weight: Tensor
    bias: Tensor

    def initial_tensors(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        return {"weight": torch.zeros(sizes["learned"], sizes["descriptors"]), "bias": torch.zeros(sizes["learned"])}

    def learned_logits(self, standardized: Tensor) -> Tensor:
        """Return the distances from the separating hyperplanes, in margins."""
        return functional.linear(standardized, self.weight, self.bias)


class RBFSVM(Classical):
    """A support vector machine for each tag, with the kernel exp(-gamma |x - y|²).

    All tags share S support vectors: the tracks that are a support vector for at least one tag.
    """

    extra_sizes = ("support",)
    gamma: Tensor
    support: Tensor
    weight: Tensor
    bias: Tensor

    def initial_tensors(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        return {
            "gamma": torch.ones(()),
            "support": torch.zeros(sizes["support"], sizes["descriptors"]),  # standardized
            "weight": torch.zeros(sizes["learned"], sizes["support"]),
            "bias": torch.zeros(sizes["learned"]),
        }

    def learned_logits(self, standardized: Tensor) -> Tensor:
        """Return the distances from the separating surfaces, in margins."""
        kernel = torch.exp(-self.gamma * torch.cdist(standardized, self.support).square())  # (N, S)
        return functional.linear(kernel, self.weight, self.bias)


class ClassifierChains(Classical):
    """An ensemble of chains (Read et al., "Classifier chains for multi-label classification", 2011).

    A link of a chain is a logistic regression that predicts one tag from the descriptors and from the predictions of
    the links before it. Each chain has a different order of the tags; the ensemble averages the chains' probabilities.
    """

    extra_sizes = ("chains",)
    order: Tensor
    weight: Tensor
    chained: Tensor
    bias: Tensor

    def initial_tensors(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        links = (sizes["chains"], sizes["learned"])
        return {
            "order": torch.zeros(links, dtype=torch.int64),  # the learned tag of each link
            "weight": torch.zeros(*links, sizes["descriptors"]),
            "chained": torch.zeros(*links, sizes["learned"]),  # weights of the links before, 0 for all others
            "bias": torch.zeros(links),
        }

    def learned_logits(self, standardized: Tensor) -> Tensor:
        """Return the logit of the chains' mean probability."""
        total = standardized.new_zeros(len(standardized), self.sizes["learned"])
        for order, weight, chained, bias in zip(self.order, self.weight, self.chained, self.bias, strict=True):
            logits = functional.linear(standardized, weight, bias)  # (N, links)
            predicted = torch.zeros_like(logits)
            for link in range(len(order)):
                logits[:, link] += predicted @ chained[link]
                predicted[:, link] = (logits[:, link] > 0).to(logits.dtype)
            total[:, order] += torch.sigmoid(logits)
        return torch.logit(total / self.sizes["chains"], eps=PROBABILITY_EPS)


class RandomForest(Classical):
    """A forest of decision trees for each tag (Breiman, "Random forests", 2001).

    The nodes of all trees are concatenated. A leaf is its own child, so that after `depth` steps every track is at its
    leaf, also in trees that are less deep.
    """

    extra_sizes = ("trees", "nodes", "depth")
    root: Tensor
    descriptor: Tensor
    threshold: Tensor
    child: Tensor
    share: Tensor

    def initial_tensors(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        n_nodes = sizes["nodes"]
        return {
            "root": torch.zeros(sizes["learned"], sizes["trees"], dtype=torch.int32),
            "descriptor": torch.zeros(n_nodes, dtype=torch.int32),
            "threshold": torch.zeros(n_nodes),
            "child": torch.zeros(n_nodes, 2, dtype=torch.int32),  # [at or below the threshold, above it]
            "share": torch.zeros(n_nodes),  # the fraction of a leaf's train tracks that have the tag
        }

    def learned_logits(self, standardized: Tensor) -> Tensor:
        """Return the logit of the mean fraction in the leaves; two added trees, 0 and 1, keep it finite."""
        return torch.stack([self._track_logits(track) for track in standardized])

    def _track_logits(self, track: Tensor) -> Tensor:
        node = self.root.long()  # (J, trees)
        for _ in range(self.sizes["depth"]):
            above = track[self.descriptor[node].long()] > self.threshold[node]
            node = self.child[node, above.long()].long()
        return torch.logit((self.share[node].sum(dim=1) + 1) / (self.sizes["trees"] + 2))


class MLkNN(Classical):
    """Multi-label nearest neighbours (Zhang & Zhou, "ML-kNN: a lazy learning approach to multi-label learning", 2007).

    The prediction of a tag depends on the number of a track's nearest stored tracks that have the tag. The log odds for
    each number were estimated from the neighbours of the stored tracks themselves.
    """

    extra_sizes = ("stored", "neighbours")
    stored: Tensor
    targets: Tensor
    log_odds: Tensor

    def initial_tensors(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        if sizes["neighbours"] > sizes["stored"]:
            raise UsageError(
                f"MLkNN neighbours is {sizes['neighbours']}: there are only {sizes['stored']} stored tracks"
            )
        return {
            "stored": torch.zeros(sizes["stored"], sizes["descriptors"]),  # standardized
            "targets": torch.zeros(sizes["stored"], sizes["learned"], dtype=torch.bool),
            "log_odds": torch.zeros(
                sizes["learned"], sizes["neighbours"] + 1
            ),  # indexed by the number of neighbours with the tag
        }

    def learned_logits(self, standardized: Tensor) -> Tensor:
        """Return the logarithms of the posterior odds."""
        distances = torch.cdist(standardized, self.stored)
        nearest = distances.topk(self.sizes["neighbours"], largest=False).indices  # (N, neighbours)
        counts = self.targets[nearest].sum(dim=1)  # (N, J)
        return self.log_odds.gather(1, counts.T).T


CLASSICAL: dict[str, type[Classical]] = {
    "linear-svm": LinearSVM,
    "rbf-svm": RBFSVM,
    "classifier-chain": ClassifierChains,
    "random-forest": RandomForest,
    "ml-knn": MLkNN,
}
"""The classical models by name."""
