"""Authentication tokens of Ray clusters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from fieldshift.errors import UserError

TOKEN_ADVICE = (
    "set RAY_AUTH_MODE=token; away from the head node's machine also set RAY_AUTH_TOKEN to the cluster's token"
    " (or RAY_AUTH_TOKEN_PATH to its file), which `ray get-auth-token` shows on the head node"
)
DEADLINE_S = 5.0


def own_token(*, is_found: bool = False) -> str | None:
    """The token that Ray sends from this process; None where it sends none, or where Ray itself says what is wrong with it.

    `is_found`: the cluster was found by 'auto', where Ray sends a token that there is unless RAY_AUTH_MODE is another.
    """
    if os.environ.get("RAY_AUTH_MODE", "token" if is_found else "").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return (Path(given) if given else Path("~/.ray/auth_token").expanduser()).read_text().strip() or None
    except (OSError, UnicodeError):
        return None


def check_token(address: str, source: str, *, is_found: bool = False) -> None:
    """Presents this process's token to the cluster at HOST:PORT, because Ray itself tries for 20 seconds and logs each one.

    Whatever else the cluster answers is left to Ray, and so are clusters with TLS.

    Raises:
        UserError: The cluster rejects the token, or the lack of one.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    try:
        import grpc
    except ImportError:
        return
    token, client = own_token(is_found=is_found), cast("Any", grpc)
    with client.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:  # as Ray's own
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", metadata=[("authorization", f"Bearer {token}")] if token else None, timeout=DEADLINE_S)
        except client.RpcError as error:
            if error.code() is client.StatusCode.UNAUTHENTICATED:
                held = "this process has none" if token is None else "it rejects this process's token"
                raise UserError(
                    f"The cluster at {source} {address} requires a token, and {held}; {TOKEN_ADVICE}."
                ) from error
