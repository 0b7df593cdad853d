"""`python -m scripts.findings_document`: write the findings' own sentences into docs/leads-stopped.md and its twin.

What stands between the two marks there is made from `rdservice.diagnosis`, so that a finding says the same on the page,
in the terminal, in its file and in the documents.
"""

import re
from pathlib import Path

from rdservice.diagnosis import summary, words_en, words_pt
from rdservice.diagnosis.finding import Language
from rdservice.diagnosis.guide import GUIDE
from rdservice.diagnosis.verdict import ORDER

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS: dict[Language, Path] = {
    "en": ROOT / "docs" / "leads-stopped.md",
    "pt-BR": ROOT / "docs" / "leads-stopped.pt-BR.md",
}
BLOCK = re.compile(r"(?<=<!-- findings -->\n).*(?=<!-- /findings -->)", re.DOTALL)

BUTTONS: dict[Language, dict[str, str]] = {
    "en": {"connect": "“Connect again”", "refresh": "“Refresh now”", "upload": "uploading tokens"},
    "pt-BR": {"connect": "“Conectar de novo”", "refresh": "“Renovar agora”", "upload": "enviar tokens"},
}
PLACES: dict[Language, dict[str, str]] = {
    "en": {
        "account": "account",
        "ago": "how long",
        "answer": "answer",
        "api_url": "RDSTATION_API_URL",
        "aud": "other API",
        "count": "number",
        "error": "error",
        "example": "example",
        "failures": "number",
        "kinds": "errors",
        "login": "/rd/login?account_id=…",
        "migrations": "names",
        "needed": "key id",
        "operation": "request",
        "reason": "reason",
        "required": "scope",
        "scope": "scope",
        "silence": "how long",
        "skew": "how much",
        "there": "key ids",
        "uri": "RDSTATION_REDIRECT_URI",
        "variable": "setting",
        "wait": "how long",
        "what": "what is wrong with a setting",
    },
    "pt-BR": {
        "account": "conta",
        "ago": "quanto tempo",
        "answer": "resposta",
        "api_url": "RDSTATION_API_URL",
        "aud": "outra API",
        "count": "número",
        "error": "erro",
        "example": "exemplo",
        "failures": "número",
        "kinds": "erros",
        "login": "/rd/login?account_id=…",
        "migrations": "nomes",
        "needed": "id da chave",
        "operation": "requisição",
        "reason": "motivo",
        "required": "escopo",
        "scope": "escopo",
        "silence": "quanto tempo",
        "skew": "quanto",
        "there": "ids das chaves",
        "uri": "RDSTATION_REDIRECT_URI",
        "variable": "configuração",
        "wait": "quanto tempo",
        "what": "o que há de errado em uma configuração",
    },
}
HELPS: dict[Language, str] = {"en": "Helps on the page", "pt-BR": "Ajuda na página"}


def main() -> None:
    for language, document in DOCUMENTS.items():
        text = document.read_text(encoding="utf-8")
        document.write_text(with_findings(text, language), encoding="utf-8")


def with_findings(text: str, language: Language) -> str:
    """Return a document with the findings' sentences between its marks."""
    block = "\n".join(section for code in ORDER for section in _section(code, language))
    return BLOCK.sub(lambda _: f"\n{block}\n", text)


def _section(code: str, language: Language) -> list[str]:
    words = (words_pt if language == "pt-BR" else words_en).WORDS
    labels = summary.LABELS[language]
    lines = [f"### `{code}`", ""]
    for name in (name for name in words if name.split("/")[0] == code):
        seen, meaning, todo = (_named(sentence, language) for sentence in words[name])
        who, action = GUIDE[name]
        lines += [
            f"**{seen}**",
            "",
            f"- {labels['meaning']}: {meaning}",
            f"- {labels['todo']}: {todo}",
            f"- {labels['who']}: {labels[who]}."
            + ("" if action == "none" else f" {HELPS[language]}: {BUTTONS[language][action]}."),
            "",
        ]
    return lines


def _named(sentence: str, language: Language) -> str:
    """Return a sentence with the names of what stands in its places."""
    return sentence.format_map({name: f"‹{place}›" for name, place in PLACES[language].items()})


if __name__ == "__main__":
    main()
