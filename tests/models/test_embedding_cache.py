import torch

from musictag.models.embedding_cache import EmbeddingCache


def recording_double(calls):
    """Return a function that doubles clips and appends the number of clips of each call to `calls`."""

    def double(clips):
        calls.append(len(clips))
        return 2 * clips.flatten(1)

    return double


def test_each_clip_is_computed_once_and_outputs_keep_the_order_of_clips():
    cache, calls = EmbeddingCache(), []
    clips = torch.rand(4, 3, 2)
    for places in ([0, 1], [1, 2], [2, 0, 1], [3, 3, 0]):
        outputs = cache.get_or_compute(clips[places], recording_double(calls))
        assert torch.equal(outputs, 2 * clips[places].flatten(1))
    assert calls == [2, 1, 2]


def test_clips_beyond_the_limit_are_computed_again():
    cache, calls = EmbeddingCache(max_clips=1), []
    clips = torch.rand(3, 3, 2)
    for _ in range(2):
        assert torch.equal(cache.get_or_compute(clips, recording_double(calls)), 2 * clips.flatten(1))
    assert calls == [3, 2]
    assert len(cache.outputs) == 1


def test_changing_a_returned_tensor_does_not_change_the_cache():
    cache, clips = EmbeddingCache(), torch.rand(2, 3, 2)
    for _ in range(2):
        outputs = cache.get_or_compute(clips, recording_double([]))
        assert torch.equal(outputs, 2 * clips.flatten(1))
        outputs.zero_()
