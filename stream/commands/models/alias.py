"""The option --alias."""

import click

CHAMPION = "champion"
alias_option = click.option(
    "--alias", default=CHAMPION, show_default=True, help="The alias that workers follow (REC2PM_FOLLOW)."
)
