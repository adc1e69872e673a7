"""Certificates for tests, made with the command `openssl`: an authority, a broker's, clients', and some wrong ones."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOST: Final = "localhost"
"""The only name in the broker's certificate: 127.0.0.1 is another one."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM."""

    authority: Path
    """The authority that signed the broker's certificate and the clients'."""
    other_authority: Path
    """One that signed nothing that the broker trusts."""
    broker: Path
    """Key and certificate in one file, as Kafka reads them."""
    client: Path
    client_key: Path
    locked_key: Path
    """The client's key, encrypted with `KEY_PASSWORD`."""
    stranger: Path
    """A client certificate of the other authority."""
    stranger_key: Path
    expired: Path
    """A client certificate that was valid until yesterday."""
    expired_key: Path


KEY_PASSWORD: Final = "key-secret"


def made(folder: Path, client: str) -> Certificates:
    """Make them in a folder. `client`: the common name of the clients' certificates."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, other = _authority(folder, "authority"), _authority(folder, "other")
    broker = _signed(folder, authority, "broker", HOST, f"subjectAltName=DNS:{HOST}")
    stranger = _signed(folder, other, "stranger", client)
    own = _signed(folder, authority, "client", client)
    expired = _signed(folder, authority, "expired", client, days="-1")
    both = folder / "broker-both.pem"
    both.write_text(broker[1].read_text() + broker[0].read_text())
    locked = folder / "locked.key"
    _openssl("pkcs8", "-topk8", "-in", own[1], "-out", locked, "-passout", f"pass:{KEY_PASSWORD}")
    return Certificates(authority[0], other[0], both, *own, locked, *stranger, *expired)


def _authority(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}"),
        *("-keyout", key, "-out", certificate),
    )
    return certificate, key


def _signed(
    folder: Path, authority: tuple[Path, Path], name: str, common_name: str, extension: str = "", days: str = "30"
) -> tuple[Path, Path]:
    certificate, key, request, extensions = (folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={common_name}", "-keyout", key, "-out", request)
    extensions.write_text(extension or "extendedKeyUsage=clientAuth")
    _openssl(
        *("x509", "-req", "-in", request, "-CA", authority[0], "-CAkey", authority[1], "-CAcreateserial"),
        *("-days", days, "-extfile", extensions, "-out", certificate),
    )
    return certificate, key


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr}")
