"""HSTU's relative attention bias: by hand, however a pass is cut, and told in time."""

import math

import pytest
import torch
from torch import Tensor

from model.networks import kinds
from model.networks.backbone import HSTUBlock, RelativeBias, time_buckets
from model.networks.history import History
from model.networks.network import initialise
from model.version import torchscript
from tests.model import tiny

L, V = tiny.L, tiny.V
S = 1_000
"""A second."""
DAY = 86_400 * S
NOW = 1_767_225_600_123


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(reach: int, timed: bool) -> RelativeBias:
    made = RelativeBias(reach, timed)
    with torch.no_grad():
        made.position.copy_(torch.arange(reach) + 1.0)
        if made.time is not None:
            made.time.copy_(100.0 * torch.arange(129))
    return made


def test_the_bias_of_three_items_by_hand() -> None:
    """Row i goes by the time of what follows it: 1 s, 3 s and 3 days after the first item's."""
    times = torch.tensor([[NOW, NOW + S, NOW + 3 * S, NOW + 3 * DAY]])
    found = relative(5, timed=True)(torch.arange(3)[None], 3, times)
    assert found.shape == (1, 1, 3, 3)
    # ln 1 = 0 → 0; ln 3 / 0.301 = 3.65 → 3; ln 2 / 0.301 = 2.30 → 2; ln of 259,200, 259,199 and 259,197 / 0.301 = 41.41
    # → 41
    assert found[0, 0].tril().tolist() == [[1 + 0, 0, 0], [2 + 300, 1 + 200, 0], [3 + 4_100, 2 + 4_100, 1 + 4_100]]
    assert relative(5, timed=False)(torch.arange(3)[None], 3, None)[0, 0].tril().tolist() == [
        [1, 0, 0],
        [2, 1, 0],
        [3, 2, 1],
    ]


def test_buckets_are_of_seconds_whichever_came_first() -> None:
    seconds = torch.tensor([0, 0.999, 1.3, 1.36, 60, 3_600, 86_400, 3.15e9, 1e15], dtype=torch.float64)
    expected = [min(128, math.floor(math.log(max(1.0, each)) / 0.301)) for each in seconds.tolist()]
    assert expected == [0, 0, 0, 1, 13, 27, 37, 72, 114]
    ms = (seconds * S).to(torch.int64)
    for signed in (ms, -ms):
        assert time_buckets(signed, 128).tolist() == expected
    assert time_buckets(torch.tensor([1 << 62]), 128).tolist() == [119]
    assert time_buckets(torch.tensor([1 << 62]), 100).tolist() == [100]


def block(bias: str, chunk: int = 52) -> HSTUBlock:
    network = tiny.network(config=tiny.config("full", bias))
    made = network.stack()[0]
    assert isinstance(made, HSTUBlock)
    made.chunk = chunk
    return made


@pytest.mark.parametrize("bias", ["pos", "pos_time"])
def test_a_block_adds_the_bias_to_the_scores_before_silu_for_all_heads_alike(bias: str) -> None:
    """Both sections of the specification written out, entry by entry (docs/model-spec.md, "Backbones" and
    docs/model-spec.md, "HSTU relative bias")."""
    made, x, n = block(bias), seeded(1, 5, 16), 5
    times = NOW + torch.tensor([[0, 5, 5, 700, 90_000, 95_000]]) * S
    u, q, k, v = torch.nn.functional.silu(torch.nn.functional.layer_norm(x, [16], eps=1e-6) @ made.uqkv.weight.t())[
        0
    ].chunk(4, dim=1)
    attended = torch.zeros(n, 16)
    for i in range(n):
        for j in range(i + 1):
            assert made.relative is not None
            b = made.relative.position[i - j]
            if made.relative.time is not None:
                gap = (int(times[0, i + 1]) - int(times[0, j])) / S
                b = b + made.relative.time[math.floor(math.log(max(1, gap)) / 0.301)]
            for head in (slice(8), slice(8, 16)):
                attended[i, head] += torch.nn.functional.silu(q[i, head] @ k[j, head] + b) / (4 * L) * v[j, head]
    want = x[0] + made.out(u * torch.nn.functional.layer_norm(attended, [16], eps=1e-6))
    torch.testing.assert_close(made(x, None, times)[0], want, atol=2e-5, rtol=0)


