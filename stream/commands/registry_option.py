"""The option --registry of the commands that look models up."""

import click

registry_option = click.option(
    "--registry",
    envvar="REC2PM_MODELS",
    default="var/models",
    show_default=True,
    show_envvar=True,
    help="The registry with the models: a folder, or a URL such as s3://BUCKET/models.",
)
