"""The findings of the diagnosis with their own sentences, so that page, terminal, file and documents say the same."""

from urllib.parse import quote

from dev.documents.tables import Language
from rdservice.diagnosis.findings.finding import Finding
from rdservice.diagnosis.findings.guide import GUIDE
from rdservice.diagnosis.findings.verdict import ORDER
from rdservice.diagnosis.report import summary

BUTTONS: dict[Language, dict[str, str]] = {
    "en": {"connect": "“Connect again”", "refresh": "“Refresh now”", "upload": "uploading tokens"},
    "pt-BR": {"connect": "“Conectar de novo”", "refresh": "“Renovar agora”", "upload": "enviar tokens"},
}
HELPS: dict[Language, str] = {"en": "Helps on the page", "pt-BR": "Ajuda na página"}
ACCOUNT: dict[Language, str] = {"en": "‹account›", "pt-BR": "‹conta›"}
PLACES: dict[Language, dict[str, str]] = {
    "en": {
        "ago": "how long",
        "answer": "answer",
        "api_url": "RDSTATION_API_URL",
        "aud": "other API",
        "count": "number",
        "error": "error",
        "example": "example",
        "failures": "number",
        "kinds": "errors",
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
        "what": "what is wrong with it",
    },
    "pt-BR": {
        "ago": "quanto tempo",
        "answer": "resposta",
        "api_url": "RDSTATION_API_URL",
        "aud": "outra API",
        "count": "número",
        "error": "erro",
        "example": "exemplo",
        "failures": "número",
        "kinds": "erros",
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
        "what": "o que há de errado nela",
    },
}
"""What stands in the place of each value of a finding."""


def findings(language: Language) -> list[str]:
    """Return a section for each finding, in the order in which the diagnosis shows them."""
    return [line for code in ORDER for line in _section(code, language)][:-1]


def _section(code: str, language: Language) -> list[str]:
    labels = summary.LABELS[language]
    lines = [f"### `{code}`", ""]
    for name in (name for name in GUIDE if name.split("/")[0] == code):
        who, action = GUIDE[name]
        seen, meaning, todo = _sentences(name, language)
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


def _sentences(name: str, language: Language) -> list[str]:
    """Return a finding's sentences with the names of what stands in its places."""
    code, _, variant = name.partition("/")
    finding = Finding(
        code=code,
        severity="error",
        account_id=ACCOUNT[language],
        variant=variant or None,
        values={place: f"‹{words}›" for place, words in PLACES[language].items()},
    )
    address = f"/rd/login?account_id={quote(ACCOUNT[language], safe='')}"
    return [sentence.replace(address, "‹/rd/login?account_id=…›") for sentence in finding.text(language)]
