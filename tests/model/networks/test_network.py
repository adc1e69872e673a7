"""What every network shares: its shape, and the loss of predicting the next item."""

import pytest
import torch

from model.networks.config import NetworkConfig
from tests.model import tiny

V = tiny.V


def test_a_negative_that_is_the_target_is_left_out() -> None:
    network, hidden, target = tiny.network(), torch.randn(1, 16), torch.tensor([7])
    with_collision = network.next_item_loss(hidden, target, torch.tensor([3, 7, 9]))
    torch.testing.assert_close(with_collision, network.next_item_loss(hidden, target, torch.tensor([3, 9])))


def test_negatives_of_each_position_that_are_all_the_same_are_shared_ones() -> None:
    network, hidden, targets, negatives = (
        tiny.network(),
        torch.randn(2, 3, 16),
        torch.tensor([[7, 0, 2], [1, 3, 0]]),
        torch.tensor([3, 9]),
    )
    shared = network.next_item_loss(hidden, targets, negatives)
    torch.testing.assert_close(network.next_item_loss(hidden, targets, negatives.expand(2, 3, 2)), shared)


@pytest.mark.parametrize(("kind", "backbone"), tiny.CASES, ids="-".join)
def test_negatives_are_those_of_their_position(kind: str, backbone: str) -> None:
    """Shared negatives, written out for every position, give the same loss; one position's other ones change it."""
    network = tiny.network(config=tiny.config(kind, backbone))
    items = tiny.rows(3, 4 * tiny.L).clamp(max=V)
    items[0, 30:] = 0
    targets = items.roll(-1, 1).masked_fill(items == 0, 0)
    negatives, times = torch.arange(20, 26), tiny.window_times(items)
    shared = network.losses(items, targets, negatives, times).next_item
    each = negatives.expand(3, items.size(1), 6).clone()
    torch.testing.assert_close(network.losses(items, targets, each, times).next_item, shared)
    each[1, 17] = torch.arange(1, 7)
    assert (network.losses(items, targets, each, times).next_item - shared).abs() > 1e-6


@pytest.mark.parametrize(("kind", "backbone"), tiny.CASES, ids="-".join)
def test_what_is_not_predicted_counts_for_nothing_and_every_parameter_is_trained(kind: str, backbone: str) -> None:
    network = tiny.network(config=tiny.config(kind, backbone))
    network.stage(99)
    items = tiny.rows(3, 4 * tiny.L).clamp(max=V)
    items[0, 30:], items[1, 5:] = 0, 0
    targets = items.roll(-1, 1).masked_fill(items == 0, 0)
    found = network.losses(items, targets, torch.arange(1, 21), tiny.window_times(items))
    found.total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d": 10, "heads": 4}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_items": 0}, "n_items"),
        ({"temperature": 0.0}, "temperature"),
        ({"kind": "rec2pm"}, "kind is 'rec2pm', must be one of full"),
        ({"backbone": "gpt"}, "backbone is 'gpt', must be one of sasrec"),
        ({"segments": 1}, "segments is 1"),
        ({"kind": "holomambarec", "d": 7}, "must be even"),
        ({"stage1_weight": -1.0}, "stage1_weight is -1.0"),
        ({"rollout": 1.5}, "rollout is 1.5"),
        ({"kind": "tok-serial-o", "rollout": 0.5}, "rollout is a field of rec2pm-o, rec2pm-a, not of tok-serial-o"),
        ({"kind": "trunc", "overlap": 2}, "overlap is a field of rec2pm-o, .*, tok-serial-a, not of trunc"),
        ({"kind": "holomambarec", "heads": 2}, "heads is a field of full, .*, kv-mask-a, not of holomambarec"),
        ({"depth": 3, "segments": "four"}, "there is no field 'depth'"),
        ({"segments": "four"}, "Expected `int`, got `str` - at `\\$.segments`"),
        ({"d": 0, "slots": 0, "overlap": 6}, "d is 0, .*slots is 0, .*overlap is 6, must be at most segment_length"),
    ],
)
def test_a_network_that_cannot_be_is_refused(wrong: dict[str, float | str], message: str) -> None:
    values = {"n_items": 10, "segment_length": 5} | wrong
    with pytest.raises(ValueError, match=message):
        NetworkConfig.of_table(values)
