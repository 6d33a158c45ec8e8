"""Does a Ray cluster answer at an address? Asked in seconds, before Ray tries for a quarter of an hour without a word."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from cluster.errors import ClusterError, ConfigError, one_paragraph

CONNECT_S = 5.0
READY_S = 10.0


def check_address(address: str) -> None:
    """Check what `cluster.address` or RAY_ADDRESS says; "local" needs no check, and of "auto" what it stands for.

    Raises:
        ConfigError: it is no address. ClusterError: nothing answers there, or what answers is not Ray.
    """
    if address in ("local", "auto"):
        address = _recorded() if address == "auto" else ""
        if not address:  # a local Ray, or Ray says at once that it finds none
            return
    scheme, _, plain = address.rpartition("://")
    host, _, port = plain.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or scheme not in ("", "ray"):
        raise ConfigError(
            f'cluster.address: expected "auto" or host:port, found {address!r}; leave it out to use a local Ray on this machine'
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray answers at {address} ({one_paragraph(str(error))}); check cluster.address or RAY_ADDRESS, that the "
            f"cluster runs and that this machine reaches it, then run the same command again"
        ) from error
    if not scheme and os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true") and not _speaks_grpc(plain):
        raise ClusterError(
            f"something listens at {address}, but it does not answer as Ray does within {READY_S:.0f} s; give the address of "
            f"the head's GCS, usually port 6379 (8265 is the dashboard, for `hardmine submit`), then run the same command again"
        )


def is_plain(address: str) -> bool:
    """Whether an address that was checked is host:port, where Ray speaks gRPC without TLS."""
    return ":" in address and "://" not in address and os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true")


def _recorded() -> str:
    """The address that `ray start` on this machine left, also where that cluster has died since; "": none is known."""
    with suppress(Exception):  # Ray's own, without a promise that it stays
        from ray._private import services

        return str(services.canonicalize_bootstrap_address("auto") or "")
    return ""


def _speaks_grpc(address: str) -> bool:
    import grpc  # type: ignore[import-untyped]

    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=READY_S)
    except grpc.FutureTimeoutError:
        return False
    finally:
        channel.close()
    return True
