"""The application's topics: made once, left alone afterwards, and every way in which they can be wrong is found."""

from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from stream.commands.broker import Broker
from stream.commands.main import main
from stream.kafka.names import changelog_topic, dead_letter_topic, models_topic
from stream.kafka.shown_topics import largest_batches
from stream.kafka.topic_problems import Problem, check
from stream.kafka.topics import TopicSpec, create, plan
from tests.integration.test_broker import until

DAY_MS = 86_400_000


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def planned(app: str) -> list[TopicSpec]:
    return plan(app, f"{app}-interactions", f"{app}-recommendations", partitions=3, replication=1)


def checked(admin: AdminClient, app: str) -> list[Problem]:
    return check(admin, app, f"{app}-interactions", f"{app}-recommendations")


def changed(planned: list[TopicSpec], name: str, **differently: object) -> list[TopicSpec]:
    assert name in {topic.name for topic in planned}
    return [replace(topic, **differently) if topic.name == name else topic for topic in planned]  # type: ignore[arg-type]


def test_the_plan_gives_the_changelog_the_width_of_the_input_and_the_models_one_partition(app: str) -> None:
    widths = {topic.name: topic.partitions for topic in plan(app, "in", "out", partitions=7, replication=3)}
    assert widths == {"in": 7, "out": 7, f"{app}.changelog": 7, f"{app}.dead-letter": 7, f"{app}.models": 1}


def test_topics_are_created_once_and_left_alone_the_second_time(
    admin: AdminClient, app: str, planned: list[TopicSpec]
) -> None:
    assert [outcome.result for outcome in create(admin, planned)] == ["created"] * 5
    assert checked(admin, app) == []
    assert [outcome.result for outcome in create(admin, planned)] == ["exists"] * 5


def test_create_makes_only_what_is_missing(admin: AdminClient, planned: list[TopicSpec]) -> None:
    create(admin, planned[:2])
    assert [outcome.result for outcome in create(admin, planned)] == [
        "exists",
        "exists",
        "created",
        "created",
        "created",
    ]


def test_every_missing_topic_is_an_error_that_says_how_to_make_it(
    admin: AdminClient, app: str, planned: list[TopicSpec]
) -> None:
    problems = checked(admin, app)
    assert [problem.topic for problem in problems] == [topic.name for topic in planned]
    assert all(problem.severity == "error" and "rec2pm topics create" in problem.line for problem in problems)
    assert len(checked(admin, app)) == 5, "asking made no topic"


def test_a_changelog_of_another_width_than_the_input_is_an_error(
    admin: AdminClient, app: str, planned: list[TopicSpec]
) -> None:
    create(admin, changed(planned, changelog_topic(app), partitions=2))
    (problem,) = checked(admin, app)
    assert problem.severity == "error"
    assert f"{app}.changelog has 2 partitions, expected 3 as {app}-interactions has" in problem.line


@pytest.mark.parametrize(
    ("suffix", "severity"), [(".changelog", "error"), ("-recommendations", "warning"), (".models", "error")]
)
def test_a_topic_that_forgets_with_age_is_an_error_where_what_is_forgotten_is_not_made_again(
    admin: AdminClient, app: str, planned: list[TopicSpec], suffix: str, severity: str
) -> None:
    create(admin, changed(planned, f"{app}{suffix}", cleanup="delete"))
    (problem,) = checked(admin, app)
    assert problem.severity == severity
    assert f"{app}{suffix} has cleanup.policy=delete, expected compact" in problem.line


@pytest.mark.parametrize(("suffix", "wrong"), [(".changelog", True), (".models", True), ("-recommendations", False)])
def test_compaction_and_deletion_together_may_only_forget_recommendations(
    admin: AdminClient, app: str, planned: list[TopicSpec], suffix: str, wrong: bool
) -> None:
    create(admin, changed(planned, f"{app}{suffix}", cleanup="compact,delete"))
    assert [problem.topic for problem in checked(admin, app)] == ([f"{app}{suffix}"] if wrong else [])


def test_a_compacted_dead_letter_topic_is_an_error_and_a_compacted_input_a_warning(
    admin: AdminClient, app: str, planned: list[TopicSpec]
) -> None:
    compacted = changed(planned, dead_letter_topic(app), cleanup="compact")
    create(admin, changed(compacted, f"{app}-interactions", cleanup="compact"))
    problems = checked(admin, app)
    assert [(problem.topic, problem.severity) for problem in problems] == [
        (dead_letter_topic(app), "error"),
        (f"{app}-interactions", "warning"),
    ]


@pytest.mark.parametrize("suffix", [".changelog", "-recommendations"])
@pytest.mark.parametrize(("lag", "told"), [("604800001", "604800001"), (None, None)], ids=["eight days", "not set"])
def test_a_topic_that_may_keep_what_was_forgotten_for_ever_is_a_warning(
    admin: AdminClient, app: str, planned: list[TopicSpec], suffix: str, lag: str | None, told: str | None
) -> None:
    create(admin, changed(planned, f"{app}{suffix}", settings=() if lag is None else (("max.compaction.lag.ms", lag),)))
    (problem,) = checked(admin, app)
    assert (problem.topic, problem.severity) == (f"{app}{suffix}", "warning")
    assert f"{app}{suffix} has max.compaction.lag.ms={told or ''}" in problem.line
    assert f"--add-config max.compaction.lag.ms={DAY_MS}" in problem.line


def test_a_topic_that_is_compacted_within_a_week_is_none(
    admin: AdminClient, app: str, planned: list[TopicSpec]
) -> None:
    create(admin, changed(planned, changelog_topic(app), settings=(("max.compaction.lag.ms", str(7 * DAY_MS)),)))
    assert checked(admin, app) == []


