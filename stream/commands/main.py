"""The command `rec2pm`. Data goes to stdout, progress and logs to stderr.

Exit codes: 0 done, 2 wrong usage or configuration, 1 anything else, 130 after SIGINT (Ctrl-C). SIGTERM is a clean end
of a worker, a view, a trainer and a training (0); another command has then not done its work (143).

The files of the commands import what they need when they run, not at the top: `rec2pm --help` loads no Kafka client, no
torch and no settings, and `rec2pm train` no Kafka client.
"""

import logging
import os
import signal
import sys
from typing import Any, Final

import click

from model.errors import (
    DigestMismatch,
    ModelError,
    ModelNotFound,
    RecipeInvalid,
    TrainerMissing,
    TrainingInterrupted,
    TrainingUnfinished,
)
from state.errors import StateError
from stream.commands.dead_letters.command import dead_letters
from stream.commands.demo.command import demo
from stream.commands.evaluate import evaluate
from stream.commands.explain import explain
from stream.commands.interactions import interactions
from stream.commands.models.command import models
from stream.commands.output import EXIT_ERROR, EXIT_USAGE, LOG_FORMATS, PlainFormatter, complain, printable, say
from stream.commands.produce import produce
from stream.commands.replay import replay
from stream.commands.reset import reset
from stream.commands.topics import topics
from stream.commands.train import train
from stream.commands.trainer import trainer, trainer_job
from stream.commands.users import state, user
from stream.commands.validate import validate
from stream.commands.view.command import view
from stream.commands.worker import worker
from stream.errors import (
    ApplicationBusy,
    ExportUnfit,
    ImportUnfit,
    ListUnexplained,
    ProduceUnfit,
    SettingsInvalid,
    StreamError,
    TopicsUnusable,
    TrainerElsewhere,
    TrainingLogUnfit,
)
from stream.stop_signals import EXIT_INTERRUPTED

WRONG_USAGE: Final = (
    SettingsInvalid,
    TopicsUnusable,
    ModelNotFound,
    DigestMismatch,
    RecipeInvalid,
    TrainerMissing,
    TrainingUnfinished,
    TrainingLogUnfit,
    TrainerElsewhere,
    ExportUnfit,
    ImportUnfit,
    ProduceUnfit,
    ListUnexplained,
    ApplicationBusy,
)
"""Errors that come again until somebody has corrected what the command was given: exit code 2."""


class ReportsErrors(click.Group):
    """A group that reports each of our errors in one line, with the exit code of the convention."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.ClickException as error:
            error.message = printable(error.message)
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            say("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except TrainingInterrupted as error:
            complain(error)
            sys.exit(0 if error.signal == signal.SIGTERM else EXIT_INTERRUPTED)
        except WRONG_USAGE as error:
            complain(error)
            sys.exit(EXIT_USAGE)
        except (StreamError, StateError, ModelError) as error:
            complain(error)
            sys.exit(EXIT_ERROR)
        except BrokenPipeError:
            # The reader of our output went away, as `head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order in which they are added: what one does first comes first."""
        return list(self.commands)


@click.group(cls=ReportsErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rec2pm")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def main(verbose: bool) -> None:
    """Streaming stateful recommender worker for Kafka (Rec2PM).

    Settings are environment variables: `rec2pm worker --help` lists them.
    """
    stderr = logging.StreamHandler(sys.stderr)
    # A value that there is not is refused with the other settings, by a command that reads them.
    stderr.setFormatter(LOG_FORMATS.get(os.environ.get("REC2PM_LOG_FORMAT", ""), PlainFormatter)())
    logging.basicConfig(handlers=[stderr], level=logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        logging.getLogger("rdkafka").setLevel(logging.WARNING)


for command in (
    demo,
    topics,
    validate,
    train,
    trainer,
    trainer_job,
    evaluate,
    replay,
    models,
    worker,
    produce,
    interactions,
    view,
    explain,
    user,
    state,
    dead_letters,
    reset,
):
    main.add_command(command)
