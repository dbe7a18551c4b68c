"""Whether anything listens at the address of a Ray cluster: Ray itself asks a wrong one for many minutes."""

from __future__ import annotations

import socket
import time

#: Seconds in which a Ray that is just being started may begin to listen, and between two attempts.
PATIENCE, PAUSE = 10.0, 0.5


class AddressError(ValueError):
    """An address at which no Ray can be."""


def check_address(address: str | None) -> None:
    """Raise AddressError for an address HOST:PORT at which nothing listens, and for one of another form.

    None, "auto" and "local", at which Ray looks on this machine, and addresses of other schemes than ray:// pass.
    """
    if address in (None, "auto", "local") or ("://" in address and not address.startswith("ray://")):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise AddressError(f"--address: expected auto, or HOST:PORT of a Ray cluster's head, got {address!r}")
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
            return
        except (OSError, OverflowError, UnicodeError) as error:
            # A name that is not known, or a port beyond 65535, will not be known later either.
            if not isinstance(error, ConnectionError) or time.monotonic() >= until:
                raise AddressError(
                    f"--address: nothing answers at {address} ({error}). On the cluster's head `ray status` prints its "
                    "address; without --address a Ray of the sweep's own is started on this machine"
                ) from None
        time.sleep(PAUSE)
