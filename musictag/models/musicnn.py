"""The musicnn network: filters with the shapes of timbres and rhythms, a few convolutions, and pooling over time.

Pons, Nieto, Prockup, Schmidt, Ehmann & Serra, "End-to-end learning for music audio tagging at scale", ISMIR 2018;
Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictag.errors import UsageError
from musictag.models.embedding_cache import EmbeddingCache
from musictag.models.layers import are_widths

TIMBRAL_FRAMES = 7
TIMBRAL_HEIGHTS = (0.4, 0.7)
"""Heights of the timbral filters, as fractions of the number of mel bands."""
TEMPORAL_FRAMES = (128, 64, 32)
MIDEND_FILTERS = 64
DENSE_UNITS = 200
DROPOUT = 0.5
BATCH_NORM_EPS = 1e-3
"""The default of TensorFlow, with which the published weights were trained."""


class Musicnn(nn.Module):
    """Log-mel clips (B, T, M) float32 to logits (B, K).

    Shapes for clips of T = 187 frames and M = 96 bands; every convolution is followed by ReLU, then batch norm:

    ======================  =============  ==========================================================================
    layer                   output         why
    ======================  =============  ==========================================================================
    input                   (B, 1, T, M)   log-mel, batch norm over all of it
    timbral 0               (B, 204, T)    7 frames x 38 bands, maximum over frequency: timbre at any pitch
    timbral 1               (B, 204, T)    7 frames x 67 bands, the same
    temporal 0, 1, 2        (B, 51, T)     128, 64, 32 frames x 1 band, maximum over frequency: onsets and tempo
    concatenated            (B, 561, T)    the front end
    midend 0                (B, 64, T)     7 frames over all front-end channels
    midend 1, 2             (B, 64, T)     7 frames, added to their input
    concatenated            (B, 753, T)    the front end and the outputs of midend 0, 1 and 2
    pool over time          (B, 1506)      maximum and mean of each channel, interleaved
    batch norm, dropout
    dense, ReLU, batch norm (B, 200)       `embed`
    dropout, head           (B, K)         one logit per tag; the caller applies the sigmoid
    ======================  =============  ==========================================================================

    Clips may have any length.

    Args:
        n_mels: M.
        n_tags: K.
        timbral: filters of each timbral block; the published networks have 204, pruned ones fewer (`pruning`).
        temporal: filters of each temporal block; the published networks have 51.

    Raises:
        UsageError: fewer mel bands than a filter needs, or invalid numbers of filters.
    """

    def __init__(
        self,
        *,
        n_mels: int,
        n_tags: int,
        timbral: Sequence[int] = (204, 204),
        temporal: Sequence[int] = (51, 51, 51),
    ) -> None:
        super().__init__()
        for name, filters, kernels in (("timbral", timbral, TIMBRAL_HEIGHTS), ("temporal", temporal, TEMPORAL_FRAMES)):
            if not are_widths(filters) or len(filters) != len(kernels):
                raise UsageError(f"musicnn {name} is {filters}: it must be a list of {len(kernels)} positive integers")
        heights = [int(fraction * n_mels) for fraction in TIMBRAL_HEIGHTS]
        if min(heights) < 1:
            raise UsageError(f"musicnn n_mels is {n_mels}: its filters need at least 3 bands")
        self.input_norm = nn.BatchNorm2d(1, eps=BATCH_NORM_EPS)
        # The convolutions that follow can learn the same scale and shift, and training without this gradient takes
        # half the time.
        self.input_norm.requires_grad_(False)
        self.timbral = nn.ModuleList(
            FilterBlock(filters, (TIMBRAL_FRAMES, height)) for filters, height in zip(timbral, heights, strict=True)
        )
        self.temporal = nn.ModuleList(
            FilterBlock(filters, (frames, 1)) for filters, frames in zip(temporal, TEMPORAL_FRAMES, strict=True)
        )
        n_frontend = sum(timbral) + sum(temporal)
        self.midend = nn.ModuleList(MidendBlock(width) for width in (n_frontend, MIDEND_FILTERS, MIDEND_FILTERS))
        n_pooled = 2 * (n_frontend + len(self.midend) * MIDEND_FILTERS)
        self.pooled_norm = nn.BatchNorm1d(n_pooled, eps=BATCH_NORM_EPS)
        self.dense = nn.Linear(n_pooled, DENSE_UNITS)
        self.dense_norm = nn.BatchNorm1d(DENSE_UNITS, eps=BATCH_NORM_EPS)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(DENSE_UNITS, n_tags)
        self.cache: EmbeddingCache | None = None

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return logits (B, K) for log-mel clips (B, T, M) float32."""
        logits: Tensor = self.head(self.dropout(self.embed(log_mel)))
        return logits

    def embed(self, log_mel: Tensor) -> Tensor:
        """Return the head's input (B, 200) for log-mel clips (B, T, M)."""
        return self.backend(self.encode(log_mel))

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return the convolutions' channels, pooled over time (B, 1506), for log-mel clips (B, T, M)."""
        if self.cache is None:
            return self.pool(self.frontend(log_mel))
        return self.cache.get_or_compute(log_mel, lambda clips: self.pool(self.frontend(clips)))

    def frontend(self, log_mel: Tensor) -> Tensor:
        """Return the channels (B, 561, T) of the timbral and temporal filters for log-mel clips (B, T, M)."""
        x = self.input_norm(log_mel.unsqueeze(1))  # (B, 1, T, M)
        return torch.cat([block(x) for block in self.filter_blocks()], dim=1)

    def pool(self, frontend: Tensor) -> Tensor:
        """Apply the midend to the front end's channels (B, 561, T), and pool all channels over time: (B, 1506)."""
        channels = [frontend]
        x = self.midend[0](frontend)
        channels.append(x)
        for block in self.midend[1:]:
            x = x + block(x)
            channels.append(x)
        concatenated = torch.cat(channels, dim=1)  # (B, 753, T)
        # Channel 0's maximum, channel 0's mean, channel 1's maximum, ...
        return torch.stack([concatenated.amax(dim=2), concatenated.mean(dim=2)], dim=2).flatten(1)

    def backend(self, pooled: Tensor) -> Tensor:
        """Apply the dense layer to pooled channels (B, 1506): (B, 200)."""
        dense = functional.relu(self.dense(self.dropout(self.pooled_norm(pooled))))
        embedding: Tensor = self.dense_norm(dense)
        return embedding

    def freeze_encoder(self) -> None:
        """Stop training of the convolutions, and cache their output for each clip from now on."""
        for part in self._encoder():
            part.requires_grad_(False)
        self.cache = EmbeddingCache()
        self.train(self.training)

    def train(self, mode: bool = True) -> "Musicnn":
        """Switch between training and evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.cache is not None:
            for part in self._encoder():
                part.eval()
        return self

    def filter_blocks(self) -> "list[FilterBlock]":
        """Return the blocks of the front end, in the order of their channels."""
        return [block for block in (*self.timbral, *self.temporal) if isinstance(block, FilterBlock)]

    def _encoder(self) -> list[nn.Module]:
        return [self.input_norm, self.timbral, self.temporal, self.midend]


class FilterBlock(nn.Module):
    """A convolution over the spectrogram (B, 1, T, M), then the maximum over frequency: (B, filters, T)."""

    def __init__(self, filters: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, filters, kernel)
        self.norm = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return channels (B, filters, T) for spectrograms (B, 1, T, M)."""
        frames = self.conv.kernel_size[0]
        before = (frames - 1) // 2  # for an even number of frames, TensorFlow pads one more after than before
        x = functional.pad(x, (0, 0, before, frames - 1 - before))
        if self.norm.training:
            return self.norm(functional.relu(self.conv(x))).amax(dim=3)  # type: ignore[no-any-return]
        # ReLU and batch norm are monotonic, so it is enough to apply them to one extreme over frequency: the maximum,
        # or the minimum where the scale of the batch norm is negative. The minimum is computed as the negated maximum
        # of the negated filter.
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0)
        x = functional.conv2d(x, self.conv.weight * sign.view(-1, 1, 1, 1), self.conv.get_parameter("bias") * sign)
        extreme = x.amax(dim=3, keepdim=True) * sign.view(-1, 1, 1)  # (B, filters, T, 1)
        return self.norm(functional.relu(extreme)).squeeze(3)  # type: ignore[no-any-return]


class MidendBlock(nn.Module):
    """A convolution over time, (B, width, T) to (B, 64, T)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, MIDEND_FILTERS, TIMBRAL_FRAMES, padding=TIMBRAL_FRAMES // 2)
        self.norm = nn.BatchNorm1d(MIDEND_FILTERS, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return channels (B, 64, T) for channels (B, width, T)."""
        return self.norm(functional.relu(self.conv(x)))  # type: ignore[no-any-return]