def test_only_what_is_kept_of_users_by_key_is_to_be_compacted_daily(app: str) -> None:
    daily = {
        topic.name for topic in plan(app, "in", "out", 1, 1) if topic.config.get("max.compaction.lag.ms") == str(DAY_MS)
    }
    assert daily == {changelog_topic(app), "out"}


@pytest.mark.isolation  # the embedded broker shows no max.message.bytes
@pytest.mark.parametrize("limit", [None, 2_000_000])
def test_the_dead_letters_are_made_to_hold_what_the_input_holds(
    admin: AdminClient, app: str, planned: list[TopicSpec], limit: int | None
) -> None:
    settings = () if limit is None else (("max.message.bytes", str(limit)),)
    create(admin, changed(planned, f"{app}-interactions", settings=settings))
    found = largest_batches(admin, [f"{app}-interactions", dead_letter_topic(app)])
    assert found[f"{app}-interactions"] == (limit or 1_048_588)
    assert found[dead_letter_topic(app)] == (limit or 1_048_588) + 4096
    assert checked(admin, app) == []


@pytest.mark.isolation
def test_dead_letters_that_hold_less_than_the_input_are_a_warning_with_the_cure(
    admin: AdminClient, app: str, planned: list[TopicSpec]
) -> None:
    create(admin, changed(planned, dead_letter_topic(app), holds=None))
    (problem,) = checked(admin, app)
    assert (problem.topic, problem.severity) == (dead_letter_topic(app), "warning")
    assert "has max.message.bytes=1048588, expected 1052684 or more" in problem.line
    assert f"--alter --topic {dead_letter_topic(app)} --add-config max.message.bytes=1052684" in problem.line


def test_fewer_copies_than_must_be_in_sync_is_an_error(admin: AdminClient, app: str, planned: list[TopicSpec]) -> None:
    create(admin, planned)
    entry = ConfigEntry("min.insync.replicas", "2", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, models_topic(app), incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    until(lambda: bool(checked(admin, app)), 30, "the broker tells the setting it was given")
    (problem,) = checked(admin, app)
    assert problem.severity == "error"
    assert "replication 1, below its min.insync.replicas=2" in problem.line


def test_a_topic_that_the_broker_refuses_is_reported_with_the_brokers_reason(
    admin: AdminClient, broker: Broker, app: str, planned: list[TopicSpec]
) -> None:
    if broker.kind == "embedded":
        pytest.skip("the embedded broker refuses no topic")
    outcomes = create(admin, [*planned[:-1], replace(planned[-1], name=f"{app}!")])
    assert [outcome.result for outcome in outcomes] == ["created"] * 4 + ["refused"]
    assert outcomes[-1].reason


def create_command(bootstrap: str, app: str, *options: str) -> Result:
    env = {
        "REC2PM_BOOTSTRAP_SERVERS": bootstrap,
        "REC2PM_APP": app,
        "REC2PM_INTERACTIONS_TOPIC": f"{app}-interactions",
        "REC2PM_RECOMMENDATIONS_TOPIC": f"{app}-recommendations",
    }
    return CliRunner(env=env).invoke(main, ["topics", "create", *options])


def test_create_says_what_is_there_and_makes_the_others_fit(
    admin: AdminClient, bootstrap: str, app: str, planned: list[TopicSpec]
) -> None:
    """Six were asked for; the input, which is somebody else's, has three."""
    create(admin, changed(planned, f"{app}-interactions", cleanup="compact")[:1])
    ended = create_command(bootstrap, app, "--partitions", "6")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith(f"exists   {app}-interactions (interactions, the input): 3 partitions, replication 1, ")
    assert lines[0].endswith("cleanup.policy=compact")
    assert lines[2].startswith(f"created  {app}.changelog (every user's state): 3 partitions, replication 1, ")
    assert lines[5].startswith(f"NOTE {app} has 3 partitions, not 6")
    assert lines[6].startswith(f"WARN topic {app}-interactions has cleanup.policy=compact")
    assert (ended.exit_code, len(lines)) == (0, 7), "a worker can start"


@pytest.mark.parametrize("options", [(), ("--partitions", "3")])
def test_create_does_not_mention_a_number_that_nobody_asked_for(
    admin: AdminClient, bootstrap: str, app: str, planned: list[TopicSpec], options: tuple[str, ...]
) -> None:
    create(admin, planned)
    ended = create_command(bootstrap, app, *options)
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["exists"] * 5
    assert ended.exit_code == 0


def test_create_ends_with_an_error_where_a_worker_could_not_start(
    admin: AdminClient, bootstrap: str, app: str, planned: list[TopicSpec]
) -> None:
    create(admin, changed(planned, changelog_topic(app), partitions=2))
    ended = create_command(bootstrap, app)
    assert f"exists   {app}.changelog (every user's state): 2 partitions" in ended.stdout
    assert f"FAIL topic {app}.changelog has 2 partitions, expected 3" in ended.stdout
    assert ended.exit_code == 1


def test_a_dry_run_looks_at_what_is_there_and_makes_nothing(
    admin: AdminClient, bootstrap: str, app: str, planned: list[TopicSpec]
) -> None:
    create(admin, planned[:1])
    for _ in range(2):
        ended = create_command(bootstrap, app, "--dry-run", "--partitions", "5", "--replication", "1")
        lines = ended.stdout.splitlines()
        assert lines[0].startswith(f"exists   {app}-interactions (interactions, the input): 3 partitions")
        assert all(line.startswith("would create ") for line in lines[1:5])
        assert ": 3 partitions, replication 1, cleanup.policy=compact" in lines[2]
        assert ended.exit_code == 0
