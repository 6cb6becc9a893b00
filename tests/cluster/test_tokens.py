"""Tokens are presented to a cluster before Ray joins it, which would try a rejected one for 20 seconds."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fieldshift.cluster import ClusterConfig
from fieldshift.cluster.reach import check_reach
from fieldshift.cluster.tokens import own_token
from fieldshift.errors import UserError

grpc = pytest.importorskip("grpc")

TOKEN = "aabbccdd" * 4


@pytest.fixture
def address() -> Iterator[str]:
    """A stand-in for a head node that checks tokens."""

    def answer(_request: bytes, context: Any) -> bytes:
        if ("authorization", f"Bearer {TOKEN}") not in [tuple(each) for each in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", {"GetClusterId": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(autouse=True)
def own_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("mode", ["token", "Token"])
@pytest.mark.parametrize("place", ["variable", "named file", "usual file"])
def test_the_token_is_where_ray_reads_it(
    address: str, place: str, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if place == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", f" {TOKEN}\n")
    else:
        path = tmp_path / ("token" if place == "named file" else ".ray/auth_token")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{TOKEN}\n")
        if place == "named file":
            monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert own_token() == TOKEN
    check_reach(ClusterConfig(address=address), 1)


@pytest.mark.parametrize(
    ("mode", "token", "reason"),
    [
        (None, None, "this process has none"),
        (None, TOKEN, "this process has none"),  # Ray sends it only in the mode `token`
        ("token", None, "this process has none"),
        ("token", TOKEN[::-1], "it rejects this process's token"),
    ],
)
@pytest.mark.parametrize("source", ["cluster.address", "RAY_ADDRESS"])
def test_a_rejected_token_is_one_line(
    address: str, mode: str | None, token: str | None, reason: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RAY_AUTH_MODE", mode), ("RAY_AUTH_TOKEN", token)):
        if value is not None:
            monkeypatch.setenv(name, value)
    if source == "RAY_ADDRESS":
        monkeypatch.setenv(source, address)
    with pytest.raises(UserError) as caught:
        check_reach(ClusterConfig(address=address if source == "cluster.address" else None), 1)
    assert str(caught.value).startswith(f"The cluster at {source} {address} requires a token, and {reason}; set RAY_")
    assert "\n" not in str(caught.value)
    assert TOKEN[::-1] not in str(caught.value)


def test_a_cluster_that_is_found_gets_the_token_without_a_mode(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Ray does for 'auto', but not where RAY_ADDRESS names the cluster."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    monkeypatch.setattr("fieldshift.cluster.reach.found_address", lambda: address)
    check_reach(ClusterConfig(address="auto"), 1)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_reach(ClusterConfig(), 1)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="this process has none"):
        check_reach(ClusterConfig(address="auto"), 1)


def test_a_cluster_that_was_found_and_is_gone_is_not_taken_for_one_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray keeps the address of the last cluster in a file."""
    with socket.socket() as held_back:
        held_back.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{held_back.getsockname()[1]}"
        monkeypatch.setattr("fieldshift.cluster.reach.found_address", lambda: gone)
        with pytest.raises(
            UserError, match=f"cluster.address is 'auto', but no cluster runs .* {gone}, does not answer"
        ):
            check_reach(ClusterConfig(address="auto"), 1)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", None])
def test_a_file_that_holds_no_token_is_left_to_ray(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    if content is None:
        (tmp_path / "token").mkdir()
    else:
        (tmp_path / "token").write_bytes(content)
    assert own_token() is None


def test_no_proxy_receives_the_token(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        check_reach(ClusterConfig(address=address), 1)
        proxy.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_an_empty_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a variable that is not set, also where RAY_ADDRESS names a cluster."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(UserError, match="^cluster.address is empty; give a value"):
        check_reach(ClusterConfig(address=""), 1)
