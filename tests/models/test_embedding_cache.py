import torch

from musictag.models.embedding_cache import EmbeddingCache


def doubled(calls):
    def function(clips):
        calls.append(len(clips))
        return 2 * clips.flatten(1)

    return function


def test_each_clip_is_computed_once_and_given_in_order():
    memory, calls = EmbeddingCache(), []
    clips = torch.rand(4, 3, 2)
    for places in ([0, 1], [1, 2], [2, 0, 1], [3, 3, 0]):
        given = memory.recall(clips[places], doubled(calls))
        assert torch.equal(given, 2 * clips[places].flatten(1))
    assert calls == [2, 1, 2]


def test_what_finds_no_room_is_computed_anew():
    memory, calls = EmbeddingCache(max_clips=1), []
    clips = torch.rand(3, 3, 2)
    for _ in range(2):
        assert torch.equal(memory.recall(clips, doubled(calls)), 2 * clips.flatten(1))
    assert calls == [3, 2]
    assert len(memory.outputs) == 1


def test_what_is_given_may_be_changed():
    memory, clips = EmbeddingCache(), torch.rand(2, 3, 2)
    for _ in range(2):
        given = memory.recall(clips, doubled([]))
        assert torch.equal(given, 2 * clips.flatten(1))
        given.zero_()
