"""A small disk of a worker's own, which can be filled and made read-only: a tmpfs in a mount namespace that needs no
root.
"""

import subprocess
from pathlib import Path
from shutil import which

_UNSHARE = ("unshare", "--map-root-user", "--mount")
_CHUNK = 1 << 16


def possible() -> bool:
    """Whether this machine lets us have a mount namespace."""
    if which("unshare") is None or which("nsenter") is None:
        return False
    tried = subprocess.run(
        [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False, timeout=10
    )
    return tried.returncode == 0


class SmallDisk:
    """Mounted at `folder`, seen by processes started with `prefix`; from outside it is at `outside`."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Holds the namespace open; it ends when the pipe does, which is when this process ends.
        script = f'mount -t tmpfs -o size={size_mb}m tmpfs "$1" && echo mounted && exec cat >/dev/null'
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", script, "sh", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != b"mounted":
            raise RuntimeError(f"no tmpfs at {folder}: {self._holder.communicate()[1].decode()}")
        self.prefix = ("nsenter", "--target", str(self._holder.pid), "--user", "--mount", "--preserve-credentials")
        self.outside = Path(f"/proc/{self._holder.pid}/root{folder}")

    def fill(self) -> None:
        """Until not one more byte fits."""
        chunk = _CHUNK
        with (self.outside / "filler").open("wb", buffering=0) as filler:
            while chunk:
                try:
                    if filler.write(bytes(chunk)) < chunk:
                        chunk //= 2
                except OSError:
                    chunk //= 2

    def free(self) -> None:
        (self.outside / "filler").unlink(missing_ok=True)

    def read_only(self) -> None:
        """Fails while a file is open for writing."""
        self._remount("ro")

    def writable(self) -> None:
        self._remount("rw")

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()

    def _remount(self, how: str) -> None:
        subprocess.run(
            [*self.prefix, "mount", "-o", f"remount,{how}", str(self.folder)],
            check=True,
            capture_output=True,
            timeout=10,
        )
