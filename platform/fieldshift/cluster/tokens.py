"""Authentication tokens of Ray clusters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from fieldshift.errors import UserError

TOKEN_ADVICE = (
    "set RAY_AUTH_MODE=token and the cluster's token in RAY_AUTH_TOKEN (or its file in RAY_AUTH_TOKEN_PATH);"
    " on the head node `ray get-auth-token` shows it"
)
DEADLINE_S = 5.0


def own_token() -> str | None:
    """The token that Ray sends from this process; None where it sends none."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else Path("~/.ray/auth_token").expanduser()
    return path.read_text().strip() if path.is_file() else None


def check_token(address: str, source: str) -> None:
    """Presents this process's token to the cluster at HOST:PORT, because Ray itself tries for 20 seconds and logs each one.

    Whatever else the cluster answers is left to Ray.

    Raises:
        UserError: The cluster rejects the token, or the lack of one.
    """
    try:
        import grpc
    except ImportError:
        return
    token, client = own_token(), cast("Any", grpc)
    with client.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", metadata=[("authorization", f"Bearer {token}")] if token else None, timeout=DEADLINE_S)
        except client.RpcError as error:
            if error.code() is client.StatusCode.UNAUTHENTICATED:
                held = "this process has none" if token is None else "it rejects this process's token"
                raise UserError(
                    f"The cluster at {source} {address} requires a token, and {held}; {TOKEN_ADVICE}."
                ) from error
