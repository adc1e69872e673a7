"""Who promotes: the user and the machine of this process."""

import getpass
import os
import socket


def promoter() -> str:
    """USER@MACHINE. A container may run as a user without a name: then the number stands for it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
