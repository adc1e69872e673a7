"""The settings: defaults, one environment in and one value out, and every mistake said at once."""

from pathlib import Path

import pytest

from model.times import TimeRule
from stream.errors import SettingsInvalid
from stream.event import Fields
from stream.kafka.options import RESERVED
from stream.settings import Settings, described, variable_of


def settings(**variables: str) -> Settings:
    return Settings.from_environ({f"REC2PM_{name}": value for name, value in variables.items()})


def complaints(**variables: str) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        settings(**variables)
    return str(caught.value).splitlines()


def test_the_defaults_are_those_of_the_contract() -> None:
    told = settings()
    assert (told.bootstrap_servers, told.app, told.interactions_topic, told.recommendations_topic) == (
        "127.0.0.1:9092",
        "rec2pm",
        "interactions",
        "recommendations",
    )
    assert (told.state_dir, told.models) == (Path("var/state"), "var/models")
    assert (told.worker, told.model) == (None, None)
    assert (told.recommend, told.top_k, told.exclude, told.output_format) == ("interaction", 10, "kept", "msgpack")
    assert (told.keep_segments, told.kafka) == (5, {})


def test_every_field_is_a_variable_and_what_is_given_is_read() -> None:
    told = settings(
        BOOTSTRAP_SERVERS="kafka-1:9092,kafka-2:9092",
        APP="shop-eu.2",
        INTERACTIONS_TOPIC="clicks",
        RECOMMENDATIONS_TOPIC="lists",
        STATE_DIR="/data/state",
        WORKER="worker-0",
        MODELS="/data/models",
        MODEL="rec2pm@7",
        RECOMMEND="fold",
        TOP_K="20",
        EXCLUDE="working",
        KEEP_SEGMENTS="0",
        OUTPUT_FORMAT="json",
    )
    assert told.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
    assert (told.app, told.interactions_topic, told.recommendations_topic) == ("shop-eu.2", "clicks", "lists")
    assert (told.state_dir, told.worker, told.models, told.model) == (
        Path("/data/state"),
        "worker-0",
        "/data/models",
        "rec2pm@7",
    )
    assert (told.recommend, told.top_k, told.exclude, told.keep_segments, told.output_format) == (
        "fold",
        20,
        "working",
        0,
        "json",
    )


def test_the_fields_of_an_event_are_paths_and_kinds() -> None:
    assert settings().fields == Fields()
    told = settings(
        ITEM_FIELD="product.id",
        TIME_FIELD="at",
        USER_FIELD="customer.account.number",
        EVENT_FIELD="type",
        EVENTS="view, add to cart,purchase",
    )
    assert told.fields == Fields(
        ("product", "id"),
        ("at",),
        ("customer", "account", "number"),
        ("type",),
        frozenset({"view", "add to cart", "purchase"}),
    )


def test_the_rule_for_times_can_be_stated() -> None:
    assert settings().times == TimeRule()
    assert settings(TIME_UNIT="s", TIME_RANGE="1970-01-01..1970-01-02T12:00").times == TimeRule("s", 0, 129_600_000)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"EVENT_FIELD": "type"}, ["REC2PM_EVENT_FIELD needs REC2PM_EVENTS"]),
        ({"EVENTS": "view"}, ["REC2PM_EVENTS needs REC2PM_EVENT_FIELD"]),
        (
            {"ITEM_FIELD": "a", "TIME_FIELD": "a.b"},
            ["REC2PM_ITEM_FIELD=a and REC2PM_TIME_FIELD=a.b: one field cannot be both"],
        ),
        (
            {"ITEM_FIELD": "a.b", "USER_FIELD": "a.b"},
            ["REC2PM_ITEM_FIELD=a.b and REC2PM_USER_FIELD=a.b: one field cannot be both"],
        ),
        ({"TIME_FIELD": "item"}, ["REC2PM_ITEM_FIELD=item and REC2PM_TIME_FIELD=item: one field cannot be both"]),
        ({"ITEM_FIELD": "a.b", "TIME_FIELD": "a.bc", "USER_FIELD": "ab"}, None),
        ({"TIME_RANGE": "1960-01-01..2000-01-01"}, ["a time before 1970 cannot be stored"]),
        ({"TIME_RANGE": "2000..2100"}, ["expected FROM..UNTIL with ISO 8601 dates"]),
        ({"TIME_UNIT": "m"}, ["REC2PM_TIME_UNIT=m"]),
        ({"ITEM_FIELD": "a..b"}, ["REC2PM_ITEM_FIELD=a..b: expected names with a dot between them"]),
        ({"ITEM_FIELD": "Product ID, new"}, None),
        ({"EVENT_FIELD": "t", "EVENTS": ",view"}, ["REC2PM_EVENTS=,view: expected names with a comma between them"]),
        ({"APP": "a b"}, ["REC2PM_APP=a b: expected 1 to 200 of letters, digits, `.`, `_`, `-`; no `.` first"]),
        ({"METRICS_LISTEN": "9464"}, ["REC2PM_METRICS_LISTEN=9464: expected HOST:PORT, or empty"]),
        ({"RECOMMENDATIONS_TOPIC": "interactions"}, ["REC2PM_RECOMMENDATIONS_TOPIC=interactions: another topic"]),
        ({"APP": "a", "INTERACTIONS_TOPIC": "a.changelog"}, ["REC2PM_INTERACTIONS_TOPIC=a.changelog: another topic"]),
    ],
)
def test_fields_that_contradict_each_other_are_said(variables: dict[str, str], said: list[str] | None) -> None:
    if said is None:
        settings(**variables)
        return
    told = complaints(**variables)
    assert len(told) == len(said)
    for line, words in zip(told, said, strict=True):
        assert words in line


