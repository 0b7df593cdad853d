"""The style sheet: colours that can be read in both schemes, and names that exist."""

import re

import pytest

from rdservice.web import STATIC

CSS = (STATIC / "site.css").read_text(encoding="utf-8")
RULES = re.sub(r"/\*.*?\*/", "", CSS, flags=re.S)
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
    for block in re.findall(r":root \{(.*?)\}", RULES, re.S)
)
TONES = ("ok", "warn", "bad", "plain")
GROUNDS = ("page", "surface", "sunken")
TEXTS = [
    *((ink, ground) for ink in ("ink", "soft", "accent", "accent-strong", "bad") for ground in GROUNDS),
    *((ink, f"{tone}-wash") for tone in TONES for ink in (tone, "ink")),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("surface", "bad"),
    *(("surface", tone) for tone in TONES),
    ("accent", "accent-wash"),
    ("accent-strong", "accent-wash"),
    ("bad", "bad-wash"),
]
"""Each colour that a text has, with each ground on which it stands."""
SHAPES = [
    *((shape, ground) for shape in ("edge", "accent", "bad") for ground in GROUNDS),
    *((f"{tone}-mark", "surface") for tone in TONES),
]
"""The lines of fields and charts, which need less."""

both_schemes = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = (int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colours: dict[str, str], one: str, other: str) -> float:
    darker, lighter = sorted((luminance(colours[one]), luminance(colours[other])))
    return (lighter + 0.05) / (darker + 0.05)


@both_schemes
def test_every_text_stands_out_from_its_ground(colours: dict[str, str]) -> None:
    found = {f"{ink} on {ground}": contrast(colours, ink, ground) for ink, ground in TEXTS}
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < 4.5} == {}


@both_schemes
def test_every_line_that_tells_something_stands_out_from_its_ground(colours: dict[str, str]) -> None:
    found = {f"{shape} on {ground}": contrast(colours, shape, ground) for shape, ground in SHAPES}
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < 3} == {}


def test_both_schemes_have_the_same_colours_and_rules_use_no_other() -> None:
    assert LIGHT.keys() == DARK.keys()
    after_tokens = re.sub(r":root \{.*?\}", "", RULES, flags=re.S)
    assert re.findall(r"#[0-9a-f]{3,8}\b|\brgb|\bhsl", after_tokens) == []


def test_every_name_that_a_rule_uses_is_defined() -> None:
    defined = set(re.findall(r"--([\w-]+):", RULES))
    assert set(re.findall(r"var\(--([\w-]+)", RULES)) <= defined


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert re.findall(r"url\(|@import|https?:|expression\(", CSS) == []


def test_the_dark_changes_colours_and_shadows_and_nothing_else() -> None:
    assert RULES.count("prefers-color-scheme") == 1
    (block,) = re.findall(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{([^{}]*)\}\s*\}", RULES)
    changed = [line.strip() for line in block.split(";") if line.strip()]
    assert len(changed) > 20
    assert [
        line for line in changed if not re.fullmatch(r"--[\w-]+: #[0-9a-f]{3,6}|--shadow: [^:]+", line)
    ] == []
