"""Connections to the embedded Hub whose requests do not begin or do not end."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import pytest

from hubmerge.localhub import (
    LocalHub,
    connections,
)
from tests.localhub.bounded_hub import hub

__all__ = ["hub"]  # fixtures


def until_the_end(connection: socket.socket, drip: bytes = b"") -> bytes:
    """Return what the Hub sends until it ends the connection, while one more byte is sent every 0.05 seconds."""
    connection.settimeout(0.05 if drip else 60)
    received = b""
    for _ in range(1200):
        try:
            if drip:
                connection.sendall(drip)
            piece = connection.recv(1000)
        except TimeoutError:
            continue
        except OSError:
            break
        if not piece:
            break
        received += piece
    else:
        raise AssertionError("the Hub keeps the connection open")
    return received


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"\r\n"])
@pytest.mark.parametrize("drip", [b"", b"x"])
def test_a_connection_without_the_head_of_a_request_is_ended(
    hub: LocalHub, sent: bytes, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    place = urlsplit(hub.endpoint)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as connection:
        connection.sendall(sent)
        assert until_the_end(connection, drip if sent != b"\r\n" else b"").partition(b" ")[2][:3] in (b"", b"400")


def test_a_second_head_that_does_not_end_is_ended_and_a_second_request_is_not(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    place = urlsplit(hub.endpoint)
    request = b"GET /api/models HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as connection:
        for _ in range(2):
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            answer.read()
        connection.sendall(request[:20])
        until_the_end(connection, b"x")
