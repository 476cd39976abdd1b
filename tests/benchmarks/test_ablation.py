"""What each element of the recipe, and each path of the network, is worth: one change at a time, on the experiment.

EXPERIMENT names the folder that `make experiment` fills; it must hold the catalog and the features. Networks learn the
train tracks and are judged on the validation tracks; the test tracks stay out of it. Changes start from a recipe with
all that might help, since elements may stand in for each other; what is left of it is `recipe.FROM_NOTHING`. They are
tried over a few epochs, and what makes learning harder, which may pay late, over all epochs as well; judged are the
weights that `train.py` would keep. Scores are kept in EXPERIMENT/ablation, so that a run that was stopped goes on:
delete the folder when recipe, network or tracks have changed. On one core 8 minutes for the few epochs, 21 for all.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from musictag.catalog import splits
from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import make_vocabulary, targets_by_track
from musictag.evaluation import bootstrap, metrics
from musictag.evaluation.report import format_table
from musictag.features.config import FeatureConfig
from musictag.jobs import progress
from musictag.jobs.process import n_cores
from musictag.models.architectures import build_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches, losses
from musictag.training.loop import fit
from musictag.training.recipes import FROM_SCRATCH

EXPERIMENT = Path(os.environ.get("EXPERIMENT", "data/experiment"))
CONFIG = FeatureConfig()
EVERYTHING = dataclasses.replace(FROM_SCRATCH, averaging=0.99, mixup=0.2, mask_bands=12, mask_frames=24)
FEW, ALL = 8, FROM_SCRATCH.epochs
"""Epochs."""
FIGURES = ("pr_auc", "roc_auc")

Network = Callable[[int], nn.Module]


class Deaf(nn.Module):
    """In place of a path: it hears nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.width)


def network(n_tags: int, name: str = "three-path", without: str = "", width: int = 0) -> nn.Module:
    model = build_model(name, {}, n_mels=CONFIG.n_mels, n_tags=n_tags)
    if without:
        setattr(model, without, Deaf(width))
    return model


