"""One conclusion of the diagnosis: what it is called, how serious it is, and in which words it is told."""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from rdservice.config.problems import Problem
from rdservice.diagnosis.findings import guide
from rdservice.diagnosis.findings.guide import Action, Who
from rdservice.diagnosis.findings.words import WORDS
from rdservice.diagnosis.sentences import NO_LONGER_WORKS, STILL_WORKS, Words
from rdservice.text import settings_problems
from rdservice.text.catalogue import Language, Plural, translated, translated_plural

Severity = Literal["error", "warning", "info"]
"""`error`: leads stop, or will within a day, until somebody acts; `warning`: look at it; `info`: resolves itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One conclusion. `variant` chooses among the sentences for a code, `values` fill them.

    The value `count` chooses the form of a plural, `kinds` (the errors behind it) is for `reference`, and `left` says
    for how long the account's access token still works, empty when it has expired.
    """

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
        """The name of this finding's sentences in `words_en.WORDS` and `guide.GUIDE`."""
        return self.code if self.variant is None else f"{self.code}/{self.variant}"

    @property
    def who(self) -> Who:
        """Who must act. Nobody acts on a consequence, but on its cause."""
        return "nobody" if self.follows_from else guide.GUIDE[self.words].who

    @property
    def action(self) -> Action:
        """What helps on the pages of this service. For a consequence it is its cause that must be mended first."""
        return "none" if self.follows_from else guide.GUIDE[self.words].action

    @property
    def reference(self) -> str:
        """The small print: the code, and the errors behind it where there are any."""
        kinds = self.values.get("kinds")
        return f"{self.code}: {kinds}" if kinds else self.code

    def text(self, language: Language) -> Words:
        """Return the sentences, filled."""
        seen, meaning, todo = WORDS[self.words]
        if "left" in self.values:
            meaning = [*meaning, STILL_WORKS if self.values["left"] else NO_LONGER_WORKS]
        return Words(*(self._told(part, language) for part in (seen, meaning, todo)))

    def advice(self, language: Language) -> str:
        """Return what it means and what to do, for a place where it can be seen already."""
        _, meaning, todo = WORDS[self.words]
        return f"{self._told(meaning, language)} {self._told(todo, language)}"

    def _told(self, sentences: list[str | Plural], language: Language) -> str:
        values = {**self.values, "account": self.account_id or "", "login": self._login_path}
        if self.problem is not None:
            values["variable"] = self.problem.variable or ""
            values["what"] = settings_problems.sentence(language, self.problem)
            values["example"] = settings_problems.example(language, self.problem)
        return " ".join(
            translated(language, sentence, **values)
            if isinstance(sentence, str)
            # "100+" where not all were counted.
            else translated_plural(language, *sentence, int(values["count"].rstrip("+")), **values)
            for sentence in sentences
        )

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
