"""Compare fine-tuned networks with logistic regression on their frozen activations, on Emotify.

There are five folds with disjoint artists. The tracks outside a test fold are split into folds again, as in `train.py
--init`: they decide when training stops, and the strength of the regression, which is then fitted on all of them.
Intervals resample artists. EMOTIFY names the folder of the data set.
"""

import functools
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from musictag.catalog.reader import read_catalog
from musictag.catalog.vocabulary import encode, make_vocabulary
from musictag.corpora.emotify import make_emotify
from musictag.evaluation import bootstrap, metrics
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips
from musictag.features.table import decode_clips, encode_clips
from musictag.jobs import progress
from musictag.jobs.machine import n_cores
from musictag.models.artifact import load_model
from musictag.models.embedding_cache import EmbeddingCache
from musictag.models.published import pretrained
from musictag.tagging.scorers import join, score_clips, score_labelled
from musictag.training import batches
from musictag.training.finetune import average_weights, network_from
from musictag.training.loop import fit
from musictag.training.recipes import FINE_TUNING, FOLDS

EMOTIFY = Path(os.environ.get("EMOTIFY", "../shared/data/emotify"))
INIT = ("msd-musicnn", "mtt-musicnn")
CONFIG = FeatureConfig()
N_FOLDS = 5
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
FIGURES = ("roc_auc", "pr_auc")

Rows = list[dict[str, Any]]
Scores = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int_]
Folds = list[tuple[Indices, Indices]]


def emotify_rows(folder: Path) -> tuple[Rows, npt.NDArray[np.str_]]:
    """Return a features row with targets for each track, and the artists."""
    tracks = read_catalog(str(make_emotify(folder, EMOTIFY))).tracks.to_pylist()
    tags = [track["tags"] for track in tracks]
    rows = []
    for track, targets in zip(tracks, encode(tags, make_vocabulary(tags)), strict=True):
        clips, starts, duration_s, _ = track_clips(Path(track["uri"]), track["uri"], CONFIG)
        start_s = [start * CONFIG.hop_length / CONFIG.sample_rate for start in starts]
        row = {"clips": encode_clips(clips), "n_clips": len(clips), "start_s": start_s, "duration_s": duration_s}
        rows.append({"track_id": track["track_id"], **row, "targets": targets, "tags": track["tags"]})
    return rows, np.array([track["artist"] for track in tracks])


def folds_of(artists: npt.NDArray[np.str_], indices: Indices, n_folds: int, seed: int) -> Folds:
    """Split tracks into folds; return the indices of the other tracks and of the own tracks of each fold."""
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return [(indices[others], indices[own]) for others, own in splitter.split(indices, groups=artists[indices])]


def inner_folds(artists: npt.NDArray[np.str_]) -> list[tuple[Folds, Indices]]:
    """Return for each test fold the folds of the tracks outside it, and its own tracks."""
    everything = folds_of(artists, np.arange(len(artists)), N_FOLDS, seed=0)
    return [(folds_of(artists, others, FOLDS, seed=100 + n), test) for n, (others, test) in enumerate(everything)]


def fine_tuned(rows: Rows, folds: list[tuple[Folds, Indices]]) -> Scores:
    """Return scores (N, K) of each track by the network that did not learn its artist."""
    scores = np.zeros((len(rows), len(rows[0]["targets"])))
    sources = [load_model(pretrained.find(name)) for name in INIT]
    vocabulary = make_vocabulary([row["tags"] for row in rows])
    memories = [EmbeddingCache() for _ in INIT]  # frozen convolutions give the same output in all folds
    torch.set_num_threads(n_cores())
    started = time.perf_counter()
    for number, (inner, test) in enumerate(folds):
        states = []
        for train, validation in inner:
            train_rows, validation_rows = [rows[n] for n in train], [rows[n] for n in validation]

            def validate(model: torch.nn.Module, held_out: Rows = validation_rows) -> dict[str, float]:
                _, truth, given = score_labelled(model, held_out, CONFIG)
                return metrics.validation_metrics(truth, given)

            def train_batches(epoch: int, drawn: Rows = train_rows) -> Iterable[Any]:
                return batches.train_batches(drawn, CONFIG, FINE_TUNING, epoch=epoch)

            network = network_from(sources, CONFIG, vocabulary, [row["targets"] for row in train_rows])
            model = network.build(FINE_TUNING.seed)
            for member, memory in zip(model.members, memories, strict=True):
                member.cache = memory
            steps = batches.count_batches(len(train), FINE_TUNING)
            states.append(fit(model, FINE_TUNING, train_batches=train_batches, steps_per_epoch=steps,
                              validate=validate, on_epoch=lambda _: None))  # fmt: skip
        model.load_state_dict(average_weights([state.best_weights for state in states]))
        scores[test] = score_labelled(model, [rows[n] for n in test], CONFIG)[2]
        losses = [f"{state.best_val_loss:.4f}" for state in states]
        progress.echo(
            f"fold {number + 1}: validation losses {', '.join(losses)}; {time.perf_counter() - started:.0f} s"
        )
    return scores


