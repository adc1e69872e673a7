"""The options of `rec2pm view`."""

from pathlib import Path

import click

from stream.commands.kafka_connection import current_settings, reports_kafka_errors


@click.command(short_help="Serve each user's newest list over HTTP.")
@click.option("--listen", default="127.0.0.1:6066", show_default=True, help="HOST:PORT for HTTP.")
@click.option(
    "--name", default="view", show_default=True, help="This view's name; each view of an application needs its own."
)
@click.option(
    "--users",
    is_flag=True,
    help="Also serve what is remembered about users, and what workers do: a copy of the changelog is kept.",
)
@click.option(
    "--items",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet or CSV with item_id and title: lists and the page show titles.",
)
@reports_kafka_errors
def view(listen: str, name: str, users: bool, items: Path | None) -> None:
    """Serve each user's newest list over HTTP, and a web page that shows a list as it changes.

    With REC2PM_VIEW_TOKEN, clients must send it: `Authorization: Bearer TOKEN`.
    """
    from stream.commands.view.serve import run_view

    run_view(current_settings(), listen=listen, name=name, users=users, items=items)
