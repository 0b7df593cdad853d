"""Reading /metrics as Prometheus does, and taking the database away."""

import os
import signal
from dataclasses import dataclass

from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Scrape:
    """A parsed answer of /metrics."""

    text: str
    values: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of one sample, None when it is absent."""
        return self.values.get((name, frozenset(labels.items())))

    def all(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the samples of this name by their labels."""
        return {labels: value for (sample, labels), value in self.values.items() if sample == name}

    def non_zero(self, name: str, *label_names: str) -> dict[tuple[str, ...], float]:
        """Return the samples that are not 0 by the values of `label_names`."""
        found = {}
        for labels, value in self.all(name).items():
            if value:
                found[tuple(dict(labels)[label] for label in label_names)] = value
        return found

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def parse(text: str) -> Scrape:
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in values, f"{key} is there twice"
            values[key] = float(sample.value)
    return Scrape(text, values)


def scrape(client: FlaskClient) -> Scrape:
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return parse(response.text)


def take_down(server: EmbeddedPostgres) -> None:
    """End the server as a fast shutdown does; `start` brings it back under the same URL."""
    os.kill(server.pid or 0, signal.SIGINT)
    wait_until(lambda: not server.is_running, "the database is down")
