"""The token of a Ray cluster: sent where the cluster asks for one, so that `run` finds it as `submit` does.

Ray sends one to an address only with RAY_AUTH_MODE=token, and a cluster asks for one as soon as `ray start` found one. A driver
that sends a token to a cluster without would refuse that cluster's calls, so the cluster is asked first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

MODE, TOKEN, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
ANSWER_S = 10.0


@contextmanager
def token_sent(address: str) -> Iterator[None]:
    """Send this user's token within the context, if the Ray at host:port asks for one and RAY_AUTH_MODE does not say.

    Raises:
        ClusterError: it asks for a token and there is none here, or it refuses the one that is here.
    """
    if MODE in os.environ or not _refuses(address, None):
        yield
        return
    token, where = _own_token()
    if not token:
        raise ClusterError(
            f"the Ray at {address} asks for a token; set {TOKEN} to it, or {FILE} to a file that holds it (on the head: "
            f"~/.ray/auth_token; on KubeRay: the Secret with the name of the cluster), then run the same command again"
        )
    if _refuses(address, token):
        raise ClusterError(f"the Ray at {address} refuses the token of {where}; set {TOKEN} or {FILE} to its own")
    os.environ[MODE] = "token"
    _read_again()
    try:
        yield
    finally:
        del os.environ[MODE]
        _read_again()


def _own_token() -> tuple[str, str]:
    """(the token, where it is from); "" where there is none."""
    if os.environ.get(TOKEN):
        return os.environ[TOKEN].strip(), TOKEN
    path = Path(os.environ.get(FILE) or Path.home() / ".ray" / "auth_token")
    with suppress(OSError):
        return path.read_text().strip(), str(path)
    return "", ""


def _refuses(address: str, token: str | None) -> bool:
    """Whether the Ray at an address does not let in a caller with this token."""
    import grpc  # type: ignore[import-untyped]

    def plain(data: Any) -> bytes:
        return bytes(data)

    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    call = channel.unary_unary(METHOD, request_serializer=plain, response_deserializer=plain)
    try:
        call(b"", timeout=ANSWER_S, metadata=[("authorization", f"Bearer {token}")] if token else None)
    except grpc.RpcError as error:
        return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    finally:
        channel.close()
    return False


def _read_again() -> None:
    """Ray reads its variables once."""
    with suppress(ImportError, AttributeError):
        from ray._raylet import Config  # type: ignore[attr-defined]

        Config.initialize("")
