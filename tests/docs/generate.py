"""The pages that are made from the code: `python -m tests.docs.generate` writes docs/settings.md and docs/metrics.md.

Names, defaults, limits and meanings come from `stream.settings`, metrics from the collector of a running worker. What
the code does not know stands here: to which task a setting belongs, what happens when its value does not fit, and which
metrics deserve an alert. A setting or metric that is missing here, or here alone, is an error.
"""

import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.core import Metric

from stream.errors import SettingsInvalid
from stream.http_server import ENDS_WITHIN_S, MAX_CONNECTIONS
from stream.kafka.options import RESERVED
from stream.partition import Progress
from stream.probes import ALIVE_WITHIN_S
from stream.prometheus import WAITING_WITHIN_S, registry
from stream.settings import IN_WORDS, Settings, described, variable_of
from tests.fakes import FakeLink, FakeModel, FakeRecord, NothingToRestore, said, worker_on

DOCS: Final = Path(__file__).parents[2] / "docs"
_MADE: Final = (
    "<!-- Made by `python -m tests.docs.generate`. Change the code or tests/docs/generate.py, not this page. -->"
)


class Task(NamedTuple):
    """A group of settings that a reader looks for together."""

    title: str
    consequences: Mapping[str, str]
    """Field → what a value does that is accepted, but does not fit the deployment."""


TASKS: Final = (
    Task(
        "Connect to Kafka",
        {
            "bootstrap_servers": "If no connection to Kafka comes about at its start, a worker ends within 10 s (15 s if "
            "the port is silent) "
            "with exit code 1 and says why. If Kafka goes away later, the worker waits, and resumes by itself.",
            "kafka": "The process ends with exit code 2, before it loads anything, if librdkafka does not know the option or the value.",
        },
    ),
    Task(
        "Name the application and its topics",
        {
            "app": "Another name is another application: it has no state, and reads the input from the first record that "
            "Kafka still has. If its topics do not exist, a worker ends with exit code 2.",
            "interactions_topic": "A topic that does not exist ends the worker with exit code 2. Another topic than the "
            "one that the state was made from ends it with exit code 1, and nothing is changed.",
            "recommendations_topic": "A topic that does not exist ends the worker with exit code 2.",
            "key_format": "If the keys have another form, each record becomes a dead letter that names the form, until "
            "REC2PM_MAX_REFUSED stops the worker. A change makes every user another user: choose a new REC2PM_APP with it.",
            "partitioner": "The worker says so once. Interactions of `rec2pm produce`, and null values of "
            "`rec2pm user forget`, go to other partitions than those of your producers. Can be changed at any restart.",
        },
    ),
    Task(
        "Give a worker its name and its disk",
        {
            "worker": "A name that a live worker on this folder has: exit code 2. The same name on two machines: the "
            "worker that started first ends with exit code 1.",
            "state_dir": "A folder that cannot be written ends the process with exit code 2. Another folder than before "
            "costs a restore from the changelog, never data.",
        },
    ),
    Task(
        "Choose the model",
        {
            "models": "An empty or missing registry ends the worker with exit code 2, one that does not answer or a "
            "model that cannot be loaded with exit code 1. Loading a model runs its code: trust the registry like the "
            "deployment. [Registries](registry.md) says what a URL needs.",
            "model": "A name or version that the registry does not have, or a file with another SHA-256, ends the "
            "worker with exit code 2 before anything of it is loaded. A model with another segment length than the "
            "stored state ends it with exit code 1. A model with another memory format is fine: "
            "memories are rebuilt from kept segments. What is promoted comes before it.",
            "follow": "With an alias that nothing is promoted to, the worker serves REC2PM_MODEL until something is. With `none` "
            "no promotion reaches this worker, and `rec2pm models status` says so.",
        },
    ),
    Task(
        "Decide what users get",
        {
            "recommend": "Can be changed at any restart. `interaction` costs most: the model ranks for every user of every step.",
            "top_k": "Lists are shorter only where the catalogue has fewer items.",
            "exclude": "A user who has had the whole catalogue gets a list without exclusion: a list is never empty.",
            "keep_segments": "With 0, a change to a model with another memory format loses every preference memory.",
            "keep_formats": "With 0, a rollback to a model with another memory format finds no memories of that model: "
            "they are rebuilt from kept segments.",
            "refold_per_s": "A high rate makes live steps wait: each transaction of the background rebuilds up to 32 "
            "memories. With 0, users who do not come before their kept segments are gone lose more of their history.",
            "output_format": "Can be changed at any restart. The topic then has lists in both formats until each user got "
            "a new one; `rec2pm view` reads both.",
        },
    ),
    Task(
        "Say where an event has what",
        {
            "item_field": "A field that the events do not have makes each of them a dead letter, until "
            "REC2PM_MAX_REFUSED stops the worker.",
            "time_field": "If the events do not have the field, the timestamps of the records count, in silence.",
            "user_field": "A field that has another id than the key makes each event a dead letter.",
            "event_field": "If the events do not have the field, each becomes a dead letter.",
            "events": "A kind that is misspelt is passed over: look at `rec2pm_passed_over_total`.",
            "time_unit": "A wrong unit puts most times outside the plausible range. The worker says so once.",
            "time_range": "Too narrow: the timestamps of the records replace right times. Too wide: wrong times count.",
        },
    ),
    Task(
        "Tune speed and memory",
        {
            "step_budget_ms": "Too low: steps of few records, and a transaction for each. Too high: users wait longer "
            "for a list while there is a backlog.",
            "step_records": "Too low: more transactions than the time budget asks for. Too high: the budget alone limits a step.",
            "wait_ms": "Too low: more transactions at light load. Too high: more latency.",
            "cache_users": "Too low: more reads from RocksDB. Too high: more memory.",
            "memory_mb": "Python, torch and the model need about 300 MB more. Too low: more reads from disk.",
        },
    ),
    Task(
        "Watch a worker, and stop it in time",
        {
            "log_format": "Commands that read no settings heed it too. The data that a command prints is never changed by it.",
            "metrics_listen": "A port that is in use ends the worker with exit code 2. If the setting is not set, the "
            "worker only warns, and runs without metrics.",
            "max_refused": "Too low: some wrong records stop the worker (exit code 1, nothing of the step is published). "
            "Too high: a broken producer fills the dead-letter topic. Judged from the first hundred records on.",
            "view_token": "Without it, everybody who reaches the view's port sees lists, and with `--users` what users did.",
        },
    ),
)

