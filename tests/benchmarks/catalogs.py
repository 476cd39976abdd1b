"""Synthetic catalogs of any size."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

N_TAGS = 50
BATCH_ROWS = 100_000


def batches(n_rows: int, n_tagged: int, broken_share: float = 0.0) -> Iterator[pa.Table]:
    """Yield a catalog as tables of text: random ids of 22 characters, uris of 60; `tags` are separated by `;`.

    The first `n_tagged` rows have tags. Of the broken rows, half have no uri, and half a split that does not exist.
    """
    rng = np.random.default_rng(0)
    for begin in range(0, n_rows, BATCH_ROWS):
        n = min(BATCH_ROWS, n_rows - begin)
        ids = [rng.bytes(11).hex() for _ in range(n)]
        is_broken = rng.random(n) < broken_share
        uris = [f"{each[:2]}/{each[2:4]}/{each}-{each[::-1]}.flac" for each in ids]
        tags = [
            ";".join(f"tag {k}" for k in rng.integers(0, N_TAGS, 3)) if begin + i < n_tagged else "" for i in range(n)
        ]
        yield pa.table(
            {
                "track_id": ids,
                "uri": [
                    "" if broken and i % 2 else uri for i, (uri, broken) in enumerate(zip(uris, is_broken, strict=True))
                ],
                "artist": [f"artist {number}" for number in rng.integers(0, max(n_rows // 10, 1), n)],
                "title": [f"Title {each[:8]}" for each in ids],
                "tags": tags,
                "split": ["holdout" if broken and not i % 2 else "" for i, broken in enumerate(is_broken)],
                "etag": [each[:16] for each in ids],
            }
        )
