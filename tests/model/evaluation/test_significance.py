import numpy as np
import pytest

from model.evaluation import significance


def test_a_shares_interval_is_wilsons() -> None:
    """(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n), by hand for 5 of 50."""
    found = significance.share(np.repeat([1.0, 0.0], [5, 45]))
    z, n, p = 1.959964, 50, 0.1
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.1, (p + z**2 / (2 * n) - half) / (1 + z**2 / n), (p + z**2 / (2 * n) + half) / (1 + z**2 / n)), abs=1e-6
    )
    assert significance.share(np.zeros(20)).high > 0.1


def test_a_means_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [significance.mean(rng.exponential(size=40)) for _ in range(1_000)]
    assert 0.91 < np.mean([each.low <= 1.0 <= each.high for each in found]) < 0.97


def test_no_interval_goes_where_no_mean_can_be() -> None:
    assert significance.mean(np.array([0.0, 0.0, 0.0, 1.0])).low == 0.0
    assert significance.mean(np.array([-1.0, 0.0, 0.5]), least=-1.0).low == -1.0
    one = significance.mean(np.array([0.3]))
    assert (one.value, one.low, one.high) == (0.3, 0.3, 0.3)


def test_paired_says_who_is_better_and_how_sure_that_is() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(200)
    better = np.clip(first + 0.02 * rng.random(200), 0, 1)
    hits, first_hits = np.repeat([1.0, 0.0], [30, 170]), np.repeat([0.0, 1.0, 0.0], [20, 12, 168])
    found = significance.paired(better, first, hits, first_hits)
    assert found.ndcg_at_10.low > 0
    assert found.ndcg_p < 1e-6
    assert (found.only_second, found.only_first) == (20, 2)
    # McNemar, exactly: both tails of 2 of 22 fair coins.
    assert found.hits_p == pytest.approx(2 * (1 + 22 + 231) / 2**22)
    turned = significance.paired(first, better, first_hits, hits)
    assert turned.ndcg_at_10.value == -found.ndcg_at_10.value
    assert (turned.only_first, turned.only_second, turned.ndcg_p) == (20, 2, pytest.approx(found.ndcg_p))


def test_what_is_equal_is_no_difference_and_no_division_by_zero() -> None:
    same = np.array([0.1, 0.5, 0.0])
    found = significance.paired(same, same, np.ones(3), np.ones(3))
    assert (found.ndcg_at_10.value, found.ndcg_p, found.hits_p) == (0.0, 1.0, 1.0)
    assert significance.paired(np.ones(3), np.zeros(3), np.ones(3), np.zeros(3)).ndcg_p == 0.0


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def test_a_permutation_test_finds_what_is_there_and_is_fair_to_what_is_not() -> None:
    rng = np.random.default_rng(2)
    assert significance.worse_by_chance(rng.normal(0.3, 1, 300), 0) < 0.001
    assert significance.worse_by_chance(rng.normal(-0.3, 1, 300), 0) > 0.999
    assert significance.worse_by_chance(np.zeros(50), 0) == 1.0
    assert significance.worse_by_chance(np.array([0.0, 0.7, 0.0]), 0) == 0.5
    # All 2⁵ signs are tried when there are so few: only one of them is as high.
    assert significance.worse_by_chance(np.array([0.0, 1, 2, 3, 4, 5]), 0) == pytest.approx(1 / 32)
    assert np.mean([significance.worse_by_chance(rng.normal(size=8), 0) < 0.2 for _ in range(200)]) == pytest.approx(
        0.2, abs=0.1
    )


def test_a_bootstraps_interval_is_that_of_the_mean_when_weights_are_equal() -> None:
    rng = np.random.default_rng(3)
    values = rng.exponential(size=(400, 2))
    for column, found in enumerate(significance.bootstrap(values, np.ones(400), 0)):
        expected = significance.mean(values[:, column])
        assert found.value == pytest.approx(expected.value)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_a_bootstrap_draws_users_with_all_their_weight() -> None:
    """One user with most of the weight: whether they are drawn decides, so the interval is wide."""
    sums, weights = np.append(np.zeros(99), 900.0)[:, None], np.append(np.ones(99), 900.0)
    (found,) = significance.bootstrap(sums, weights, 0)
    assert found.value == pytest.approx(900 / 999)
    assert found.low == 0.0
    assert found.high > 0.95


def test_a_bootstrap_is_repeatable_and_many_users_vary_as_much_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    values, weights = rng.random((3_000, 1)), rng.integers(1, 9, 3_000).astype(float)
    (single,) = significance.bootstrap(values * weights[:, None], weights, 7)
    assert significance.bootstrap(values * weights[:, None], weights, 7) == [single]
    monkeypatch.setattr(significance, "BOOTSTRAP_UNITS", 500)
    (grouped,) = significance.bootstrap(values * weights[:, None], weights, 7)
    assert grouped.value == pytest.approx(single.value)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_a_sign_test_is_exact_and_knows_nothing_of_ties() -> None:
    assert significance.sign_test(2, 20) == pytest.approx(2 * (1 + 22 + 231) / 2**22)
    assert significance.sign_test(0, 0) == 1.0


def test_one_difference_says_nothing() -> None:
    assert significance.t_test(np.array([0.3])) == 1.0


def test_differences_that_are_equal_but_for_rounding_are_certain() -> None:
    """scipy would divide one rounding error by another, and warn whoever runs the command."""
    assert significance.t_test(np.array([0.3, 0.1 + 0.2, 0.3])) == 0.0
