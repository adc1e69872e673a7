"""`rec2pm worker`."""

import click

from stream.commands.kafka_connection import current_settings, reports_kafka_errors


class _ListsSettings(click.Command):
    """Its help ends with every setting; they are read only when the help is asked for."""

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        from stream.settings import described

        settings = [(f"{name} [{default}]" if default else name, meaning) for name, default, meaning in described()]
        with formatter.section("Settings (environment variables)"):
            formatter.write_dl(settings)


@click.command(cls=_ListsSettings, short_help="Run one worker process.")
@reports_kafka_errors
def worker() -> None:
    """Run one worker process: it reads interactions and writes recommendations.

    Run as many as there are cores, and at most one per partition. SIGTERM and SIGINT stop a worker: it finishes the
    step, commits and leaves the group. The exit code is then 0 after SIGTERM and 130 after SIGINT.
    """
    from stream.kafka.admin import admin_client

    settings = current_settings()
    # Before torch and the model: why there is no connection is known in a moment.
    admin_client(settings)
    from stream.compose import run_worker

    run_worker(settings)