def test_other_variables_and_empty_ones_count_as_not_set() -> None:
    assert (
        Settings.from_environ(
            {"PATH": "/bin", "REC2PMX": "1", "rec2pm_app": "x", "REC2PM_APP": "", "REC2PM_NOTHING": ""}
        )
        == settings()
    )


def test_the_variable_of_the_test_broker_is_not_a_mistake() -> None:
    assert settings(TEST_BOOTSTRAP="127.0.0.1:1") == settings()


@pytest.mark.parametrize(("given", "meant"), [("7", 7), ("1", 1), ("fold", "fold"), ("interaction", "interaction")])
def test_recommend_is_a_word_or_a_number(given: str, meant: int | str) -> None:
    assert settings(RECOMMEND=given).recommend == meant


@pytest.mark.parametrize("given", ["x", "0", "-1", "1.5", "Fold", "7 ", "every"])
def test_anything_else_for_recommend_is_said_with_what_is_expected(given: str) -> None:
    assert complaints(RECOMMEND=given) == [
        f"REC2PM_RECOMMEND={given}: expected `interaction`, `fold`, or a whole number from 1"
    ]


def test_every_mistake_is_reported_at_once() -> None:
    told = complaints(
        TOPK="5",
        TOP_K="0",
        RECOMMEND="x",
        EXCLUDE="all",
        OUTPUT_FORMAT="avro",
        APP="a b",
        STEP_BUDGET_MS="soon",
        KAFKA_GROUP_ID="mine",
        KAFKA="x",
    )
    named = sorted(line.split(":")[0].split("=")[0].split(" ")[0] for line in told)
    assert named == [
        "REC2PM_APP",
        "REC2PM_EXCLUDE",
        "REC2PM_KAFKA",
        "REC2PM_KAFKA_GROUP_ID",
        "REC2PM_OUTPUT_FORMAT",
        "REC2PM_RECOMMEND",
        "REC2PM_STEP_BUDGET_MS",
        "REC2PM_TOPK",
        "REC2PM_TOP_K",
    ]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("STATEDIR", "STATE_DIR"),
        ("BOOTSTRAP_SERVER", "BOOTSTRAP_SERVERS"),
        ("TOPK", "TOP_K"),
        ("RECOMEND", "RECOMMEND"),
        ("APPS", "APP"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    assert complaints(**{wrong: "1"}) == [f"REC2PM_{wrong} is not a setting (did you mean REC2PM_{right}?)"]


def test_a_name_that_is_near_to_none_is_only_refused() -> None:
    assert complaints(ZZZZZZZZZZZZ="1") == ["REC2PM_ZZZZZZZZZZZZ is not a setting"]


def test_kafka_variables_become_the_clients_options() -> None:
    told = settings(KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_PASSWORD="a_B=c", KAFKA_SESSION_TIMEOUT_MS="10000")
    assert told.kafka == {"security.protocol": "SASL_SSL", "sasl.password": "a_B=c", "session.timeout.ms": "10000"}


@pytest.mark.parametrize("option", sorted(RESERVED))
def test_options_that_the_guarantee_rests_on_are_refused(option: str) -> None:
    variable = "KAFKA_" + option.upper().replace(".", "_")
    assert complaints(**{variable: "x"}) == [f"REC2PM_{variable}: {option} is set by rec2pm and cannot be changed"]


@pytest.mark.parametrize(
    "option", ["group.id", "transactional.id", "isolation.level", "enable.auto.commit", "bootstrap.servers"]
)
def test_these_are_among_them(option: str) -> None:
    assert option in RESERVED


@pytest.mark.parametrize("given", ["a b", "a/b", "é", "x" * 201, "a\n"])
def test_names_that_kafka_would_refuse_are_refused_here(given: str) -> None:
    assert complaints(APP=given)
    assert complaints(INTERACTIONS_TOPIC=given)
    assert complaints(WORKER=given)


@pytest.mark.parametrize("given", [".", ".."])
def test_a_slot_name_is_a_file_name(given: str) -> None:
    assert complaints(WORKER=given)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().top_k = 5


def test_the_help_names_every_setting_with_its_default() -> None:
    told = {name: (default, meaning) for name, default, meaning in described()}
    assert set(told) == {variable_of(name) for name in Settings.model_fields if name != "kafka"} | {"REC2PM_KAFKA_*"}
    assert told["REC2PM_TOP_K"][0] == "10"
    assert told["REC2PM_WORKER"][0] == ""
    assert all(meaning for _, meaning in told.values())
