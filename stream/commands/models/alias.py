"""The option --alias."""

import re

import click

CHAMPION = "champion"


def _checked(_: click.Context, __: click.Parameter, alias: str) -> str:
    from stream.promotion.record import ALIAS

    if re.fullmatch(ALIAS, alias) is None:
        raise click.BadParameter(
            f"{alias!r} cannot be an alias: letters, digits, '.', '_' and '-', a letter or digit first, and not `none`"
        )
    return alias


alias_option = click.option(
    "--alias",
    default=CHAMPION,
    show_default=True,
    callback=_checked,
    help="The alias that workers follow (REC2PM_FOLLOW).",
)
