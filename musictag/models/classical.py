"""Methods of multi-label classification from before networks, as they are once fitted: tensors, and how to apply them.

`training.baselines` fits them. A fitted one is a torch module for one reason: what it knows is then a `state_dict`,
which the model artifact holds as it holds a network's weights, read without scikit-learn and without unpickling.

Shapes: N tracks, D descriptors, K tags, J learned tags.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError

FAR = 8.0
"""A descriptor may lie so many deviations from its mean: one odd number must not outweigh hundreds of others."""
# Probabilities are kept this far from 0 and 1 where they become logits.
SURE = 1e-6


def standardize(descriptors: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Descriptors (N, D) in deviations, `scale` (D,), from their `mean` (D,): `FAR` at most."""
    return ((descriptors - mean) / scale).clamp(-FAR, FAR)


class Classical(nn.Module, abc.ABC):
    """Descriptors (N, D) float32 of whole tracks to logits (N, K).

    Tags of which the train tracks told nothing, since all of them or none had it, have their prior at every track. The
    others, J learned ones, are left to `decide`.

    Args:
        n_mels: bands of the clips that are described; nothing here depends on it.
        n_tags: K.
        described_by: `musictag.features.descriptors.VERSION` of the descriptors that it was fitted on.
        sizes: of its tensors, by name: `descriptors` (D), `learned` (J), and those of `own_sizes`.

    Raises:
        UsageError: a size that is missing, unknown or no positive whole number, by name.
    """

    own_sizes: ClassVar[tuple[str, ...]] = ()
    mean: Tensor
    scale: Tensor
    prior: Tensor
    learned: Tensor

    def __init__(
        self, *, n_mels: int, n_tags: int, described_by: int = 1, sizes: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        sizes, needed = sizes or {}, {"descriptors", "learned", *self.own_sizes}
        if not isinstance(sizes, Mapping) or set(sizes) != needed:
            raise UsageError(f"{type(self).__name__} sizes is {sizes!r}: it must have {', '.join(sorted(needed))}")
        for name, size in {"n_mels": n_mels, "n_tags": n_tags, "described_by": described_by, **sizes}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"{type(self).__name__} {name} is {size!r}: a positive whole number is needed")
        self.sizes, self.described_by = dict(sizes), described_by
        tensors = {
            "mean": torch.zeros(sizes["descriptors"]),
            "scale": torch.ones(sizes["descriptors"]),
            "prior": torch.zeros(n_tags),  # logits
            "learned": torch.zeros(sizes["learned"], dtype=torch.int64),  # their places in the vocabulary
            **self.empty(self.sizes),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @property
    def params(self) -> dict[str, Any]:
        """What `musictag.models.architectures.build_model` needs to make one alike."""
        return {"described_by": self.described_by, "sizes": self.sizes}

    def forward(self, descriptors: Tensor) -> Tensor:
        """Descriptors (N, D) float32 to logits (N, K)."""
        logits = self.prior.repeat(len(descriptors), 1)
        logits[:, self.learned] = self.decide(standardize(descriptors, self.mean, self.scale))
        return logits

    @abc.abstractmethod
    def empty(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """The method's own tensors by name, before anything is fitted."""

    @abc.abstractmethod
    def decide(self, standardized: Tensor) -> Tensor:
        """Standardized descriptors (N, D) to logits (N, J) of the learned tags."""


class LinearSVM(Classical):
    """A linear support vector machine for each tag (Cortes & Vapnik, "Support-vector networks", 1995)."""

    weight: Tensor
    bias: Tensor

    def empty(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """See `Classical`."""
        return {"weight": torch.zeros(sizes["learned"], sizes["descriptors"]), "bias": torch.zeros(sizes["learned"])}

    def decide(self, standardized: Tensor) -> Tensor:
        """Distances from the separating planes, in margins."""
        return functional.linear(standardized, self.weight, self.bias)


class RBFSVM(Classical):
    """A support vector machine for each tag, with the kernel exp(-gamma |x - y|²).

    All tags share the S tracks that support any of them.
    """

    own_sizes = ("support",)
    gamma: Tensor
    support: Tensor
    weight: Tensor
    bias: Tensor

    def empty(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """See `Classical`."""
        return {
            "gamma": torch.ones(()),
            "support": torch.zeros(sizes["support"], sizes["descriptors"]),  # standardized
            "weight": torch.zeros(sizes["learned"], sizes["support"]),
            "bias": torch.zeros(sizes["learned"]),
        }

    def decide(self, standardized: Tensor) -> Tensor:
        """Distances from the separating surfaces, in margins."""
        kernel = torch.exp(-self.gamma * torch.cdist(standardized, self.support).square())  # (N, S)
        return functional.linear(kernel, self.weight, self.bias)


class ClassifierChains(Classical):
    """An ensemble of chains (Read et al., "Classifier chains for multi-label classification", 2011).

    A link of a chain is a logistic regression that decides one tag from the descriptors and from what the links before
    it decided. Each chain has the tags in an order of its own; the ensemble is the mean of their probabilities.
    """

    own_sizes = ("chains",)
    order: Tensor
    weight: Tensor
    chained: Tensor
    bias: Tensor

    def empty(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """See `Classical`."""
        links = (sizes["chains"], sizes["learned"])
        return {
            "order": torch.zeros(links, dtype=torch.int64),  # the learned tag of each link
            "weight": torch.zeros(*links, sizes["descriptors"]),
            "chained": torch.zeros(*links, sizes["learned"]),  # weights of the links before, 0 for all others
            "bias": torch.zeros(links),
        }

    def decide(self, standardized: Tensor) -> Tensor:
        """The logit of the chains' mean probability."""
        total = standardized.new_zeros(len(standardized), self.sizes["learned"])
        for order, weight, chained, bias in zip(self.order, self.weight, self.chained, self.bias, strict=True):
            logits = functional.linear(standardized, weight, bias)  # (N, links)
            decided = torch.zeros_like(logits)
            for link in range(len(order)):
                logits[:, link] += decided @ chained[link]
                decided[:, link] = (logits[:, link] > 0).to(logits.dtype)
            total[:, order] += torch.sigmoid(logits)
        return torch.logit(total / self.sizes["chains"], eps=SURE)


class RandomForest(Classical):
    """A forest of decision trees for each tag (Breiman, "Random forests", 2001).

    The nodes of all trees lie one behind the other. A leaf is its own child, so that after `depth` steps every track is
    at its leaf, however short the way.
    """

    own_sizes = ("trees", "nodes", "depth")
    root: Tensor
    descriptor: Tensor
    threshold: Tensor
    child: Tensor
    share: Tensor

    def empty(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """See `Classical`."""
        n_nodes = sizes["nodes"]
        return {
            "root": torch.zeros(sizes["learned"], sizes["trees"], dtype=torch.int32),
            "descriptor": torch.zeros(n_nodes, dtype=torch.int32),
            "threshold": torch.zeros(n_nodes),
            "child": torch.zeros(n_nodes, 2, dtype=torch.int32),  # up to the threshold, above it
            "share": torch.zeros(n_nodes),  # how many of a leaf's tracks had the tag
        }

    def decide(self, standardized: Tensor) -> Tensor:
        """The logit of the mean share of the tag in the leaves; two more trees that disagree keep it from infinity."""
        return torch.stack([self._decide_track(track) for track in standardized])

    def _decide_track(self, track: Tensor) -> Tensor:
        node = self.root.long()  # (J, trees)
        for _ in range(self.sizes["depth"]):
            above = track[self.descriptor[node].long()] > self.threshold[node]
            node = self.child[node, above.long()].long()
        return torch.logit((self.share[node].sum(dim=1) + 1) / (self.sizes["trees"] + 2))


class MLkNN(Classical):
    """Multi-label nearest neighbours (Zhang & Zhou, "ML-kNN: a lazy learning approach to multi-label learning", 2007).

    Of a track's neighbours among the stored tracks, so many have a tag; what each number tells of the tag was learned
    from the stored tracks' own neighbours.
    """

    own_sizes = ("stored", "neighbours")
    stored: Tensor
    targets: Tensor
    log_odds: Tensor

    def empty(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """See `Classical`."""
        if sizes["neighbours"] > sizes["stored"]:
            raise UsageError(f"MLkNN neighbours is {sizes['neighbours']}, of {sizes['stored']} stored tracks: too many")
        return {
            "stored": torch.zeros(sizes["stored"], sizes["descriptors"]),  # standardized
            "targets": torch.zeros(sizes["stored"], sizes["learned"], dtype=torch.bool),
            "log_odds": torch.zeros(sizes["learned"], sizes["neighbours"] + 1),  # by how many neighbours have the tag
        }

    def decide(self, standardized: Tensor) -> Tensor:
        """The log of the posterior odds."""
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
"""The methods by name."""
