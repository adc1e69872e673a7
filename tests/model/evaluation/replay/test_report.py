"""The report of a replay says what is in the files, and says what is wrong with them."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg, retrieval_reciprocal_rank

from model.errors import EvaluationImpossible, ReplayIncomplete
from model.evaluation.replay import found as schema
from model.evaluation.replay import report
from model.evaluation.replay.divisions import MOST_WINDOWS, WINDOWS_MS, window_ms
from model.evaluation.replay.found import Finding
from model.evaluation.replay.measures import CUTS
from tests.model.evaluation.replay import made
from tests.model.evaluation.replay.made import Model

MODELS = (
    Model("first@1", skill=0.5, trained_until=0.3),
    Model("second|2@7", skill=0.3, trained_until=0.2, every=3, segment_length=5),
    Model("<third>@1", skill=0.5, trained_until=0.0, catalogue=0.6),
)
AUDIT = (
    Finding("order", "OK", "0 of 3,000", "rows are in time order"),
    Finding("ties", "attention", "3 %", "some <b>"),
)
HEAD = {"log": "somewhere/clicks.parquet", "log_sha256": "ab" * 32, "models": {"first@1": "cd" * 32}, "seed": 3}


class Made:
    """A folder, its report, and what is in its files."""

    def __init__(self, out: Path, models: tuple[Model, ...], protocol: Any = "timeline", **log: Any) -> None:
        self.ordered = made.log(**log)
        self.scored = made.folder(out, self.ordered, models)
        self.rows = self.ordered.sort("partition", "offset")
        self.out, self.names = out, [model.name for model in models]
        assert (
            report.write(out, models=self.names, protocol=protocol, audit=AUDIT, head=HEAD, seed=3)
            == out / "report.html"
        )
        self.json = msgspec.json.decode((out / "report.json").read_bytes())
        self.markdown, self.html = ((out / name).read_text() for name in ("report.md", "report.html"))
        self.baselines = pl.read_parquet(out / "baselines.parquet")

    @property
    def listed(self) -> pl.Series:
        return (
            pl.DataFrame({name: each["rank"] for name, each in self.scored.items()})
            .select(pl.all_horizontal(pl.all().is_not_null()))
            .to_series()
        )

    @property
    def leak(self) -> pl.Series:
        return (
            pl.DataFrame({name: each["leak"] for name, each in self.scored.items()})
            .select(pl.any_horizontal(pl.all()))
            .to_series()
        )

    @property
    def good(self) -> pl.Series:
        return self.listed & ~self.leak

    def ranks(self, name: str) -> pl.Series:
        if name in self.scored:
            return self.scored[name]["rank"]
        return self.baselines[f"rank_{name.replace(' ', '_')}"]

    def ranked(self, name: str) -> dict[str, Any]:
        (one,) = (each for each in self.json["rankings"] if each["name"] == name)
        return one

    def ndcg(self, name: str) -> np.ndarray:
        """NDCG@10 of each interaction that counts, by its definition."""
        ranks = self.ranks(name).filter(self.good).fill_null(0).cast(pl.Float64).to_numpy()
        return np.where((ranks > 0) & (ranks <= 10), 1 / np.log2(np.maximum(ranks, 1) + 1), 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("replay") / "out", MODELS)


@pytest.fixture(scope="module")
def by_rank() -> dict[str, np.ndarray]:
    """torchmetrics' metrics of a list of 100 by the place of its one hit; index 0: the hit is in none of them."""
    scores = torch.arange(101.0, 0.0, -1.0)  # place 101 is below the list
    found: dict[str, list[float]] = defaultdict(list)
    for rank in range(101):
        hit = torch.zeros(101, dtype=torch.int64)
        hit[rank - 1 if rank else 100] = 1
        found["mrr"].append(retrieval_reciprocal_rank(scores, hit, top_k=100).item())
        for k in CUTS:
            found[f"hr {k}"].append(retrieval_hit_rate(scores, hit, top_k=k).item())
            found[f"ndcg {k}"].append(retrieval_normalized_dcg(scores, hit, top_k=k).item())
    return {name: np.array(values) for name, values in found.items()}


