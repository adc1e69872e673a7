"""`rec2pm trainer`."""

import os
import re
import signal
import time
from pathlib import Path

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import counted, say

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")


class _Duration(click.ParamType):
    """A whole number of seconds, minutes, hours or days, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 30m, 12h or 1d", param, ctx)
        return float(int(found[1]) * _SECONDS[found[2]])


@click.command(short_help="Collect interactions, and train new versions on them.")
@click.option(
    "--log",
    "folder",
    default="var/log",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the training log, which only this trainer writes to.",
)
@click.option(
    "--every", default="1d", show_default=True, type=_Duration(), help="Train so long after the training before: 12h."
)
@click.option("--after", type=click.IntRange(min=1), help="Train earlier, once there are N new interactions.")
@click.option(
    "--least",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Train only on a log of at least N interactions.",
)
@click.option("--promote", is_flag=True, help="Promote each new version through the gate.")
@click.option("--name", help="The name of the model. [default: that of the version it starts from, else rec2pm]")
@click.option(
    "--recipe",
    help="A recipe, as for `rec2pm train`. [default: that of the version it starts from, else the usual one]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a field of the recipe; may be repeated."
)
@click.option(
    "--keep-memory-format/--new-memory-format",
    default=True,
    show_default=True,
    help="Keep the memory format of the version it starts from, if its memories are read well.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of a training. [default: the CPU quota, or the cores]"
)
@reports_kafka_errors
def trainer(
    folder: Path,
    every: float,
    after: int | None,
    least: int,
    promote: bool,
    name: str | None,
    recipe: str | None,
    settings: tuple[str, ...],
    keep_memory_format: bool,
    threads: int | None,
) -> None:
    """Read interactions into a log of Parquet, and train new versions on it.

    A training starts from the champion, or from the newest version in the registry (REC2PM_MODELS). The new version is
    written there. With --promote it then goes through the gate. Run one trainer for an application.
    """
    from confluent_kafka.admin import AdminClient

    from stream.commands.command_line import REC2PM
    from stream.cpu_cores import usable_cores
    from stream.event import EventReader
    from stream.kafka.questions import topic_id
    from stream.kafka.rights import of_trainer
    from stream.keys import KeyFormat
    from stream.rows import Reader
    from stream.trainer import points
    from stream.trainer.collect import Collector
    from stream.trainer.log import Topic, TrainingLog
    from stream.trainer.loop import Plan, Trainer, stopped_by_signals

    ours = current_settings()
    cores = usable_cores()
    count = threads or cores.count
    kafka = kafka_options(ours, *of_trainer(ours.names, promote=promote))
    say(f"training with {counted(count, 'thread')} ({'--threads' if threads else cores.why})", err=True)
    log = TrainingLog(folder, points.passing)
    try:
        id_ = topic_id(AdminClient(kafka), ours.interactions_topic)
        name_of_trainer = log.belongs_to(Topic(ours.app, ours.interactions_topic, id_))
        reader = Reader(EventReader(ours.fields, ours.times), KeyFormat(ours.key_format), ours.times)
        trainer: Trainer | None = None
        collector = Collector(
            kafka=kafka,
            app=ours.app,
            name=name_of_trainer,
            topic=ours.interactions_topic,
            log=log,
            reader=reader,
            clock=time.monotonic,
            stopping=lambda: trainer is not None and trainer.stopping.is_set(),
            at=points.passing,
        )
        trainer = Trainer(
            collector=collector,
            reader=reader,
            log=log,
            plan=Plan(
                every_s=every,
                after=after,
                least=least,
                name=name,
                recipe=recipe,
                settings=settings,
                keep_format=keep_memory_format,
                promote=promote,
                threads=count,
            ),
            command=(*REC2PM, "trainer-job"),
            clock=time.monotonic,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            at=points.passing,
        )
        with stopped_by_signals(trainer) as signals:
            trainer.run()
        if signal.SIGINT in signals:
            raise KeyboardInterrupt
    finally:
        log.close()


@click.command("trainer-job", hidden=True)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@reports_kafka_errors
def trainer_job(folder: Path) -> None:
    """Do what is left of a training. A trainer starts this, and ends it by closing its standard input."""
    import threading

    from stream.cpu_cores import let_threads_sleep

    let_threads_sleep()
    from stream.kafka.names import reader_group
    from stream.kafka.options import logger_of_command
    from stream.torch_threads import use_threads
    from stream.trainer import points
    from stream.trainer.job import JobFolder
    from stream.trainer.run_job import run as run_to_its_end

    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    jobs = JobFolder(folder)
    job = jobs.job()
    if job is None:
        return
    use_threads(job.threads)
    settings = current_settings()
    kafka = {
        "bootstrap.servers": settings.bootstrap_servers,
        "logger": logger_of_command(),
        **settings.kafka,
        "group.id": reader_group(settings.app),
    }
    run_to_its_end(jobs, settings, kafka, now_ms=lambda: time.time_ns() // 1_000_000, at=points.passing)


def _end_with_the_trainer() -> None:
    """Standard input is a pipe from the trainer, which writes nothing: it ends when the trainer does."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
