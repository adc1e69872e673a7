"""The names of an application in Kafka: its own topics, groups and transactional ids.

The workers' consumer group is `<app>`. Every other group and every transactional id begins with `<app>.`, as the
application's own topics do. So one prefixed rule of each kind allows everything, and the prefix `shop.` does not cover
an application `shop2`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """The names that decide what an application's are."""

    app: str
    interactions: str
    recommendations: str

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics of the application."""
        app = self.app
        return self.interactions, self.recommendations, changelog_topic(app), dead_letter_topic(app), models_topic(app)


def changelog_topic(app: str) -> str:
    return f"{app}.changelog"


def dead_letter_topic(app: str) -> str:
    return f"{app}.dead-letter"


def models_topic(app: str) -> str:
    return f"{app}.models"


def reader_group(app: str) -> str:
    """The group of consumers that read a topic from an offset of their own. They join no group and commit nothing, but
    Kafka's client and Kafka's rights need a name.
    """
    return f"{app}.reader"


def replay_group(app: str) -> str:
    """The consumer group whose offsets say which dead letters were replayed."""
    return f"{app}.dead-letters"


def trainer_group(app: str) -> str:
    """The consumer group of the trainer, which has one member."""
    return f"{app}.trainer"


def trainer_id(app: str, trainer: str) -> str:
    """A trainer's name as a member of its group."""
    return f"{app}.trainer-{trainer}"


def view_group(app: str, name: str) -> str:
    """The consumer group of one view."""
    return f"{app}.view-{name}"


def worker_id(app: str, worker: str) -> str:
    """A worker's transactional id, and its name as a member of the group."""
    return f"{app}.worker-{worker}"


def replay_id(app: str) -> str:
    """The transactional id of a replay of dead letters."""
    return f"{app}.dead-letters-replay"


def promote_id(app: str) -> str:
    """The transactional id of a promotion."""
    return f"{app}.promote"


def import_id(app: str) -> str:
    """The transactional id of an import of states."""
    return f"{app}.import"


def produce_id(app: str, run: str) -> str:
    """The transactional id of a run of `produce --resume`, and the group whose offset says how far it is."""
    return f"{app}.produce-{run}"
