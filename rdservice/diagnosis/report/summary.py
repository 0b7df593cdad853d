"""The findings as text for a terminal: the root cause with its consequences, then the rest."""

from collections.abc import Sequence
from typing import TextIO

from rdservice.diagnosis.findings.finding import Finding
from rdservice.text.catalogue import Language, message, translated

MAX_FINDINGS = 20
"""Findings to print. The file has all."""

RED, YELLOW, BLUE, GREEN, BOLD = "31", "33", "34", "32", "1"
COLOURS = {"error": RED, "warning": YELLOW, "info": BLUE}

LABELS: dict[str, str] = {
    "root": message("ROOT CAUSE"),
    "error": message("ERROR"),
    "warning": message("WARNING"),
    "info": message("NOTE"),
    "meaning": message("What it means"),
    "todo": message("What to do"),
    "who": message("Who"),
    "operator": message("you, or a person who may authorize the app in RD Station"),
    "server": message("the administrator of this service"),
    "rdstation": message("RD Station's support"),
    "nobody": message("nobody: it resolves itself"),
    "consequences": message("It explains"),
    "more": message("and %(count)s more in the file"),
    "well": message("All is well"),
    "written": message("Written"),
    "help": message("Step by step: docs/en/operate/leads-stopped.md"),
}


def label(language: Language, name: str) -> str:
    """Return one of `LABELS` in `language`."""
    return translated(language, LABELS[name])


def lines(findings: Sequence[Finding], language: Language, *, coloured: bool) -> list[str]:
    """Return the lines of the summary. `coloured` adds escape sequences (ECMA-48)."""
    labels = {name: label(language, name) for name in LABELS}

    def paint(text: str, *codes: str) -> str:
        return f"\033[{';'.join(codes)}m{text}\033[0m" if coloured else text

    if not findings:
        return [paint(f"{labels['well']}.", GREEN), ""]
    made: list[str] = []
    for number, finding in enumerate(findings[:MAX_FINDINGS]):
        text, colour = finding.text(language), COLOURS[finding.severity]
        if finding.follows_from is not None:
            if findings[number - 1].follows_from is None:
                made[-1:] = [f"  {labels['consequences']}:"]
            else:
                made.pop()
            made += [f"    - {text.seen} [{finding.reference}]", ""]
            continue
        head = f"{labels['root']}, {labels[finding.severity]}" if number == 0 else labels[finding.severity]
        made += [
            f"{paint(head, BOLD, colour)}  {paint(text.seen, BOLD)} [{finding.reference}]",
            f"  {labels['meaning']}: {text.meaning}",
            f"  {labels['todo']}: {text.todo}",
            f"  {labels['who']}: {labels[finding.who]}",
            "",
        ]
    if len(findings) > MAX_FINDINGS:
        made += [labels["more"] % {"count": len(findings) - MAX_FINDINGS}, ""]
    return [*made, labels["help"]]


def takes_colours(stream: TextIO, environ: dict[str, str]) -> bool:
    """Return whether the stream is a terminal with colours and NO_COLOR (no-color.org) is not set."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
