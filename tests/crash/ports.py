"""Ports that stay ours while nobody listens on them."""

import random
import socket

FIRST, LAST = 20_000, 29_999
"""Below the range that Linux (32768 and up) and macOS (49152 and up) give to outgoing connections: a port from there
may be taken by one while the broker is down, and a client that keeps trying to connect to it can even end up connected
to itself."""


def free_ports(count: int, chosen: random.Random) -> list[int]:
    """So many different ports on 127.0.0.1 that nobody listens on now."""
    ports: list[int] = []
    for port in chosen.sample(range(FIRST, LAST), LAST - FIRST):
        if len(ports) == count:
            return ports
        if _free(port):
            ports.append(port)
    raise RuntimeError(f"only {len(ports)} of {count} ports in {FIRST}..{LAST} are free")


def free_port() -> int:
    """One of them. Tests that run side by side hardly ever get the same one."""
    return free_ports(1, random.Random())[0]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
