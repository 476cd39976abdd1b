"""Measure what each augmentation of the recipe and each path of the network is worth, on the experiment's songs.

EXPERIMENT names the folder that `make experiment` fills; it must hold the catalog and the features. Each variant is the
recipe `FROM_SCRATCH` with one change. Networks are trained on the train tracks and measured on the validation tracks;
the test tracks are not used. Variants are trained for a few epochs, augmentations also for all epochs, since they may
only help late. Scores are stored in EXPERIMENT/ablation, so that an interrupted run continues: delete the folder if the
recipe, the network or the tracks have changed. `docs/ablation.md` has the results of an older and longer list of
variants, which commit 8bc473a can repeat.
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

from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import make_vocabulary, targets_by_track
from musictag.evaluation import bootstrap, metrics
from musictag.evaluation.report import format_table
from musictag.features.config import FeatureConfig
from musictag.jobs import progress
from musictag.jobs.labels import read_labels
from musictag.jobs.machine import n_cores
from musictag.models.architectures import build_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches
from musictag.training.loop import fit
from musictag.training.recipes import FROM_SCRATCH

EXPERIMENT = Path(os.environ.get("EXPERIMENT", "data/experiment"))
CONFIG = FeatureConfig()
FEW, ALL = 8, FROM_SCRATCH.epochs
"""Epochs."""
FIGURES = ("pr_auc", "roc_auc")
RECIPE = "the recipe"

Network = Callable[[int], nn.Module]


class Silent(nn.Module):
    """A path that returns zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.width)


def network(n_tags: int, name: str = "three-path", without: str = "", width: int = 0) -> nn.Module:
    model = build_model(name, {}, n_mels=CONFIG.n_mels, n_tags=n_tags)
    if without:
        setattr(model, without, Silent(width))
    return model


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change of the recipe or the network."""

    make: Network = network
    """Builds the network for a number of tags."""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `TrainingConfig`."""
    every_nth_song: int = 1
    """Only every n-th train song is used."""


VARIANTS = {
    RECIPE: Variant(),
    "seed 1": Variant(changes={"seed": 1}),
    "seed 2": Variant(changes={"seed": 2}),
    "no filters": Variant(changes={"filter_db": 0.0}),
    "no crops": Variant(changes={"crop": False}),
    "half the clips": Variant(changes={"clips_per_track": FROM_SCRATCH.clips_per_track // 2}),
    "half the songs": Variant(changes={"clips_per_track": 2 * FROM_SCRATCH.clips_per_track}, every_nth_song=2),
    "a quarter of the songs": Variant(changes={"clips_per_track": 4 * FROM_SCRATCH.clips_per_track}, every_nth_song=4),
    "no rhythm path": Variant(functools.partial(network, without="rhythm", width=128)),
    "no pitch path": Variant(functools.partial(network, without="pitch", width=64)),
    "no timbre path": Variant(functools.partial(network, without="timbre", width=256)),
    "the poster's network": Variant(functools.partial(network, name="cnn")),
}
AUGMENTATIONS = (RECIPE, "no filters", "no crops")
"""Variants that are trained for all epochs as well."""
RUNS = [(name, FEW) for name in VARIANTS] + [(name, ALL) for name in AUGMENTATIONS]


@functools.cache
def tracks() -> tuple[dict[str, list[batches.Row]], tuple[str, ...], list[str]]:
    """Return rows with targets by split, the vocabulary, and the artists of the validation rows."""
    catalog, features = str(EXPERIMENT / "catalog.csv"), str(EXPERIMENT / "features")
    labels = read_labels(read_catalog(catalog), features)
    vocabulary = make_vocabulary(labels.tags["train"].values())
    rows = {}
    for split in ("train", "validation"):
        targets = targets_by_track(labels.tags[split], vocabulary)
        rows[split] = list(batches.labelled_rows(tables.read_rows(features, SCORE_COLUMNS, targets), targets))
    return rows, vocabulary, [labels.groups[row["track_id"]] for row in rows["validation"]]


def trained(variant: Variant, epochs: int) -> npt.NDArray[np.float32]:
    """Train a variant; return its scores (N, K) of the validation tracks."""
    config = dataclasses.replace(FROM_SCRATCH, **{**variant.changes, "epochs": epochs})
    rows, vocabulary, _ = tracks()
    train_rows = rows["train"][:: variant.every_nth_song]

    def train_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return batches.train_batches(train_rows, CONFIG, config, epoch=epoch)

    def score(model: nn.Module) -> tuple[list[str], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        return score_labelled(model, rows["validation"], CONFIG)

    torch.manual_seed(config.seed)
    model = variant.make(len(vocabulary))
    steps = batches.count_batches(len(train_rows), config)
    fit(model, config, train_batches=train_batches, steps_per_epoch=steps, on_epoch=lambda _: None,
        validate=lambda model: metrics.validation_metrics(*score(model)[1:]))  # fmt: skip
    return score(model.eval())[2]


def scores_file(name: str, epochs: int) -> Path:
    """Return the file for the scores of a variant."""
    return EXPERIMENT / "ablation" / f"{name}, {epochs} epochs.npy"


@pytest.mark.parametrize(("name", "epochs"), RUNS)
def test_variant_learns(name: str, epochs: int) -> None:
    file = scores_file(name, epochs)
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        torch.set_num_threads(n_cores())
        np.save(file, trained(VARIANTS[name], epochs))
    truth = np.array([row["targets"] for row in tracks()[0]["validation"]])
    assert metrics.macro(metrics.roc_auc(truth, np.load(file))) > 0.7


def test_table() -> None:
    rows, _, artists = tracks()
    truth = np.array([row["targets"] for row in rows["validation"]])
    weights = np.concatenate([np.ones((1, len(truth)), dtype=np.int64), bootstrap.draws(artists)])

    def macros(name: str, epochs: int) -> dict[str, npt.NDArray[np.float64]]:
        drawn = bootstrap.figures(truth, np.load(scores_file(name, epochs)), np.full(truth.shape[1], 0.5), weights)
        return {figure: bootstrap.macro(drawn[figure]) for figure in FIGURES}

    of_run, table = {run: macros(*run) for run in RUNS}, []
    for (name, epochs), of_variant in of_run.items():
        row = {"variant": name, "epochs": epochs}
        for figure in FIGURES:
            difference = of_variant[figure] - of_run[RECIPE, epochs][figure]
            low, high = bootstrap.interval(difference[1:])
            row |= {figure: float(of_variant[figure][0]),
                    f"{figure}, difference": f"{difference[0]:+.3f} ({low:+.3f} to {high:+.3f})"}  # fmt: skip
        table.append(row)
    progress.echo(format_table(pa.Table.from_pylist(table)))
    fewer = of_run["a quarter of the songs", FEW]["pr_auc"] - of_run[RECIPE, FEW]["pr_auc"]
    assert bootstrap.interval(fewer[1:])[1] < 0