def activations(rows: Rows, names: Iterable[str]) -> Scores:
    """Return the penultimate layer and the scores of published networks, averaged over the clips of each track."""

    def of_track(model: Any, row: dict[str, Any]) -> Scores:
        clips = decode_clips(row["clips"], CONFIG)
        weights = clip_weights(row["start_s"], row["duration_s"], CONFIG)
        with torch.inference_mode():
            embedding = model.embed(torch.from_numpy(clips.astype(np.float32))).numpy()
        return join(np.hstack([embedding, score_clips(model, clips)]), weights)

    models = [load_model(pretrained.find(name))[0] for name in names]
    return np.stack([np.concatenate([of_track(model, row) for model in models]) for row in rows])


def regression(x: Scores, targets: npt.NDArray[np.bool_], folds: list[tuple[Folds, Indices]]) -> Scores:
    """Return scores (N, K) of each track by logistic regressions that did not learn its artist."""

    def scored(train: Indices, indices: Indices, strength: float) -> Scores:
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=strength, max_iter=1000)
        return np.stack([model.fit(scaler.transform(x[train]), targets[train, k]).predict_proba(
            scaler.transform(x[indices]))[:, 1] for k in range(targets.shape[1])], axis=1)  # fmt: skip

    def loss(inner: Folds, strength: float) -> float:
        return float(np.mean([metrics.log_loss(targets[held_out], scored(train, held_out, strength))
                              for train, held_out in inner]))  # fmt: skip

    scores = np.zeros(targets.shape)
    for inner, test in folds:
        strength = min(STRENGTHS, key=functools.partial(loss, inner))
        scores[test] = scored(np.concatenate(inner[0]), test, strength)
    return scores


def drawn(
    targets: npt.NDArray[np.bool_], scores: Scores, artists: npt.NDArray[np.str_], tests: Iterable[Indices]
) -> npt.NDArray[np.float64]:
    """Return macro ROC-AUC and PR-AUC, means over test folds, (1 + D, 2): of all tracks, then of each resample."""
    fold_figures = []
    for number, test in enumerate(tests):
        all_tracks = np.ones((1, len(test)), dtype=np.int64)
        weights = np.concatenate([all_tracks, bootstrap.draws(artists[test].tolist(), seed=number)])
        figures = bootstrap.figures(targets[test], scores[test], np.ones(targets.shape[1]), weights)
        fold_figures.append(np.stack([bootstrap.macro(figures[name]) for name in FIGURES], axis=1))
    return np.mean(fold_figures, axis=0)


def test_fine_tuning_beats_regression_on_frozen_activations(tmp_path: Path) -> None:
    rows, artists = emotify_rows(tmp_path)
    folds, targets = inner_folds(artists), np.stack([row["targets"] for row in rows])
    tests = [test for _, test in folds]
    ours = drawn(targets, fine_tuned(rows, folds), artists, tests)
    for name, models in {"MSD": INIT[:1], "MTT": INIT[1:], "MSD and MTT": INIT}.items():
        theirs = drawn(targets, regression(activations(rows, models), targets, folds), artists, tests)
        own, difference = bootstrap.interval(ours[1:]), bootstrap.interval((ours - theirs)[1:])
        for n, figure in enumerate(FIGURES):
            progress.echo(
                f"{figure}: fine-tuned {ours[0, n]:.3f} ({own[0, n]:.3f} to {own[1, n]:.3f}), regression on {name} "
                f"{theirs[0, n]:.3f}; difference {difference[0, n]:.3f} to {difference[1, n]:.3f}"
            )
        if len(models) == 1:
            assert difference[0, FIGURES.index("roc_auc")] > 0
