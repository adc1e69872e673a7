"""The settings: one frozen value, a pure function of the environment. All mistakes are reported at once, before
anything starts.
"""

import difflib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from model.times import TimeRule, time_range
from stream.errors import SettingsInvalid
from stream.event import Fields
from stream.kafka.known_partitioners import Expected
from stream.kafka.names import Names, changelog_topic, dead_letter_topic, models_topic
from stream.kafka.options import MAX_STEP_RECORDS, RESERVED
from stream.keys import Format
from stream.kubernetes import is_of_a_service
from stream.policy import Cadence

PREFIX: Final = "REC2PM_"
_KAFKA: Final = "REC2PM_KAFKA_"
_ELSEWHERE: Final = frozenset({"REC2PM_TEST_BOOTSTRAP"})
_MAY_BE_EMPTY: Final = frozenset({"REC2PM_METRICS_LISTEN"})
_PATH: Final = r"^[^.]*[^.\s][^.]*(\.[^.]*[^.\s][^.]*)*$"
_NAMES: Final = r"^[^,]*[^,\s][^,]*(,[^,]*[^,\s][^,]*)*$"
_FIELDS: Final = ("item_field", "time_field", "user_field", "event_field")
_TOPIC: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$"
_WORKER: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"
_LISTEN: Final = r"^$|^[^:\s]+:\d{1,5}$"

IN_WORDS: Final = {
    _TOPIC: "1 to 200 of letters, digits, `.`, `_`, `-`; no `.` first",
    _WORKER: "1 to 100 of letters, digits, `.`, `_`, `-`; no `.` first",
    _LISTEN: "HOST:PORT, or empty",
    _PATH: "names with a dot between them",
    _NAMES: "names with a comma between them",
}
"""What a pattern says."""


def cadence(value: object) -> object:
    """What a text says of when a user gets a list. Raises ValueError: nothing that there is."""
    if isinstance(value, str) and value not in ("interaction", "fold"):
        if not value.isdigit() or int(value) < 1:
            raise ValueError("expected `interaction`, `fold`, or a whole number from 1")
        return int(value)
    return value


def _time_range(text: str) -> str:
    earliest, _ = time_range(text)
    if earliest < 0:
        raise ValueError("a time before 1970 cannot be stored")
    return text


