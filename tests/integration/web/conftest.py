"""An application, an operator who may log in, and keys."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from argon2 import PasswordHasher
from flask import Flask

from rdservice.access import keys, operators, passwords
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.browser import Browser

EMAIL = "ana@example.com"
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 with the least of everything: what it costs is not what these tests are about."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def app(services: Services) -> Flask:
    return create_app(services)


@pytest.fixture
def operator(conn: psycopg.Connection[Any]) -> operators.Operator:
    created = operators.create(conn, EMAIL, passwords.hash_password(PASSWORD))
    assert created is not None
    return created


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)


@pytest.fixture
def signed_in(app: Flask, operator: operators.Operator) -> Browser:
    browser = Browser(app)
    assert browser.log_in(operator.email, PASSWORD).status_code == 303
    return browser


@pytest.fixture
def make_key(conn: psycopg.Connection[Any]) -> Callable[..., str]:
    def make(*scopes: str) -> str:
        return keys.create(conn, "a program", scopes, created_by="test")

    return make
