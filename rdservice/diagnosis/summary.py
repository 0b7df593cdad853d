"""The findings as text for a terminal: the root cause with its consequences first, then the rest."""

from collections.abc import Sequence
from typing import TextIO

from rdservice.diagnosis.finding import Finding, Language

MAX_FINDINGS = 20
"""The file has all."""

RED, YELLOW, BLUE, GREEN, BOLD = "31", "33", "34", "32", "1"
COLOURS = {"error": RED, "warning": YELLOW, "info": BLUE}

LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "root": "ROOT CAUSE",
        "error": "ERROR",
        "warning": "WARNING",
        "info": "NOTE",
        "meaning": "What it means",
        "todo": "What to do",
        "who": "Who",
        "operator": "you, or whoever may give consent in RD Station",
        "server": "whoever runs this service",
        "rdstation": "RD Station's support",
        "nobody": "nobody: it passes by itself",
        "consequences": "It explains",
        "more": "and {count} more, which are in the file",
        "well": "All is well.",
        "written": "Written",
        "help": "Step by step: docs/leads-stopped.md",
    },
    "pt-BR": {
        "root": "CAUSA PRINCIPAL",
        "error": "ERRO",
        "warning": "AVISO",
        "info": "NOTA",
        "meaning": "O que significa",
        "todo": "O que fazer",
        "who": "Quem",
        "operator": "você, ou quem pode dar o consentimento no RD Station",
        "server": "quem cuida deste serviço",
        "rdstation": "o suporte do RD Station",
        "nobody": "ninguém: passa sozinho",
        "consequences": "Isso explica",
        "more": "e mais {count}, que estão no arquivo",
        "well": "Tudo certo.",
        "written": "Gravado em",
        "help": "Passo a passo: docs/leads-stopped.pt-BR.md",
    },
}


def lines(findings: Sequence[Finding], language: Language, *, coloured: bool) -> list[str]:
    """Return the summary, line by line; `coloured` adds the escape codes of terminals (ECMA-48)."""
    labels = LABELS[language]

    def paint(text: str, *codes: str) -> str:
        return f"\033[{';'.join(codes)}m{text}\033[0m" if coloured else text

    if not findings:
        return [paint(labels["well"], GREEN), ""]
    made: list[str] = []
    for number, finding in enumerate(findings[:MAX_FINDINGS]):
        text, colour = finding.text(language), COLOURS[finding.severity]
        if finding.follows_from is not None:
            if findings[number - 1].follows_from is None:
                made[-1:] = [f"  {labels['consequences']}:"]
            else:
                made.pop()
            made += [f"    - {text.seen} [{finding.code}]", ""]
            continue
        label = f"{labels['root']}, {labels[finding.severity]}" if number == 0 else labels[finding.severity]
        made += [
            f"{paint(label, BOLD, colour)}  {paint(text.seen, BOLD)} [{finding.code}]",
            f"  {labels['meaning']}: {text.meaning}",
            f"  {labels['todo']}: {text.todo}",
            f"  {labels['who']}: {labels[finding.who]}",
            "",
        ]
    if len(findings) > MAX_FINDINGS:
        made += [labels["more"].format(count=len(findings) - MAX_FINDINGS), ""]
    return [*made, labels["help"]]


def takes_colours(stream: TextIO, environ: dict[str, str]) -> bool:
    """Return whether a stream is a terminal that shows colours, and NO_COLOR (no-color.org) does not forbid them."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