ALERTS: Final = {
    "rec2pm_aborted_total": "A few at a rebalance are normal. Alert when it rises for minutes: ten in a row end "
    "the worker.",
    "rec2pm_dead_letters_total": "Alert on any increase: see [why a record was refused]"
    "(troubleshooting.md#a-record-is-in-the-dead-letter-topic).",
    "rec2pm_keys_misplaced_total": "Alert on any increase: producers [disagree about partitions](records.md#partitions). "
    "Divide it by `rec2pm_keys_compared_total` for the share.",
    "rec2pm_model_failures_total": "Alert on any increase: the model cannot deal with some users.",
    "rec2pm_unknown_items_total": "Divide its rate by that of `rec2pm_interactions_total`. A share that rises means that "
    "the model is older than the catalogue: train a new version.",
    "rec2pm_serves_promoted": "Alert when it stays 0 for ten minutes: `rec2pm models status` says which worker does not serve the "
    "promoted version, and why.",
    "rec2pm_promotions_total": "Alert on any increase of `refused`: the former version serves on.",
    "rec2pm_step_seconds": "Its 99th percentile is most of what a list waits for. Alert when it rises with no more load.",
    "rec2pm_partitions": "Alert when a partition is not `running` for longer than a restore takes, or when the sum over "
    "all workers is not the number of partitions.",
    "rec2pm_restore_remaining_records": "Alert when it does not fall: the log says what the restore waits for.",
    "rec2pm_waiting_for_kafka": "Alert when it stays 1 for minutes: Kafka is away. Do not restart the worker.",
    "rec2pm_step_records_limit": "A low value together with lag: the model is slow, or the machine is busy.",
}


