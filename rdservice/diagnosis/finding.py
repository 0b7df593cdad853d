"""One conclusion of the diagnosis: what it is called, how serious it is, and in which words it is told."""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from rdservice.diagnosis import guide, words_en, words_pt
from rdservice.diagnosis.guide import Action, Who
from rdservice.diagnosis.words_en import Words
from rdservice.settings_problems import Problem
from rdservice.text import settings_problems

Severity = Literal["error", "warning", "info"]
"""`error`: leads stop, or will within a day, until somebody acts; `warning`: look at it; `info`: passes by itself."""
Language = Literal["en", "pt-BR"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One conclusion. `variant` chooses among the sentences for a code, `values` fill them."""

    code: str
    severity: Severity
    account_id: str | None = None
    variant: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    """The mistake in the settings that this is about."""
    follows_from: str | None = None
    """The code of the finding whose consequence this is: it goes when that one is mended. None for a cause."""

    @property
    def words(self) -> str:
        """The name of this finding's sentences in `words_en.WORDS`, `words_pt.WORDS` and `guide.GUIDE`."""
        return self.code if self.variant is None else f"{self.code}/{self.variant}"

    @property
    def who(self) -> Who:
        """Who must act. Nobody acts on a consequence, but on its cause."""
        return "nobody" if self.follows_from else guide.GUIDE[self.words].who

    @property
    def action(self) -> Action:
        """What helps on the pages of this service. For a consequence it is its cause that must be mended first."""
        return "none" if self.follows_from else guide.GUIDE[self.words].action

    def text(self, language: Language) -> Words:
        """Return the sentences, filled."""
        words = (words_pt if language == "pt-BR" else words_en).WORDS[self.words]
        values = {**self.values, "account": self.account_id or "", "login": self._login_path}
        if self.problem is not None:
            values["variable"] = self.problem.variable or ""
            values["what"] = settings_problems.sentence(language, self.problem)
            values["example"] = settings_problems.example(language, self.problem)
        return Words(*(sentence.format_map(values) for sentence in words))

    @property
    def _login_path(self) -> str:
        return f"/rd/login?account_id={quote(self.account_id or '', safe='')}"


def duration(seconds: float) -> str:
    """Return a duration in the two largest units that it has, which read the same in both languages."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
