"""The metrics that a text of PromQL speaks of."""

import re

METRIC = re.compile(r"\b(?:rdstation|flask)_[a-z0-9_]+\b")
SELECTOR = re.compile(r"\b((?:rdstation|flask)_[a-z0-9_]+)\{([^{}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')

Exposed = dict[str, list[dict[str, str]]]
"""The labels of all samples of /metrics, by the samples' name."""


def exported(text: str) -> set[str]:
    """Return the names of the service's metrics in `text`."""
    return set(METRIC.findall(text))


def unknown_selectors(text: str, exposed: Exposed) -> list[str]:
    """Return the selectors of `text` that match no sample, or one of whose alternatives (`a|b`) matches none."""
    unknown = []
    for name, inside in SELECTOR.findall(text):
        matchers = MATCHER.findall(inside)
        assert matchers, f"{name}{{{inside}}} has no matcher that is understood"
        for label, operator, value in matchers:
            wanted = value.split("|") if operator == "=~" else [value]
            there = {labels.get(label) for labels in exposed.get(name, [])}
            unknown += [f'{name}{{{label}="{one}"}}' for one in wanted if one not in there]
    return unknown
