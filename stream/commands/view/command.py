"""The options of `rec2pm view`."""

import click

from stream.commands.kafka_connection import current_settings, reports_kafka_errors


@click.command(short_help="Serve each user's newest list over HTTP.")
@click.option("--listen", default="127.0.0.1:6066", show_default=True, help="HOST:PORT for HTTP.")
@click.option(
    "--name", default="view", show_default=True, help="This view's name; each view of an application needs its own."
)
@reports_kafka_errors
def view(listen: str, name: str) -> None:
    """Serve each user's newest list over HTTP, and a web page that shows a list as it changes."""
    from stream.commands.view.serve import run_view

    run_view(current_settings(), listen=listen, name=name)
