"""Where metrics are served over TCP: an address of this machine alone, and a port."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, NamedTuple

EXAMPLE: Final = "127.0.0.1:9464"  # OpenTelemetry's number for a Prometheus exporter
_LOCALHOST: Final = "localhost"


class Listen(NamedTuple):
    """host: a loopback address, without brackets. port: 1 to 65535; in tests 0 for a free one."""

    host: str
    port: int

    @property
    def host_in_url(self) -> str:
        """The host as a URL and a Host header have it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.host_in_url}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Return what ``127.0.0.1:9464`` or ``[::1]:9464`` names. Errors: ValueError says what to write."""
    host, colon, port = text.strip().rpartition(":")
    is_port = port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not is_port or (":" in host and not is_bracketed):
        raise ValueError(f"{text[:100]!r} is no address with a port; write it as {EXAMPLE}, or off")
    address = "127.0.0.1" if host == _LOCALHOST else host.strip("[]")
    try:
        is_loopback = ip_address(address).is_loopback and "%" not in address
    except ValueError:
        raise ValueError(f"{host[:100]!r} is no IP address; write it as {EXAMPLE}, or off") from None
    if not is_loopback:
        raise ValueError(
            f"{text[:100]!r} could be reached from other machines, and who reads metrics is not asked who he is; "
            f"write {EXAMPLE}, and let whoever scrapes from elsewhere come through a proxy or a tunnel"
        )
    return Listen(address, int(port))
