"""Ports: a free one can be used, one that listens accepts, one that does not gives its reason."""

from __future__ import annotations

import socket

from fieldshift.ports import free_port, refusal


def test_a_free_port_refuses_until_a_process_listens() -> None:
    port = free_port()
    assert "refused" in str(refusal("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        assert refusal("127.0.0.1", port) is None


def test_a_name_that_cannot_be_a_host_has_a_reason() -> None:
    assert refusal("." * 300, 80)
