"""Generates the document of findings from their own sentences, so that it says the same as pages and terminal."""

from rdservice.diagnosis.findings.guide import GUIDE
from rdservice.diagnosis.findings.verdict import ORDER
from rdservice.diagnosis.findings.words import WORDS
from rdservice.diagnosis.report import summary
from rdservice.text.catalogue import Language, Plural, message, translated, translated_plural

BUTTONS = {
    "connect": message("“Connect again”"),
    "refresh": message("“Refresh now”"),
    "upload": message("uploading tokens"),
}
PLACES = {
    "account": message("account"),
    "ago": message("how long"),
    "answer": message("answer"),
    "api_url": "RDSTATION_API_URL",
    "aud": message("other API"),
    "count": message("number"),
    "error": message("error"),
    "example": message("example"),
    "left": message("how long"),
    "login": "/rd/login?account_id=…",
    "migrations": message("names"),
    "needed": message("key id"),
    "operation": message("request"),
    "reason": message("reason"),
    "required": message("scope"),
    "scope": message("scope"),
    "silence": message("how long"),
    "skew": message("how much"),
    "there": message("key ids"),
    "uri": "RDSTATION_REDIRECT_URI",
    "variable": message("setting"),
    "wait": message("how long"),
    "what": message("what is wrong with a setting"),
}
"""Placeholders for the values of a finding."""


def findings(language: Language) -> list[str]:
    """Return a section for each finding, in the order in which the diagnosis shows them."""
    return [line for code in ORDER for line in _section(code, language)][:-1]


def _section(code: str, language: Language) -> list[str]:
    def label(name: str) -> str:
        return summary.label(language, name)

    lines = [f"### `{code}`", ""]
    for name in (name for name in WORDS if name.split("/")[0] == code):
        seen, meaning, todo = (_told(sentences, language) for sentences in WORDS[name])
        who, action = GUIDE[name]
        helps = "" if action == "none" else " " + translated(language, "Helps on the page:")
        lines += [
            f"**{seen}**",
            "",
            f"- {label('meaning')}: {meaning}",
            f"- {label('todo')}: {todo}",
            f"- {label('who')}: {label(who)}."
            + (f"{helps} {translated(language, BUTTONS[action])}." if helps else ""),
            "",
        ]
    return lines


def _told(sentences: list[str | Plural], language: Language) -> str:
    """Return sentences, in the plural if they have one, with names in place of values."""
    names = {name: f"‹{translated(language, place)}›" for name, place in PLACES.items()}
    return " ".join(
        translated(language, sentence, **names)
        if isinstance(sentence, str)
        else translated_plural(language, *sentence, 2, **names)
        for sentence in sentences
    )
