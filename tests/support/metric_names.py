"""The metrics and labels that a text of PromQL speaks of."""

import re

SELECTOR = re.compile(r"\b([a-z_:][a-z0-9_:]*)\{([^{}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on)\s*\(([^()]*)\)")
# What stands in braces, brackets, quotes or the parentheses of a grouping is no metric.
NO_METRIC = re.compile(r'\{[^{}]*\}|\[[^\[\]]*\]|"[^"]*"|\b(?:by|on)\s*\([^()]*\)')
NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()")
KEYWORDS = {"and", "or", "unless", "offset", "bool"}

Exposed = dict[str, list[dict[str, str]]]
"""The labels of all samples of /metrics, by the samples' name."""


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in PromQL."""
    return set(NAME.findall(NO_METRIC.sub(" ", expression))) - KEYWORDS


def grouping_labels(expression: str) -> set[str]:
    """Return the labels by which PromQL groups or joins."""
    return {label.strip() for inside in GROUPING.findall(expression) for label in inside.split(",")} - {""}


def unknown_selectors(text: str, exposed: Exposed) -> list[str]:
    """Return the selectors of `text` that match no sample, or one of whose alternatives (`a|b`) matches none."""
    unknown = []
    for name, inside in SELECTOR.findall(text):
        matchers = MATCHER.findall(inside)
        assert matchers, f"{name}{{{inside}}} has no matcher that is understood"
        for label, operator, value in matchers:
            wanted = value.split("|") if "~" in operator else [re.escape(value)]
            there = [labels.get(label, "") for labels in exposed.get(name, [])]
            unknown += [
                f'{name}{{{label}="{one}"}}'
                for one in wanted
                if not any(re.fullmatch(one, value) for value in there)
            ]
    return unknown