def settings_page() -> str:
    """docs/settings.md."""
    wanted = {name for task in TASKS for name in task.consequences}
    if wanted != Settings.model_fields.keys():
        raise LookupError(
            f"settings without a task, or tasks without a setting: {wanted ^ Settings.model_fields.keys()}"
        )
    return "\n".join([_MADE, "", *_settings()])


def _settings() -> Iterator[str]:
    yield "# Which settings are there?"
    yield ""
    yield "Settings are environment variables. `rec2pm worker --help` prints this list. Every process reads them once, at"
    yield "its start. An empty variable counts as not set; only for `REC2PM_METRICS_LISTEN` it means *off*."
    yield ""
    yield "A name that does not exist and a value that is not accepted are refused before anything starts, all mistakes"
    yield "at once, with exit code 2:"
    yield ""
    yield "```text"
    yield from _mistakes({"REC2PM_TOPK": "20", "REC2PM_EXCLUDE": "all", "REC2PM_WAIT_MS": "0"})
    yield "```"
    told = {name: (default, meaning) for name, default, meaning in described()}
    properties = Settings.model_json_schema()["properties"]
    for task in TASKS:
        yield ""
        yield f"## {task.title}"
        yield ""
        yield "| setting | default | accepted | meaning |"
        yield "|---|---|---|---|"
        for field in task.consequences:
            variable = variable_of(field) + ("_*" if field == "kafka" else "")
            default, meaning = told[variable]
            accepted = _accepted(field, properties[field])
            yield f"| `{variable}` | {f'`{default}`' if default else ''} | {accepted} | {_sentence(meaning)} |"
        yield ""
        yield "Consequences:"
        yield ""
        for field, what in task.consequences.items():
            yield from _wrapped(f"`{variable_of(field)}{'_*' if field == 'kafka' else ''}`: {what}")
        if "kafka" in task.consequences:
            yield ""
            own = ", ".join(f"`{option}`" for option in sorted(RESERVED))
            yield from _wrapped(f"Options that rec2pm sets itself, which are refused: {own}.", first="")


def _mistakes(environ: Mapping[str, str]) -> list[str]:
    try:
        Settings.from_environ(environ)
    except SettingsInvalid as error:
        return [f"rec2pm: {line}" for line in str(error).splitlines()]
    raise LookupError(f"{environ} is accepted")


def _accepted(field: str, schema: Mapping[str, Any]) -> str:
    """The values that a setting takes, in words."""
    if field == "kafka":
        return "what librdkafka accepts"
    if field == "recommend":
        return "`interaction`, `fold`, or a whole number from 1"
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    (kind,) = kinds
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if "pattern" in kind:
        return IN_WORDS[kind["pattern"]]
    if kind["type"] == "integer":
        upper = f" to {kind['maximum']:,}" if "maximum" in kind else ""
        return f"a whole number from {kind['minimum']:,}{upper}"
    if kind["type"] == "number":
        return f"a number above {kind['exclusiveMinimum']:g} and up to {kind['maximum']:g}"
    return "a path" if kind.get("format") == "path" else "text"


def metrics_page() -> str:
    """docs/metrics.md."""
    return "\n".join([_MADE, "", *_metrics()])


