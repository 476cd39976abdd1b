import pytest
import torch

from musictag.errors import UsageError
from musictag.models.architectures import build_model
from musictag.models.musicnn import Musicnn
from musictag.models.published.pruning import MAX_REACTION, filter_params, prune

N_MELS = 96


def network(inactive: dict[str, list[int]], seed: int = 0) -> Musicnn:
    """Random weights, with some filters of some blocks inactive."""
    torch.manual_seed(seed)
    model = Musicnn(n_mels=N_MELS, n_tags=5, timbral=(6, 5), temporal=(4, 3, 4))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "norm" in name and tensor.ndim:
                low = 0.5 if name.endswith("var") else -1.5
                tensor.uniform_(low, 1.5)
        for name, numbers in inactive.items():
            block = model.get_submodule(name)
            block.conv.weight[numbers] *= 1e-20
    return model.eval()


def log_mel(n_frames: int) -> torch.Tensor:
    return torch.rand(2, n_frames, N_MELS, generator=torch.Generator().manual_seed(1)) * 4


INACTIVE = {
    "in every block": {"timbral.0": [0, 5], "timbral.1": [2], "temporal.0": [1], "temporal.1": [0], "temporal.2": [3]},
    "in one block": {"temporal.1": [1, 2]},
    "a whole block": {"timbral.0": [0, 1, 2, 3, 4, 5], "temporal.2": [0]},
    "everything": {f"timbral.{n}": list(range(6 - n)) for n in (0, 1)}
    | {f"temporal.{n}": list(range(size)) for n, size in enumerate((4, 3, 4))},
}


@pytest.mark.parametrize("n_frames", [1, 5, 187, 300])
@pytest.mark.parametrize("case", INACTIVE)
def test_a_pruned_network_gives_the_same_logits(case: str, n_frames: int) -> None:
    model = network(INACTIVE[case])
    pruned = prune(model, N_MELS)
    n_inactive = sum(map(len, INACTIVE[case].values()))
    n_left = sum(map(sum, filter_params(pruned).values()))
    n_whole_blocks = {"a whole block": 1, "everything": 5}.get(case, 0)
    assert n_left == 22 - n_inactive + 1 + n_whole_blocks  # one inactive filter stays, and a block needs a filter
    torch.testing.assert_close(pruned(log_mel(n_frames)), model(log_mel(n_frames)), rtol=1e-5, atol=2e-5)


def test_pruning_does_not_change_the_original_network() -> None:
    model = network(INACTIVE["in every block"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune(model, N_MELS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_without_inactive_filters_is_returned_unchanged() -> None:
    model = network({})
    assert prune(model, N_MELS) is model


def test_a_filter_with_a_small_effect_is_kept() -> None:
    model = network({"timbral.0": [0, 1]})
    block = model.filter_blocks()[0]
    with torch.no_grad():
        scale = block.norm.weight[1].abs() / torch.sqrt(block.norm.running_var[1] + block.norm.eps)
        block.conv.weight[1] = 0
        block.conv.weight[1, 0, 3, 3] = 1.01 * MAX_REACTION / scale
    assert filter_params(prune(model, N_MELS))["timbral"] == [6, 5]  # 4 + the faint one + the inactive one


def test_filter_params_rebuild_the_pruned_network() -> None:
    pruned = prune(network(INACTIVE["in every block"]), N_MELS)
    again = build_model("musicnn", filter_params(pruned), n_mels=N_MELS, n_tags=5)
    again.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(again.eval()(log_mel(187)), pruned(log_mel(187)), rtol=0, atol=0)


def test_a_pruned_network_can_be_trained() -> None:
    pruned = prune(network(INACTIVE["in one block"]), N_MELS).train()
    pruned(log_mel(187)).square().sum().backward()
    learning = [parameter for parameter in pruned.parameters() if parameter.requires_grad]
    assert len(learning) > 20
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in learning)


@pytest.mark.parametrize(("name", "filters"), [("timbral", (6,)), ("timbral", (6, 0)), ("temporal", (4, 3, "4"))])
def test_invalid_numbers_of_filters_are_refused(name: str, filters: tuple[object, ...]) -> None:
    with pytest.raises(UsageError, match=f"musicnn {name} is"):
        build_model("musicnn", {name: filters}, n_mels=N_MELS, n_tags=5)