def test_accuracy_is_that_of_torchmetrics_on_the_same_ranks(whole: Made, by_rank: dict[str, np.ndarray]) -> None:
    for told in whole.json["rankings"]:
        ranks = whole.ranks(told["name"]).filter(whole.good).fill_null(0).to_numpy()
        for k in CUTS:
            for name in ("hr", "ndcg"):
                assert told["accuracy"][name][str(k)] == pytest.approx(by_rank[f"{name} {k}"][ranks].mean(), abs=1e-6)
        assert told["accuracy"]["mrr"] == pytest.approx(by_rank["mrr"][ranks].mean(), abs=1e-6)
        assert told["accuracy"]["hr"]["100"] > told["accuracy"]["hr"]["1"] > 0


def test_what_counts_has_a_list_of_every_model_and_trained_none(whole: Made) -> None:
    counts, n = whole.json["counts"], len(whole.rows)
    assert counts["interactions"] == counts["asked"] == n
    assert counts["without_list"] == n - whole.listed.sum() > 0
    assert counts["leaked"] == (whole.listed & whole.leak).sum() > 0
    assert counts["scored"] == whole.good.sum() == n - counts["without_list"] - counts["leaked"]
    assert counts["scored_users"] == whole.rows.filter(whole.good)["user_id"].n_unique()
    assert counts["repeated"] == whole.rows.filter(whole.good & (whole.rows["had"] > 0)).height > 0
    tied = whole.rows.filter(pl.struct("user_id", "timestamp").is_duplicated()).height
    assert counts["tied"] == pytest.approx(tied / n)
    for name, scored in whole.scored.items():
        assert whole.ranked(name)["without_list"] == scored["rank"].is_null().sum()
        assert whole.ranked(name)["leaked"] == (scored["leak"] & whole.listed).sum()


def test_leaks_are_red_and_out_of_the_headline_but_told(whole: Made) -> None:
    red = [each["words"] for each in whole.json["warnings"] if each["red"]]
    assert len(red) == 1
    assert "in the training range of a model (first@1 " in red[0].replace("\n", " ")
    assert '<div class="alert red">' in whole.html
    for name in whole.names:
        told = whole.ranked(name)
        ranks = whole.ranks(name).filter(whole.listed)
        assert told["with_leaks"]["hr_at_10"] == pytest.approx(((ranks > 0) & (ranks <= 10)).mean())
        assert told["with_leaks"]["hr_at_10"] != told["accuracy"]["hr"]["10"]
    assert whole.json["figures"] == "clean"


def test_if_everything_was_trained_on_all_figures_are_red(tmp_path: Path) -> None:
    found = Made(tmp_path / "out", (Model("only@1", trained_until=1.0),), rows=400)
    assert (found.json["figures"], found.json["counts"]["scored"]) == ("leaked", 0)
    assert "Every figure below is too good" in found.json["warnings"][0]["words"]
    assert found.ranked("only@1")["accuracy"]["hr"]["10"] == found.ranked("only@1")["with_leaks"]["hr_at_10"] > 0


def test_a_clean_report_is_not_red(tmp_path: Path) -> None:
    found = Made(tmp_path / "out", (Model("only@1"),), rows=400)
    assert [each for each in found.json["warnings"] if each["red"]] == []
    assert '<div class="alert red">' not in found.html


def test_last_out_counts_the_last_interaction_of_each_user_and_says_that_it_leaks(tmp_path: Path) -> None:
    found = Made(tmp_path / "out", (Model("only@1"),), protocol="last-out", rows=900)
    last = found.rows["taken"] == found.rows.select(pl.col("taken").max().over("user_id")).to_series()
    ranks = found.ranks("only@1").filter(last & (found.rows["taken"] > 0))
    assert found.json["counts"]["asked"] == last.sum() < found.json["counts"]["interactions"]
    assert found.ranked("only@1")["accuracy"]["hr"]["10"] == pytest.approx(((ranks > 0) & (ranks <= 10)).mean())
    for text in (found.markdown, found.html, found.json["warnings"][0]["words"]):
        assert "Leaks from the future" in text