def _metrics() -> Iterator[str]:
    yield "# What can be watched?"
    yield ""
    yield "A worker answers HTTP at `REC2PM_METRICS_LISTEN` (`127.0.0.1:9464`):"
    yield ""
    yield "| path | answer | use it for |"
    yield "|---|---|---|"
    yield "| `/metrics` | the metrics below, in Prometheus' text format | scraping |"
    yield (
        f"| `/livez` | 200 while the worker's loop runs or waits for Kafka; 503 after {ALIVE_WITHIN_S:g} s of neither | "
        "a supervisor that restarts a stuck process |"
    )
    yield (
        "| `/readyz` | 200 when all its partitions run, or when it is in the group and has none (standby); else 503 | a "
        "rolling restart that waits for one worker before it stops the next |"
    )
    yield ""
    yield "`/livez` and `/readyz` name the application and the worker: a probe may have reached another worker's port. Each"
    yield f"connection ends within {ENDS_WITHIN_S:g} s, and of more than {MAX_CONNECTIONS} at a time the oldest is cut."
    yield ""
    yield "Counters begin at 0 with each process. Labels never hold ids of users or items."
    yield ""
    yield "**A partition that no worker has** has no lag here. Kafka tells it: `kafka-consumer-groups.sh --describe --group"
    yield "<app>`, or an exporter that reads the group. Or compare the sum of `rec2pm_partitions` with their number."
    yield ""
    yield "`deploy/grafana/rec2pm.json` is a dashboard for Grafana. What it shows of two workers, one of which is killed and"
    yield "comes back, drawn by `python -m tests.dashboard` from a real Prometheus:"
    yield ""
    yield "![lag, steps by phase, states, versions, restores, memory, dead letters and more](images/dashboard.svg)"
    yield ""
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    names = set()
    for metric in collected():
        name = exposed(metric)
        names.add(name)
        labels: dict[str, list[str]] = {}
        for sample in metric.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, []).append(value)
        said = "; ".join(_label(label, values) for label, values in labels.items())
        yield f"| `{name}` | {metric.type} | {said} | {metric.documentation} |"
    if ALERTS.keys() - names:
        raise LookupError(f"alerts on metrics that do not exist: {ALERTS.keys() - names}")
    yield ""
    yield f"`rec2pm_waiting_for_kafka` goes back to 0 {WAITING_WITHIN_S:g} s after Kafka was last missed. A worker with nothing to do"
    yield "notices within 10 s that Kafka no longer sends anything."
    yield ""
    yield "## What to alert on"
    yield ""
    yield "`deploy/prometheus/alerts.yaml` has alerts, and the [runbook](../deploy/RUNBOOK.md) says what to do about each. What"
    yield "the metrics say of them:"
    yield ""
    for name, what in ALERTS.items():
        yield from _wrapped(f"`{name}`: {what}")
    yield "- `up` of the scrape: the process is gone. A supervisor restarts it; the log's last line says why it ended."


_ALWAYS_THE_SAME: Final = ("phase", "reason", "result", "state")


def _label(label: str, values: list[str]) -> str:
    """A label, with its values where they are always the same."""
    return (
        f"`{label}`: {', '.join(f'`{value}`' for value in dict.fromkeys(values))}"
        if label in _ALWAYS_THE_SAME
        else f"`{label}`"
    )


def exposed(metric: Metric) -> str:
    """The name that Prometheus sees, with its suffix. Of a histogram or a summary, without those of its parts."""
    if metric.type in ("histogram", "summary"):
        return metric.name
    (name,) = {sample.name for sample in metric.samples}
    return name


def collected() -> list[Metric]:
    """Every metric of a worker that restores one of its partitions, whose input an open transaction holds back, and
    whose background has begun.
    """
    with tempfile.TemporaryDirectory() as folder:
        worker = worker_on(
            FakeLink([FakeRecord(b"ann", said(7, 1))], []), Path(folder), FakeModel(4), refold_per_s=10_000
        )
        for _ in range(2):
            worker.turn()
        worker.partitions.all()[0].restore = _Restoring()
        worker.held_back = {0: 3}
        try:
            return list(registry(worker, 1 << 30).collect())
        finally:
            worker.partitions.close()


class _Restoring(NothingToRestore):
    def progress(self) -> Progress | None:  # type: ignore[override]
        return Progress(300, 60.0, 120)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if not text.startswith(("HOST", "NAME")) else f"{text}."


_UNBROKEN: Final = re.compile(r"`[^`]*`|\[[^]]*\]\([^)]*\)")
"""Code and links stay on one line."""


def _wrapped(text: str, first: str = "- ", width: int = 118) -> Iterator[str]:
    """A list item, or with an empty `first` a paragraph, in lines that fit."""
    kept = _UNBROKEN.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        kept,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    )
    yield from (line.replace("\0", " ") for line in lines)


PAGES: Final = {"settings.md": settings_page, "metrics.md": metrics_page}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page() + "\n", encoding="utf-8")
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
