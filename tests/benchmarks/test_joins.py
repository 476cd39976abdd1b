"""Compare joins (ways to combine the scores of clips into scores of a track) on one network of the experiment.

EXPERIMENT names the folder that `make experiment` filled, MODEL one of its networks. Calibration and thresholds of each
join are fitted on the validation tracks; the table shows the test tracks. Attention is trained on half of the
validation artists, with early stopping on the other half: the network overfits its train tracks, so they do not show
which clips are reliable.
"""

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import targets_by_track
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.evaluation import bootstrap, comparison, results
from musictag.evaluation.calibration import calibrate, fit_outputs
from musictag.evaluation.report import format_table
from musictag.features.clips import clip_weights
from musictag.features.table import decode_clips
from musictag.jobs import progress
from musictag.jobs.labels import read_labels
from musictag.jobs.machine import n_cores
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS
from musictag.tagging.tagger import Tagger
from musictag.training import batches

EXPERIMENT = Path(os.environ.get("EXPERIMENT", "data/experiment"))
MODEL = os.environ.get("MODEL", "three-path")
BEST = 3
"""Number of clips in the top-k join."""
ATTENTION_EPOCHS, ATTENTION_RATE, ATTENTION_WIDTH = 200, 3e-3, 64

Float32 = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs of a network for the clips of a track."""

    logits: Tensor
    """(C, K)."""
    embedding: Tensor
    """(C, H), inputs of the head."""
    weights: Tensor
    """(C,), share of audio in each clip."""


def mean(outputs: Outputs) -> Tensor:
    return outputs.weights @ torch.sigmoid(outputs.logits) / outputs.weights.sum()


def mean_logit(outputs: Outputs) -> Tensor:
    return torch.sigmoid(outputs.weights @ outputs.logits / outputs.weights.sum())


def maximum(outputs: Outputs) -> Tensor:
    return torch.sigmoid(outputs.logits).amax(dim=0)


def top_k(outputs: Outputs) -> Tensor:
    return torch.sigmoid(outputs.logits).topk(min(BEST, len(outputs.logits)), dim=0).values.mean(dim=0)


def noisy_or(outputs: Outputs) -> Tensor:
    """Return the probability that at least one clip has the tag, if clips were independent."""
    return 1 - (1 - torch.sigmoid(outputs.logits)).log().mul(outputs.weights[:, None]).sum(dim=0).exp()


class Attention(nn.Module):
    """Weights clips by their content, separately for each tag.

    Ilse, Tomczak & Welling, "Attention-based deep multiple instance learning", ICML 2018.
    """

    def __init__(self, width: int, n_tags: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, ATTENTION_WIDTH), nn.Tanh(), nn.Linear(ATTENTION_WIDTH, n_tags))

    def forward(self, outputs: Outputs) -> Tensor:
        weights = torch.softmax(self.attention(outputs.embedding) + outputs.weights.log()[:, None], dim=0)  # (C, K)
        return (weights * torch.sigmoid(outputs.logits)).sum(dim=0)


def train_attention(tracks: list[Outputs], targets: Tensor, groups: list[str]) -> Attention:
    """Train attention on the tracks of half of the groups; return its state with the lowest loss on the other half."""
    torch.manual_seed(0)
    half = set(sorted(set(groups))[::2])
    learns = [group in half for group in groups]
    train, validation = ([tracks[n] for n, one in enumerate(learns) if one == wanted] for wanted in (True, False))
    truth, validation_truth = targets[torch.tensor(learns)], targets[~torch.tensor(learns)]
    join = Attention(train[0].embedding.shape[1], truth.shape[1])
    best, lowest = copy.deepcopy(join), float("inf")
    optimizer = torch.optim.AdamW(join.parameters(), lr=ATTENTION_RATE)
    for _ in range(ATTENTION_EPOCHS):
        scores = torch.stack([join(outputs) for outputs in train]).clamp(1e-6, 1 - 1e-6)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy(scores, truth).backward()
        optimizer.step()
        with torch.no_grad():
            held_back = torch.stack([join(outputs) for outputs in validation]).clamp(1e-6, 1 - 1e-6)
            loss = nn.functional.binary_cross_entropy(held_back, validation_truth).item()
        if loss < lowest:
            best, lowest = copy.deepcopy(join), loss
    return best


@torch.no_grad()
def network_outputs(tagger: Tagger, row: batches.Row) -> Outputs:
    seen: list[Tensor] = []
    hook = tagger.model.get_submodule("head").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    config = tagger.spec.feature_config
    logits = tagger.model(torch.from_numpy(decode_clips(row["clips"], config).astype(np.float32)))
    hook.remove()
    weights = clip_weights(row["start_s"], row["duration_s"], config)
    return Outputs(logits, seen[0], torch.from_numpy(weights))


def test_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{EXPERIMENT}/mlflow.db")
    mlflow_runs.connect()
    torch.set_num_threads(n_cores())
    tagger = Tagger.load(mlflow_registry.fetch(f"models:/{mlflow_registry.MODEL}@experiment-{MODEL}").folder)
    features = str(EXPERIMENT / "features")
    labels = read_labels(read_catalog(str(EXPERIMENT / "catalog.csv")), features)
    outputs: dict[str, list[Outputs]] = {}
    truth: dict[str, npt.NDArray[np.bool_]] = {}
    ids: dict[str, list[str]] = {}
    for split in ("validation", "test"):
        targets = targets_by_track(labels.tags[split], tagger.spec.vocabulary)
        rows = list(batches.labelled_rows(tables.read_rows(features, SCORE_COLUMNS, targets), targets))
        outputs[split] = [network_outputs(tagger, row) for row in rows]
        truth[split] = np.array([row["targets"] for row in rows])
        ids[split] = [row["track_id"] for row in rows]
    groups = [labels.groups[track_id] for track_id in ids["validation"]]
    attention = train_attention(outputs["validation"], torch.from_numpy(truth["validation"]).float(), groups)
    joins: dict[str, Callable[[Outputs], Tensor]] = {
        "mean": mean, "mean of logits": mean_logit, "maximum": maximum, f"mean of the best {BEST}": top_k,
        "noisy-or": noisy_or, "learned attention": attention,
    }  # fmt: skip

    def evaluate(join: Callable[[Outputs], Tensor]) -> results.Evaluation:
        with torch.inference_mode():
            held_back, scores = (
                np.stack([join(each).numpy() for each in outputs[split]]) for split in ("validation", "test")
            )
        calibration, thresholds = fit_outputs(truth["validation"], held_back)
        return results.Evaluation(
            split="test", track_ids=tuple(ids["test"]), groups=tuple(labels.groups[each] for each in ids["test"]),
            vocabulary=tagger.spec.vocabulary, targets=truth["test"], scores=calibrate(scores, calibration),
            raw_scores=scores, thresholds=np.array(thresholds),
        )  # fmt: skip

    plain, table = evaluate(mean), []
    for name, join in joins.items():
        result = evaluate(join)
        figures = results.summary(result)
        macro = {row["figure"]: row for row in comparison.compare(result, plain).to_pylist() if row["tag"] is None}
        table.append({"join": name, **{figure: figures[f"macro_{figure}"] for figure in ("f1", "pr_auc", "roc_auc")},
                      "micro_ece_raw": figures["micro_ece_raw"], "micro_ece": figures["micro_ece"],
                      **{f"{figure}, 95 %": f"{macro[figure]['low']:+.3f} to {macro[figure]['high']:+.3f}"
                         for figure in ("f1", "pr_auc")}})  # fmt: skip
    progress.echo(f"{MODEL}, {bootstrap.N_DRAWS} draws of artists, differences from the mean\n")
    progress.echo(format_table(pa.Table.from_pylist(table)))
    assert len({row["pr_auc"] for row in table}) > 1