class Settings(BaseModel):
    """A field `name` is the variable `REC2PM_NAME`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", min_length=1, description="addresses of Kafka: HOST:PORT, several separated by commas"
    )
    app: str = Field(
        "rec2pm",
        pattern=_TOPIC,
        description="name of the application: its consumer group, the prefix of its transactional ids, and the prefix of its topics .changelog, "
        ".dead-letter and .models",
    )
    interactions_topic: str = Field(
        "interactions", pattern=_TOPIC, description="topic that the worker reads: interactions, keyed by user id"
    )
    key_format: Format = Field(
        "utf8",
        description="form of the keys in the interactions topic, and of those in the recommendations topic. utf8: the user id as text; json: text in "
        "quotes; long, int: a number of 8 or 4 bytes, as Java's LongSerializer and IntegerSerializer write it; uuid: 16 bytes",
    )
    partitioner: Expected = Field(
        "murmur2",
        description="how your producers choose a user's partition. murmur2: the default of Java; crc32: the default of librdkafka; fnv1a: the default "
        "of Sarama; ignore: in another way. The worker compares keys with their partitions, and rec2pm's own commands send records in this way",
    )
    recommendations_topic: str = Field(
        "recommendations", pattern=_TOPIC, description="topic that the worker writes: the newest list of each user"
    )
    state_dir: Path = Field(
        Path("var/state"),
        description="folder of the local stores, in APP/WORKER/PARTITION; a missing store is restored from the changelog",
    )
    worker: str | None = Field(
        None,
        pattern=_WORKER,
        description="name of this worker: the same after a restart, and never shared by two live workers. Kafka waits for a named worker that "
        "restarts (default: the worker makes a name once and keeps it in the state folder; when it stops, other workers get its partitions at once)",
    )
    models: str = Field(
        "var/models",
        min_length=1,
        description="the model registry: a folder, or a URL such as s3://BUCKET/models",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="NAME (its newest version), NAME@VERSION, or NAME@VERSION#SHA256, which is loaded only if that is the SHA-256 of its manifest.json "
        "(default: the newest version of the registry's only model)",
    )
    follow: str = Field(
        "champion",
        pattern=_WORKER,
        description="alias whose promotions this worker follows: what is promoted to it comes before REC2PM_MODEL. none: REC2PM_MODEL is pinned",
    )
    recommend: Annotated[Cadence, BeforeValidator(cadence)] = Field(
        "interaction",
        description="when a user gets a list. interaction: in each step with an interaction of the user; fold: after each folded segment; "
        "N: after every N-th interaction of the user",
    )
    top_k: int = Field(10, ge=1, le=1000, description="items in a list")
    exclude: Literal["none", "working", "kept"] = Field(
        "kept",
        description="which of a user's own items their lists leave out. none; working: the working memory; kept: the working memory and the "
        "kept segments",
    )
    keep_segments: int = Field(
        5,
        ge=0,
        le=1000,
        description="folded segments kept per user: to leave their items out of lists, and to rebuild a preference memory for another model. "
        "A lower number deletes nothing that is stored",
    )
    keep_formats: int = Field(
        1,
        ge=0,
        le=10,
        description="memories of a user that stay in memory formats that folded segments before, so that a rollback finds them. The newest ones stay; "
        "others are deleted when the user's next segment is folded",
    )
    refold_per_s: int = Field(
        100,
        ge=0,
        le=100_000,
        description="users a second whose preference memory is rebuilt in the background, after a model with another memory format began to serve; "
        "0: a memory is rebuilt when its user's next list or fold needs it, and not before",
    )
    item_field: str = Field(
        "item", pattern=_PATH, description="field of an event that has the item id; a dot leads into a map: product.id"
    )
    time_field: str = Field(
        "ts",
        pattern=_PATH,
        description="field that has the time; an event without it happened at the timestamp of its record",
    )
    user_field: str | None = Field(
        None,
        pattern=_PATH,
        description="field that has the user id once more; an event whose record has another key is refused "
        "(default: only the key has it)",
    )
    event_field: str | None = Field(
        None,
        pattern=_PATH,
        description="field that has the kind of an event; it needs REC2PM_EVENTS (default: every event is an interaction)",
    )
    events: str | None = Field(
        None,
        pattern=_NAMES,
        description="kinds of event that are interactions, separated by commas: view,purchase. Others are passed over",
    )
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = Field(
        "auto",
        description="unit of times that are numbers; auto: the size of each number says which; iso: numbers are no times",
    )
    time_range: Annotated[str, AfterValidator(_time_range)] = Field(
        "1990-01-01..2100-01-01",
        description="plausible times, FROM..UNTIL. A time outside is replaced by the timestamp of its record",
    )
    output_format: Literal["msgpack", "json"] = Field("msgpack", description="format of the lists in Kafka")
    step_budget_ms: int = Field(
        250, ge=1, le=60_000, description="how long a step may compute; the number of records in a step adapts to it"
    )
    step_records: int = Field(MAX_STEP_RECORDS, ge=1, le=100_000, description="most records in a step")
    wait_ms: int = Field(
        10, ge=1, le=1000, description="how long a poll waits for more records; about half of it is added latency"
    )
    cache_users: int = Field(
        50_000,
        ge=1,
        description="users of each partition whose interaction count stays in memory; with REC2PM_RECOMMEND=interaction, their whole state",
    )
    memory_mb: int = Field(
        256,
        ge=32,
        description="memory of a worker for the block caches and write buffers of all its stores (one half), and for its queues from and to "
        "Kafka (the other half)",
    )
    max_refused: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the newest thousand records that may be refused; above it the worker stops (1: it never stops)",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="form of the log on stderr. text: lines for people; json: an object a line, with time, level, logger, message and exception",
    )
    metrics_listen: str = Field(
        "127.0.0.1:9464",
        pattern=_LISTEN,
        description="HOST:PORT of /metrics, /livez and /readyz; empty: off",
    )
    view_token: SecretStr | None = Field(
        None,
        description="token that clients of `rec2pm view` must send, at least 16 characters (default: none is asked for)",
    )
    kafka: dict[str, str] = Field(
        default_factory=dict, description="any librdkafka option: REC2PM_KAFKA_X_Y sets the option x.y"
    )

    @property
    def names(self) -> Names:
        """The names that decide what the application's are in Kafka."""
        return Names(self.app, self.interactions_topic, self.recommendations_topic)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read every `REC2PM_` variable. An empty one counts as not set; one of a Kubernetes Service is passed over.

        Raises:
            SettingsInvalid: lists every unknown variable and every wrong value.
        """
        wrong: list[str] = []
        given: dict[str, Any] = {}
        kafka: dict[str, str] = {}
        for variable, value in sorted(environ.items()):
            if not variable.startswith(PREFIX) or variable in _ELSEWHERE or not (value or variable in _MAY_BE_EMPTY):
                continue
            if is_of_a_service(variable, value):
                continue
            if variable.startswith(_KAFKA):
                option = variable.removeprefix(_KAFKA).lower().replace("_", ".")
                if option in RESERVED:
                    wrong.append(f"{variable}: {option} is set by rec2pm and cannot be changed")
                kafka[option] = value
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name == "kafka" or name not in cls.model_fields:
                wrong.append(f"{variable} is not a setting{_did_you_mean(variable, cls)}")
                continue
            given[name] = value
        try:
            settings = cls(**given, kafka=kafka)
        except ValidationError as error:
            wrong += [
                f"{variable_of(str(each['loc'][0]))}={each['input']}: {_why(each)}"
                for each in error.errors(include_url=False)
            ]
        else:
            wrong += settings._contradictions()
        if wrong:
            raise SettingsInvalid("\n".join(wrong))
        return settings

    def _contradictions(self) -> list[str]:
        """What is wrong with settings that are each right."""
        wrong = []
        if (self.event_field is None) != (self.events is None):
            given, missing = ("event_field", "events") if self.events is None else ("events", "event_field")
            wrong.append(f"{variable_of(given)} needs {variable_of(missing)}")
        fields = [name for name in _FIELDS if getattr(self, name)]
        for name, other in itertools.permutations(fields, 2):
            path, longer = str(getattr(self, name)), str(getattr(self, other))
            if longer.startswith(f"{path}.") or (path == longer and name < other):
                wrong.append(f"{variable_of(name)}={path} and {variable_of(other)}={longer}: one field cannot be both")
        topics = [self.interactions_topic, self.recommendations_topic]
        internal = [changelog_topic(self.app), dead_letter_topic(self.app), models_topic(self.app)]
        names = ["REC2PM_INTERACTIONS_TOPIC", "REC2PM_RECOMMENDATIONS_TOPIC"]
        wrong += [
            f"{name}={topic}: another topic of the application has this name"
            for at, (name, topic) in enumerate(zip(names, topics, strict=True))
            if topic in [*topics[:at], *internal]
        ]
        return wrong

    @property
    def fields(self) -> Fields:
        """Where an event has what."""
        user, event = (path and tuple(path.split(".")) for path in (self.user_field, self.event_field))
        events = frozenset(each.strip() for each in (self.events or "").split(",") if each)
        return Fields(
            tuple(self.item_field.split(".")), tuple(self.time_field.split(".")), user or None, event or None, events
        )

    @property
    def times(self) -> TimeRule:
        """How times are read."""
        unit = None if self.time_unit == "auto" else self.time_unit
        return TimeRule(unit, *time_range(self.time_range))


def _why(error: ErrorDetails) -> str:
    """What is wrong with a value, in words."""
    pattern = error.get("ctx", {}).get("pattern")
    return f"expected {IN_WORDS[pattern]}" if pattern in IN_WORDS else error["msg"].removeprefix("Value error, ")


def variable_of(field: str) -> str:
    """The environment variable of a settings field."""
    return PREFIX + field.upper()


def _did_you_mean(variable: str, settings: type[Settings]) -> str:
    close = difflib.get_close_matches(variable, [variable_of(field) for field in settings.model_fields], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def described() -> list[tuple[str, str, str]]:
    """Variable, default and meaning of each setting, as `rec2pm worker --help` prints them."""
    rows = []
    for name, field in Settings.model_fields.items():
        if name == "kafka":
            rows.append((_KAFKA + "*", "", field.description or ""))
        else:
            rows.append(
                (variable_of(name), "" if field.default is None else str(field.default), field.description or "")
            )
    return rows