def test_unknown_items_are_counted_apart_and_count_as_missed(whole: Made) -> None:
    for name, scored in whole.scored.items():
        told = whole.ranked(name)
        known = whole.good & scored["known"].fill_null(False)
        assert told["unknown"]["interactions"] == whole.good.sum() - known.sum()
        ranks = scored["rank"].filter(known)
        assert told["unknown"]["hr_at_10_without"] == pytest.approx(((ranks > 0) & (ranks <= 10)).mean())
    assert whole.ranked("<third>@1")["unknown"]["interactions"] > whole.ranked("first@1")["unknown"]["interactions"] > 0
    new = whole.baselines["seen"].filter(whole.good) == 0
    assert whole.ranked("popular")["unknown"]["interactions"] == new.sum()


def test_every_user_counts_once_and_is_compared_with_the_first_model(whole: Made) -> None:
    users = whole.rows.filter(whole.good).select("user_id")
    means = {
        name: users.with_columns(pl.Series("gain", whole.ndcg(name)))
        .group_by("user_id")
        .agg(pl.col("gain").mean())
        .sort("user_id")
        for name in (each["name"] for each in whole.json["rankings"])
    }
    file = pl.read_parquet(whole.out / "per_user.parquet")
    for name, mean in means.items():
        told = whole.ranked(name)
        assert told["per_user"]["ndcg_at_10"]["value"] == pytest.approx(mean["gain"].mean())
        assert told["per_user"]["ndcg_at_10_median"] == pytest.approx(mean["gain"].median(), abs=1e-8)
        assert file["user_id"].equals(mean["user_id"])
        assert file[f"{name} NDCG@10"].to_numpy() == pytest.approx(mean["gain"].to_numpy(), abs=1e-8)
        difference = (mean["gain"] - means["first@1"]["gain"]).to_numpy()
        pair = told["against_first"]
        if name == "first@1":
            assert pair is None
            continue
        assert pair["ndcg_at_10"]["value"] == pytest.approx(difference.mean(), abs=1e-8)
        assert pair["ndcg_at_10"]["low"] < pair["ndcg_at_10"]["value"] < pair["ndcg_at_10"]["high"]
        wins, losses = (difference > 1e-9).sum(), (difference < -1e-9).sum()
        assert (pair["wins"], pair["ties"], pair["losses"]) == (wins, len(difference) - wins - losses, losses)
        assert pair["p_holm"] >= pair["p"]
    assert whole.ranked("second|2@7")["against_first"]["p_holm"] < 0.01


def test_divisions_and_windows_are_of_all_that_counts(whole: Made) -> None:
    n, total = whole.good.sum(), {name: whole.ndcg(name).mean() for name in whole.names}
    for name in whole.names:
        told = whole.ranked(name)
        for division, parts in told["by"].items():
            if division == "since_fold":
                folded = (whole.scored[name]["folds"].filter(whole.good) > 0).sum()
                assert sum(part["interactions"] for part in parts) == folded
                continue
            assert sum(part["interactions"] for part in parts) == n, division
            mean = sum(part["interactions"] * part["ndcg_at_10"] for part in parts) / n
            assert mean == pytest.approx(total[name]), division
            assert len(parts) > 1, division
        assert told["windows"][-1]["ndcg_at_10_so_far"] == pytest.approx(total[name])
        assert sum(window["interactions"] for window in told["windows"]) == n


def test_a_part_has_the_interactions_that_its_label_says(whole: Made) -> None:
    rows = (
        whole.rows.with_columns(whole.scored["first@1"]["folds", "since_fold"])
        .hstack(whole.baselines.select("seen", "age_ms"))
        .filter(whole.good)
    )
    hours = pl.from_epoch("timestamp", "ms").dt.hour()
    expected = {
        ("history", "1–9"): pl.col("taken") < 10,
        ("history", "50–99"): pl.col("taken").is_between(50, 99),
        ("folds", "0"): pl.col("folds") == 0,
        ("folds", "3–4"): pl.col("folds").is_between(3, 4),
        ("since_fold", "1–4"): (pl.col("folds") > 0) & pl.col("since_fold").is_between(1, 4),
        ("popularity", "10–99"): pl.col("seen").is_between(10, 99),
        ("age", "< 1 day"): pl.col("age_ms").is_between(3_600_000, 86_399_999),
        ("age", "< 30 days"): pl.col("age_ms").is_between(7 * 86_400_000, 30 * 86_400_000 - 1),
        ("hour", "13"): hours == 13,
        ("repeat", "repeat"): pl.col("had") > 0,
    }
    for (division, label), condition in expected.items():
        (part,) = (each for each in whole.ranked("first@1")["by"][division] if each["label"] == label)
        assert part["interactions"] == rows.filter(condition).height > 0, (division, label)