@pytest.mark.parametrize("bias", ["pos", "pos_time"])
def test_chunks_of_rows_and_single_rows_have_the_bias_of_a_whole_pass(bias: str) -> None:
    x, n = seeded(3, 4 * L, 16), 4 * L
    times = NOW + torch.randint(0, 40 * DAY, (3, n + 1), generator=torch.Generator().manual_seed(2)).sort(dim=1).values
    whole = block(bias, chunk=n)(x, None, times)
    for chunk in (1, 7, n - 1):
        torch.testing.assert_close(block(bias, chunk)(x, None, times), whole, atol=1e-5, rtol=0)
    at = torch.tensor([3, 30, n - 1])
    mask = (torch.arange(n) <= at[:, None])[:, None, None]
    rows = block(bias).attend(x[torch.arange(3), at][:, None], x, mask, at[:, None], times)[:, 0]
    torch.testing.assert_close(rows, whole[torch.arange(3), at], atol=1e-5, rtol=0)
    masked = block(bias, 7)(x, torch.ones(n, n, dtype=torch.bool).tril(), times)
    torch.testing.assert_close(masked, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", ["pos", "pos_time"])
def test_n_ref_stays_the_training_window_however_long_a_pass_is(bias: str) -> None:
    """The first rows of a pass do not change when it goes on: nothing in them is of the pass's own length."""
    made, x = block(bias), seeded(1, 2 * L, 16)
    times = NOW + torch.arange(2 * L + 1)[None] * DAY
    torch.testing.assert_close(made(x[:, :L], None, times[:, : L + 1]), made(x, None, times)[:, :L], atol=1e-5, rtol=0)
    assert made.n_ref == 4 * L


def test_a_row_knows_when_its_target_happens_and_nothing_later() -> None:
    network = tiny.network(config=tiny.config("full", "pos_time"))
    items = tiny.rows(1, 2 * L)
    times = (NOW + torch.arange(2 * L + 1) * DAY)[None]

    def hidden(times: Tensor) -> Tensor:
        x = network.embed(items)
        for each in network.stack():
            x = each(x, None, times)
        return x[0]

    for later in (5, L, 2 * L):
        other = times.clone()
        other[:, later:] += 100 * DAY
        changed = (hidden(other) - hidden(times)).abs().amax(1)
        assert changed[: later - 1].max() == 0
        assert changed[later - 1] > 1e-4


def test_the_bias_is_small_at_first_and_every_layers_own() -> None:
    network = kinds.build(
        tiny.table("full", n_items=9, segment_length=50, backbone="hstu", heads=1, layers=2, rel_bias="pos_time")
    )
    assert isinstance(network, History)
    initialise(network, torch.Generator().manual_seed(0))
    biases = [
        (made.relative.position, made.relative.time)
        for made in network.stack()
        if isinstance(made, HSTUBlock) and made.relative
    ]
    assert [tuple(each.shape) for pair in biases for each in pair if each is not None] == [(200,), (129,)] * 2
    for each in (part for pair in biases for part in pair if part is not None):
        assert 0.017 < float(each.detach().std()) < 0.023
    assert not torch.equal(biases[0][0], biases[1][0])


def test_without_a_bias_nothing_is_there() -> None:
    plain = tiny.network(config=tiny.config("full", "hstu"))
    assert not [name for name, _ in plain.named_parameters() if "relative" in name]


@pytest.mark.parametrize("kind", ["full", "trunc"])
def test_the_loss_goes_by_the_times_of_each_window(kind: str) -> None:
    """Trunc's windows of one segment are cut with their times, and with that of the item after them."""
    network = tiny.network(config=tiny.config(kind, "pos_time"))
    items = tiny.rows(2, 4 * L).clamp(max=V)
    times = (
        NOW + torch.randint(0, 90 * DAY, (2, 4 * L + 1), generator=torch.Generator().manual_seed(3)).sort(dim=1).values
    )
    targets, negatives = items.roll(-1, 1), torch.arange(1, 9)
    whole = network.losses(items, targets, negatives, times).total
    if kind == "trunc":
        pieces = torch.stack([times[b, h * L : (h + 1) * L + 1] for b in range(2) for h in range(4)])
        cut = network.losses(items.view(8, L), targets.view(8, L), negatives, pieces).total
        torch.testing.assert_close(whole, cut)
    assert (network.losses(items, targets, negatives, times * 3).total - whole).abs() > 1e-5
    other = times.clone()
    other[:, -1] += 100 * DAY
    assert (network.losses(items, targets, negatives, other).total - whole).abs() > 1e-7


@pytest.mark.parametrize("kind", ["full", "trunc"])
@pytest.mark.parametrize("asked", [None, 1, 400 * DAY])
def test_folding_and_then_asking_equals_one_pass_that_ends_at_the_query(kind: str, asked: int | None) -> None:
    config = tiny.config(kind, "pos_time")
    network, program = tiny.network(config=config), torchscript.script(tiny.serving(config=config))
    assert isinstance(network, History)
    items = tiny.rows(3, 6 * L)
    times = NOW + torch.randint(0, 90 * DAY, (3, 6 * L), generator=torch.Generator().manual_seed(4)).sort(dim=1).values
    with torch.inference_mode():
        state = program.initial_memory(3)
        for h in range(6):
            for n in (0, 1, 5, L):
                end = h * L + n
                if not end:
                    continue
                query_time = None if asked is None else times[:, end - 1] + asked
                last = times[:, end - 1] if query_time is None else query_time
                seen = slice(max(0, end - network.window), end)
                x = network.embed(items[:, seen])
                for each in network.stack():
                    x = each(x, None, torch.cat([times[:, seen], last[:, None]], dim=1))
                new = slice(h * L, end)
                found = tiny.scores(program, state, items[:, new], torch.full((3,), n), times[:, new], query_time)
                torch.testing.assert_close(found, tiny.cosines(network, x[:, -1]), atol=5e-6, rtol=0)
            new = slice(h * L, (h + 1) * L)
            state, hidden = program.update(state, items[:, new], torch.full((3,), L), times[:, new])
            if asked is None:
                torch.testing.assert_close(hidden, x[:, -1], atol=1e-5, rtol=1e-5)


def test_a_state_holds_every_time_to_the_millisecond() -> None:
    """Also those before 1970, and as far as 2^48 ms; beyond they are read as that."""
    program = tiny.serving(config=tiny.config("trunc", "pos_time"))
    edge = (1 << 48) - 1
    times = [-edge, -1, 0, 1, (1 << 24) - 1, 1 << 24, NOW, NOW + 1, edge - 1, edge, edge + 5, 1 << 53]
    assert len(times) == L
    state, _ = program.update(program.initial_memory(1), tiny.rows(1, L), torch.tensor([L]), torch.tensor([times]))
    rows, high, low = state.to(torch.int64).view(3, L)
    assert rows.tolist() == tiny.rows(1, L)[0].tolist()
    assert (high * (1 << 24) + low).tolist() == [min(each, edge) for each in times]


def test_padding_leaves_no_times_behind() -> None:
    program = tiny.serving(config=tiny.config("full", "pos_time"))
    times = torch.full((2, 5), NOW)
    state, _ = program.update(program.initial_memory(2), tiny.rows(2, 5), torch.tensor([5, 2]), times)
    assert not state.view(2, 3, 4 * L)[1, :, 2:].any()
    assert state.view(2, 3, 4 * L)[1, 1:, :2].all()


def test_without_times_items_are_as_old_as_the_newest_that_is_held_or_as_the_query() -> None:
    program = torchscript.script(tiny.serving(config=tiny.config("full", "pos_time")))
    items, lengths = tiny.rows(2, L), torch.full((2,), L)
    old = torch.full((2, L), NOW)
    known, _ = program.update(
        program.initial_memory(2), tiny.rows(2, L, seed=1), lengths, old - DAY * torch.arange(L).flip(0)
    )
    for memory, then in ((known, old), (program.initial_memory(2), old + DAY)):
        for query_time in (None, torch.full((2,), NOW + DAY)):
            if query_time is None and memory is not known:
                continue
            want = tiny.scores(program, memory, items, lengths, then, query_time)
            torch.testing.assert_close(
                tiny.scores(program, memory, items, lengths, None, query_time), want, atol=1e-6, rtol=0
            )
    at_once = tiny.scores(program, program.initial_memory(2), items, lengths)
    torch.testing.assert_close(
        at_once, tiny.scores(program, program.initial_memory(2), items, lengths, old), atol=1e-6, rtol=0
    )
    assert (
        at_once - tiny.scores(program, program.initial_memory(2), items, lengths, old + DAY * torch.arange(L))
    ).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rel_bias": "time"}, "rel_bias is 'time', must be one of none, pos, pos_time"),
        ({"rel_bias": "pos", "backbone": "sasrec"}, "rel_bias is 'pos', which only hstu has, not sasrec"),
        ({"rel_bias": "pos_time", "backbone": "meta"}, "not meta"),
        ({"rel_bias": "pos_time", "kind": "rec2pm-o"}, "rel_bias is a field of full, trunc, not of rec2pm-o"),
        ({"rel_bias": "pos", "kind": "kv-mask-a"}, "rel_bias is a field of full, trunc, not of kv-mask-a"),
        ({"rel_bias": "none", "kind": "rec2pm-o"}, "rel_bias is a field of full, trunc, not of rec2pm-o"),
    ],
)
def test_a_bias_where_there_is_none_is_refused(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.changed(tiny.config("full", "hstu"), **wrong)