@dataclasses.dataclass(frozen=True)
class Variant:
    """`EVERYTHING` with a change."""

    make: Network = network
    """Builds the network for so many tags."""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `TrainingConfig`."""
    one_song_of: int = 1
    """Of so many train songs one is learned."""


VARIANTS = {
    "everything": Variant(),
    "everything, seed 1": Variant(changes={"seed": 1}),
    "everything, seed 2": Variant(changes={"seed": 2}),
    "the recipe": Variant(changes=vars(FROM_SCRATCH)),
    "no filters": Variant(changes={"filter_db": 0.0}),
    "no crops": Variant(changes={"crop": False}),
    "no masks": Variant(changes={"mask_bands": 0, "mask_frames": 0}),
    "no averaging": Variant(changes={"averaging": 0.0}),
    "no mixup": Variant(changes={"mixup": 0.0}),
    "smoothing 0.05": Variant(changes={"smoothing": 0.05}),
    "class weights": Variant(changes={"class_weight": 1.0}),
    "focal loss": Variant(changes={"loss": "focal"}),
    "asymmetric loss": Variant(changes={"loss": "asymmetric"}),
    "plateau": Variant(changes={"schedule": "plateau"}),
    "half the clips": Variant(changes={"clips_per_track": FROM_SCRATCH.clips_per_track // 2}),
    "half the songs": Variant(changes={"clips_per_track": 2 * FROM_SCRATCH.clips_per_track}, one_song_of=2),
    "a quarter of the songs": Variant(changes={"clips_per_track": 4 * FROM_SCRATCH.clips_per_track}, one_song_of=4),
    "no rhythm path": Variant(functools.partial(network, without="rhythm", width=128)),
    "no pitch path": Variant(functools.partial(network, without="pitch", width=64)),
    "no timbre path": Variant(functools.partial(network, without="timbre", width=256)),
    "the poster's network": Variant(functools.partial(network, name="cnn")),
}
ELEMENTS = (
    "everything",
    "the recipe",
    "no filters",
    "no crops",
    "no masks",
    "no averaging",
    "no mixup",
    "smoothing 0.05",
)
"""What is tried over all epochs as well."""
RUNS = [(name, FEW) for name in VARIANTS] + [(name, ALL) for name in ELEMENTS]


@functools.cache
def tracks() -> tuple[dict[str, list[batches.Row]], tuple[str, ...], list[str]]:
    """Rows with targets by split, the vocabulary, and the artists of the validation rows."""
    catalog, features = str(EXPERIMENT / "catalog.csv"), str(EXPERIMENT / "features")
    with_features = tables.track_ids(features)
    labels = splits.tags_by_split(read_catalog(catalog).tracks, with_features, tables.companion_uri(features, "splits"))
    vocabulary = make_vocabulary(labels.tags["train"].values())
    rows = {}
    for split in ("train", "validation"):
        targets = targets_by_track(labels.tags[split], vocabulary)
        rows[split] = list(batches.labelled_rows(tables.read_rows(features, SCORE_COLUMNS, targets), targets))
    return rows, vocabulary, [labels.groups[row["track_id"]] for row in rows["validation"]]


def trained(variant: Variant, epochs: int) -> npt.NDArray[np.float32]:
    """Scores (N, K) of the validation tracks by a network that learned the train tracks."""
    config = dataclasses.replace(EVERYTHING, **{**variant.changes, "epochs": epochs})
    rows, vocabulary, _ = tracks()
    train_rows = rows["train"][:: variant.one_song_of]
    targets = np.array([row["targets"] for row in train_rows])

    def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return batches.train_batches(train_rows, CONFIG, config, epoch=epoch)

    def score(model: nn.Module) -> tuple[list[str], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        return score_labelled(model, rows["validation"], CONFIG)

    torch.manual_seed(config.seed)
    model = variant.make(len(vocabulary))
    weights = losses.class_weights(targets.mean(axis=0), config.class_weight)
    loss = functools.partial(losses.mean_loss, name=config.loss, smoothing=config.smoothing, weights=weights)
    steps = batches.count_batches(len(targets), config)
    fit(model, config, train_batches=train_batches, steps_per_epoch=steps, loss=loss, on_epoch=lambda _: None,
        validate=lambda model: metrics.validation_metrics(*score(model)[1:]))  # fmt: skip
    return score(model.eval())[2]


def kept(name: str, epochs: int) -> Path:
    """Where the scores of a network are kept."""
    return EXPERIMENT / "ablation" / f"{name}, {epochs} epochs.npy"


@pytest.mark.parametrize(("name", "epochs"), RUNS)
def test_a_variant_learns(name: str, epochs: int) -> None:
    file = kept(name, epochs)
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        torch.set_num_threads(n_cores())
        np.save(file, trained(VARIANTS[name], epochs))
    truth = np.array([row["targets"] for row in tracks()[0]["validation"]])
    assert metrics.macro(metrics.roc_auc(truth, np.load(file))) > 0.7


def test_the_table() -> None:
    rows, _, artists = tracks()
    truth = np.array([row["targets"] for row in rows["validation"]])
    weights = np.concatenate([np.ones((1, len(truth)), dtype=np.int64), bootstrap.draws(artists)])

    def macros(name: str, epochs: int) -> dict[str, npt.NDArray[np.float64]]:
        drawn = bootstrap.figures(truth, np.load(kept(name, epochs)), np.full(truth.shape[1], 0.5), weights)
        return {figure: bootstrap.macro(drawn[figure]) for figure in FIGURES}

    of_run, table = {run: macros(*run) for run in RUNS}, []
    for (name, epochs), of_variant in of_run.items():
        row = {"variant": name, "epochs": epochs}
        for figure in FIGURES:
            difference = of_variant[figure] - of_run["everything", epochs][figure]
            low, high = bootstrap.interval(difference[1:])
            row |= {figure: float(of_variant[figure][0]),
                    f"{figure}, difference": f"{difference[0]:+.3f} ({low:+.3f} to {high:+.3f})"}  # fmt: skip
        table.append(row)
    progress.echo(format_table(pa.Table.from_pylist(table)))
    fewer = of_run["a quarter of the songs", FEW]["pr_auc"] - of_run["everything", FEW]["pr_auc"]
    assert bootstrap.interval(fewer[1:])[1] < 0
