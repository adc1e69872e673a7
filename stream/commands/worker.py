"""`rec2pm worker`."""

import signal
import sys

import click

from stream.commands.kafka_connection import current_settings, reports_kafka_errors


class _ListsSettings(click.Command):
    """Its help ends with every setting; they are read only when the help is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from stream.settings import described

        lines = ["\b", "Settings (environment):"]
        for name, default, meaning in described():
            lines += [f"  {name}{f' [{default}]' if default else ''}", f"      {meaning}"]
        self.epilog = "\n".join(lines)
        super().format_epilog(ctx, formatter)


@click.command(cls=_ListsSettings, short_help="Run one worker process.")
@reports_kafka_errors
def worker() -> None:
    """Run one worker process: it reads interactions and writes recommendations.

    Run as many as there are cores, and at most one per partition. SIGTERM and SIGINT stop a worker: it finishes the
    step, commits and leaves the group.
    """
    # Until there is a step to finish: importing torch takes a while.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from stream.compose import run_worker

    run_worker(current_settings())