def test_coverage_and_novelty_are_of_the_first_ten_items_of_every_list(whole: Made) -> None:
    users = dict(whole.rows.group_by("item_id").agg(pl.col("user_id").n_unique()).iter_rows())
    everybody = whole.rows["user_id"].n_unique()
    for name in whole.names:
        lists = pl.read_parquet(whole.out / name / "recommendations.parquet")["items"].to_list()
        shown = [item for each in lists for item in each[:10]]
        told = whole.ranked(name)["beyond"]
        assert told["covered"] == len(set(shown))
        assert told["coverage"] == pytest.approx(len(set(shown) & set(users)) / len(users))
        assert told["novelty"] == pytest.approx(
            np.mean([-np.log2(max(1, users.get(item, 0)) / everybody) for item in shown])
        )
    assert whole.ranked("popular")["beyond"]["novelty"] < whole.ranked("first@1")["beyond"]["novelty"]


def test_without_the_weight_of_popular_items(whole: Made) -> None:
    for name in ("first@1", "popular"):
        items = whole.rows.filter(whole.good).select("item_id", pl.Series("gain", whole.ndcg(name)))
        by_item = items.group_by("item_id").agg(pl.col("gain").mean(), pl.len().alias("n"))
        told = whole.ranked(name)["beyond"]
        assert told["ndcg_by_item"] == pytest.approx(by_item["gain"].mean())
        n = by_item["n"].to_numpy()
        first, third = np.quantile(n, [0.25, 0.75])
        weights = np.minimum(n, int(third + 1.5 * (third - first)))
        assert told["ndcg_capped"] == pytest.approx((weights * by_item["gain"].to_numpy()).sum() / weights.sum())


def test_costs_are_per_list_fold_and_user(whole: Made) -> None:
    cost = msgspec.json.decode((whole.out / "first@1" / "cost.json").read_bytes())
    told = whole.ranked("first@1")["cost"]
    assert told["ms_per_list"] == pytest.approx(1_000 * cost["list_seconds"] / cost["lists"])
    assert told["ms_per_fold"] == pytest.approx(1_000 * cost["fold_seconds"] / cost["folds"])
    assert told["bytes_per_user"] == pytest.approx(cost["state_bytes"] / cost["users"])
    assert told["interactions_per_s"] == pytest.approx(cost["interactions"] / cost["seconds"])
    assert whole.ranked("popular")["cost"] is None


def test_the_same_files_give_the_same_report(whole: Made, tmp_path: Path) -> None:
    again = Made(tmp_path / "out", MODELS)
    for name in ("report.json", "report.md", "report.html", "per_user.parquet", "baselines.parquet"):
        assert (again.out / name).read_bytes() == (whole.out / name).read_bytes(), name


def test_a_model_without_lists_and_cost_has_ranks_all_the_same(tmp_path: Path) -> None:
    log = made.log(rows=600)
    made.folder(tmp_path, log, MODELS[:2])
    for name in ("recommendations.parquet", "cost.json"):
        (tmp_path / MODELS[1].name / name).unlink()
    report.write(tmp_path, models=[model.name for model in MODELS[:2]], protocol="timeline", audit=(), head={})
    told = msgspec.json.decode((tmp_path / "report.json").read_bytes())["rankings"][1]
    assert (told["beyond"]["covered"], told["beyond"]["novelty"], told["cost"]) == (None, None, None)
    assert told["accuracy"]["hr"]["10"] > 0


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    made.folder(tmp_path, made.log(rows=300), [Model("only@1")])

    def write() -> None:
        report.write(tmp_path, models=["only@1"], protocol="timeline", audit=(), head={})

    scored = pl.read_parquet(tmp_path / "only@1" / "scored.parquet")
    scored.head(299).write_parquet(tmp_path / "only@1" / "scored.parquet")
    with pytest.raises(ReplayIncomplete, match=r"scored.parquet has 299 rows, but interactions.parquet has 300"):
        write()
    scored.drop("leak").write_parquet(tmp_path / "only@1" / "scored.parquet")
    with pytest.raises(ReplayIncomplete, match=r"scored.parquet lacks the column leak"):
        write()
    (tmp_path / "only@1" / "scored.parquet").unlink()
    with pytest.raises(ReplayIncomplete, match=r"scored.parquet is missing"):
        write()


