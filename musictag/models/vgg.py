"""The VGG network of the musicnn package: five 3x3 convolutions with pooling between them, as in computer vision.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR 2019;
after Simonyan & Zisserman, 2015, and Choi, Fazekas & Sandler, 2016.
"""

import torch
from torch import Tensor, nn

from musictag.errors import UsageError

FILTERS = 128
BATCH_NORM_EPS = 1e-3
"""The default of TensorFlow, with which the published weights were trained."""
# Window and stride of the pooling after each convolution, (time, frequency), and the dropout that follows.
POOLS = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))
DROPOUTS = (0.25, 0.25, 0.25, 0.25, 0.5)
CLIP_FRAMES = 187
"""T. The head has weights for each position in time, so that clips of another length do not fit."""


class VGG(nn.Module):
    """Log-mel clips (B, 187, M) float32 to logits (B, K).

    Shapes for M = 96 bands; a block is a 3x3 convolution, ReLU, batch norm, maximum pool, dropout:

    =========  ==================
    layer      output
    =========  ==================
    input      (B, 1, 187, 96)      log-mel, batch norm over all of it
    block 1    (B, 128, 92, 48)
    block 2    (B, 128, 46, 24)
    block 3    (B, 128, 23, 12)
    block 4    (B, 128, 11, 6)
    block 5    (B, 128, 2, 1)
    flatten    (B, 256)             `embed`: the 128 channels of each position
    head       (B, K)               one logit per tag; the caller applies the sigmoid
    =========  ==================

    Args:
        n_mels: M.
        n_tags: K.

    Raises:
        UsageError: there are too few mel bands for the pooling.
    """

    def __init__(self, *, n_mels: int, n_tags: int) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, eps=BATCH_NORM_EPS)
        blocks: list[nn.Module] = []
        width, size = 1, (CLIP_FRAMES, n_mels)
        for (window, stride), dropout in zip(POOLS, DROPOUTS, strict=True):
            blocks += [
                nn.Conv2d(width, FILTERS, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.BatchNorm2d(FILTERS, eps=BATCH_NORM_EPS),
                nn.MaxPool2d(window, stride),
                nn.Dropout(dropout),
            ]
            width = FILTERS
            size = ((size[0] - window[0]) // stride + 1, (size[1] - window[1]) // stride + 1)
        if min(size) < 1:
            raise UsageError(f"vgg n_mels is {n_mels}: its pooling needs at least 63 bands")
        self.blocks = nn.Sequential(*blocks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Linear(size[0] * size[1] * FILTERS, n_tags)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return logits (B, K) for log-mel clips (B, 187, M) float32.

        Raises:
            UsageError: the clips have another number of frames.
        """
        logits: Tensor = self.head(self.embed(log_mel))
        return logits

    def embed(self, log_mel: Tensor) -> Tensor:
        """Return the head's input, (B, 256) for 96 bands, for log-mel clips (B, 187, M); raise like `forward`."""
        if log_mel.shape[1] != CLIP_FRAMES:
            raise UsageError(f"vgg takes clips of {CLIP_FRAMES} frames, these have {log_mel.shape[1]}")
        x = self.blocks(self.input_norm(log_mel.unsqueeze(1)))
        return x.permute(0, 2, 3, 1).flatten(1)  # type: ignore[no-any-return] # (B, T', M', 128), TensorFlow's order
