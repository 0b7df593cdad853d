"""Who may read /metrics."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app

TOKEN = "the-metrics-token-of-the-tests"


@pytest.fixture
def guarded(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> FlaskClient:
    """A client of an application with METRICS_TOKEN."""
    return create_app(
        make_services(Settings.from_mapping(variables | {"METRICS_TOKEN": TOKEN}))
    ).test_client()


@pytest.fixture
def in_production(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> FlaskClient:
    """A client of an application in production without METRICS_TOKEN."""
    production = {
        "RDSERVICE_ENV": "production",
        "RDSTATION_REDIRECT_URI": "https://app.example.com/rd/callback",
    }
    return create_app(make_services(Settings.from_mapping(variables | production))).test_client()


@pytest.fixture
def behind_proxy(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> Flask:
    return create_app(make_services(Settings.from_mapping(variables | {"TRUSTED_PROXIES": "1"})))


def from_address(client: FlaskClient, address: str, **headers: str) -> int:
    response = client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address})
    return response.status_code


def test_the_token_opens_from_anywhere(guarded: FlaskClient) -> None:
    assert from_address(guarded, "203.0.113.9", Authorization=f"Bearer {TOKEN}") == 200
    assert from_address(guarded, "203.0.113.9", Authorization=f"bearer {TOKEN}") == 200


def test_each_token_of_a_list_opens_so_that_it_can_be_changed(
    make_services: Callable[[Settings], Services], variables: dict[str, str]
) -> None:
    settings = Settings.from_mapping(variables | {"METRICS_TOKEN": f"the-new-token, {TOKEN},"})
    client = create_app(make_services(settings)).test_client()
    for token in ("the-new-token", TOKEN):
        assert from_address(client, "203.0.113.9", Authorization=f"Bearer {token}") == 200
    for wrong in ("", ",", f"the-new-token, {TOKEN},", f"the-new-token,{TOKEN}", "the-new-token,", "the-new"):
        assert from_address(client, "203.0.113.9", Authorization=f"Bearer {wrong}") == 401, wrong


def test_in_production_nobody_reads_without_a_token_a_proxy_that_adds_no_header_least(
    in_production: FlaskClient,
) -> None:
    for address in ("127.0.0.1", "::1", "203.0.113.9"):
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer anything"}):
            response = in_production.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address})
            assert response.status_code == 401, (address, headers)
            assert "set METRICS_TOKEN" in response.get_json()["detail"]
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert "rdstation_" not in response.text


def test_with_a_token_set_nothing_else_opens_not_even_from_this_machine(guarded: FlaskClient) -> None:
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ]
    for headers in ({}, *({"Authorization": header} for header in wrong)):
        response = guarded.get("/metrics", headers=headers)
        assert response.status_code == 401, headers
        assert response.get_json()["code"] == "unauthorized"
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in response.text
        assert "rdstation_" not in response.text


def test_without_a_token_this_machine_may_read(client: FlaskClient) -> None:
    for address in ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"):
        assert from_address(client, address) == 200, address


def test_without_a_token_an_authorization_header_is_ignored(client: FlaskClient) -> None:
    for authorization in ("Bearer anything", "Basic eDp5", "nonsense"):
        assert from_address(client, "127.0.0.1", Authorization=authorization) == 200
        assert from_address(client, "203.0.113.9", Authorization=authorization) == 403


def test_without_a_token_other_machines_may_not(client: FlaskClient) -> None:
    for address in ("203.0.113.9", "10.0.0.1", "::2", "::ffff:10.0.0.1", "", "a-socket"):
        response = client.get("/metrics", environ_base={"REMOTE_ADDR": address})
        assert response.status_code == 403, address
        assert "METRICS_TOKEN" in response.get_json()["detail"]
        assert "rdstation_" not in response.text


def test_without_a_token_a_proxy_on_this_machine_does_not_open_to_its_clients(
    client: FlaskClient, behind_proxy: Flask
) -> None:
    trusting = behind_proxy.test_client()
    names = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded-anything"]
    for name in names:
        for value in ("127.0.0.1", "203.0.113.9", ""):
            assert from_address(client, "127.0.0.1", **{name: value}) == 403, name
            assert from_address(trusting, "127.0.0.1", **{name: value}) == 403, name


def test_the_token_is_compared_in_constant_time(
    guarded: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return given == expected

    monkeypatch.setattr("rdservice.web.api.metrics.hmac.compare_digest", compare_digest)
    for given in (TOKEN, f"{TOKEN[:-1]}x", "x", ""):
        from_address(guarded, "203.0.113.9", Authorization=f"Bearer {given}")
    assert compared == [(given.encode(), TOKEN.encode()) for given in (TOKEN, f"{TOKEN[:-1]}x", "x", "")]