def test_a_replay_without_any_list_is_refused(tmp_path: Path) -> None:
    log = made.log(rows=300).unique("user_id", keep="first", maintain_order=True)
    made.folder(tmp_path, log.with_columns(offset=pl.int_range(pl.len()).over("partition")), [Model("only@1")])
    with pytest.raises(EvaluationImpossible, match=r"none of \d+ interactions can be scored"):
        report.write(tmp_path, models=["only@1"], protocol="timeline", audit=(), head={})


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


def test_every_figure_of_the_tables_is_in_the_json(whole: Made) -> None:
    told = {f"{abs(number):.4f}" for number in _numbers(whole.json)}
    printed = re.findall(
        r"\d\.\d{4}\b", "\n".join(line for line in whole.markdown.splitlines() if line.startswith("|"))
    )
    assert len(printed) > 500
    assert set(printed) - told == set()


def test_every_row_of_a_table_has_as_many_cells(whole: Made) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", whole.markdown, flags=re.M):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1, block


class _Page(HTMLParser):
    EMPTY = frozenset({"meta", "path", "use", "rect", "line", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.points_to: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.points_to.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.EMPTY:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(whole: Made) -> None:
    page = _Page()
    page.feed(whole.html)
    assert (page.wrong, page.open) == ([], [])
    assert [each for each in page.ids if page.ids.count(each) > 1] == []
    assert {each for each in page.points_to if each.removeprefix("#") not in page.ids} == set()
    assert not page.tags & {"script", "link", "img", "iframe", "b", "third"}
    assert not re.search(r"@import|url\((?!#)", whole.html)
    text = "".join(page.text)
    for said in ("<third>@1", "second|2@7", "some <b>", "Replay of clicks.parquet", "ab" * 32):
        assert said in text, said


def test_colours_of_pictures_are_those_of_the_page(whole: Made) -> None:
    pictures = re.findall(r"<svg.*?</svg>", whole.html, flags=re.S)
    assert len(pictures) == 9
    for picture in pictures:
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", picture)) == set()
        used = set(re.findall(r"var\((--\w+)\)", picture))
        assert used
        assert all(whole.html.count(f"{name}: #") == 2 for name in used)  # light and dark


def test_windows_are_few_and_of_a_round_width() -> None:
    day = 86_400_000
    for days in (0.01, 1, 3, 39, 100, 1_000, 20_000):
        width = window_ms(0, int(days * day))
        assert width in WINDOWS_MS
        assert days * day // width <= MOST_WINDOWS
    assert window_ms(0, 30 * day) == day


SCHEMA = {
    "report.json": schema.Found,
    "audit": schema.Finding,
    "warnings": schema.Caution,
    "counts": schema.Counts,
    "rankings": schema.Ranked,
    "accuracy": schema.Accuracy,
    "per_user": schema.PerUser,
    "beyond": schema.Beyond,
    "against_first": schema.Against,
    "unknown": schema.Unknown,
    "by": schema.Part,
    "windows": schema.Window,
    "cost": schema.Cost,
}


@pytest.mark.parametrize("name", SCHEMA)
def test_the_page_documents_every_field_and_no_other(name: str) -> None:
    page = (Path(__file__).parents[4] / "docs" / "replay-report.md").read_text()
    (section,) = re.findall(rf"^### `{re.escape(name)}`.*?(?=^##|\Z)", page, flags=re.M | re.S)
    documented = re.findall(r"^\| `(\w+)`", section, flags=re.M)
    assert documented == [field.name for field in dataclasses.fields(SCHEMA[name])]
