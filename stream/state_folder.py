"""Folders of local state hold what users did. They are for their owner alone."""

import logging
import os
import stat
from pathlib import Path
from typing import Final

from stream.errors import SettingsInvalid

logger = logging.getLogger(__name__)

_OWNER_ALONE: Final = 0o700
_OTHERS: Final = 0o077


def private(folder: Path) -> Path:
    """Make a folder that its owner alone may use; whatever this process makes from now on is like that.

    It and REC2PM_STATE_DIR are made with the mode 0700. A folder that is there already gets this mode. A
    REC2PM_STATE_DIR that is there keeps its own: an operator chose it, and may keep other things there.

    Args:
        folder: the application's own, in REC2PM_STATE_DIR.

    Raises:
        SettingsInvalid: the folder cannot be made.
    """
    try:
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        os.umask(_OTHERS)
        folder.parent.mkdir(_OWNER_ALONE, exist_ok=True)
        folder.mkdir(_OWNER_ALONE, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise SettingsInvalid(f"REC2PM_STATE_DIR: {folder} cannot be used: {error}") from error
    if mode & _OTHERS:
        try:
            folder.chmod(_OWNER_ALONE)
        except OSError as error:
            logger.warning("state folder open to others folder=%s mode=%04o: %s", folder, mode, error)
    return folder
