"""Tests the connectivity to RD Station: name resolution, TCP connection, TLS handshake. Sends no request."""

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import certifi
from requests.utils import get_environ_proxies, select_proxy

from rdservice.diagnosis.facts.types import Network

T = TypeVar("T")

STEP_TIMEOUT_S = 5.0
LONGEST_ERROR = 200


def measure(url: str) -> Network:
    """Connect to the host of `url` once, step by step. Never raises OSError.

    Each step times out after STEP_TIMEOUT_S, except name resolution, which is up to the system's resolver.
    """
    at = destination(url)
    if at.through_proxy:
        return at
    try:
        addresses, dns_ms = _timed(lambda: socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        return replace(at, failed_at="dns", error=_why(error))
    at = replace(at, dns_ms=dns_ms)
    try:
        connection, tcp_ms = _timed(lambda: _connect(addresses))
    except OSError as error:
        return replace(at, failed_at="tcp", error=_why(error))
    at = replace(at, tcp_ms=tcp_ms)
    with connection:
        return at if urlsplit(url).scheme == "http" else _with_tls(at, connection)


def destination(url: str) -> Network:
    """Return host, port and whether a proxy is in between, before any step."""
    parts = urlsplit(url)
    return Network(
        host=parts.hostname or "",
        port=parts.port or (80 if parts.scheme == "http" else 443),
        through_proxy=select_proxy(url, get_environ_proxies(url)) is not None,
    )


def _connect(addresses: list[tuple[Any, ...]]) -> socket.socket:
    """Return a connection to the first address that accepts one, as HTTP clients do."""
    refused: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(STEP_TIMEOUT_S)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            refused = error
        else:
            return connection
    raise refused


def _with_tls(at: Network, connection: socket.socket) -> Network:
    try:
        context = ssl.create_default_context(cafile=_certificates())
        secured, tls_ms = _timed(lambda: context.wrap_socket(connection, server_hostname=at.host))
    except (OSError, ValueError) as error:
        return replace(at, failed_at="tls", error=_why(error))
    with secured:
        not_after = (secured.getpeercert() or {}).get("notAfter")
        return replace(
            at,
            tls_ms=tls_ms,
            tls_version=secured.version(),
            certificate_ends=datetime.fromtimestamp(ssl.cert_time_to_seconds(not_after), UTC)
            if isinstance(not_after, str)
            else None,
        )


def _certificates() -> str:
    """Return the file of trusted certificates that `requests` uses."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()


def _timed(step: Callable[[], T]) -> tuple[T, int]:
    started = time.monotonic()
    value = step()
    return value, round((time.monotonic() - started) * 1000)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message[:LONGEST_ERROR]
    if isinstance(error, TimeoutError):
        return f"no response within {STEP_TIMEOUT_S:.0f} s"
    if isinstance(error, ssl.SSLError):
        return (error.reason or type(error).__name__)[:LONGEST_ERROR]
    text = error.strerror if isinstance(error, OSError) else None
    return (text or type(error).__name__)[:LONGEST_ERROR]
