"""One finding of the diagnosis: its code, its severity and its sentences."""

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
"""`error`: leads stop now or within a day unless a person acts; `warning`: look at it; `info`: resolves itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding. `variant` selects among the sentences of a code; `values` fill their placeholders.

    The value `count` selects the plural form, `kinds` lists error kinds for `reference`, and `left` is the remaining
    lifetime of the account's access token, empty when it has expired.
    """

    code: str
    severity: Severity
    account_id: str | None = None
    variant: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    """The settings problem that this finding reports."""
    follows_from: str | None = None
    """The code of the finding that causes this one, and whose solution resolves it. None for a cause."""

    @property
    def words(self) -> str:
        """The key of this finding in `words.WORDS` and `guide.GUIDE`."""
        return self.code if self.variant is None else f"{self.code}/{self.variant}"

    @property
    def who(self) -> Who:
        """Who must act. `nobody` for a consequence: act on its cause."""
        return "nobody" if self.follows_from else guide.GUIDE[self.words].who

    @property
    def action(self) -> Action:
        """The button of the pages that helps. `none` for a consequence: fix its cause first."""
        return "none" if self.follows_from else guide.GUIDE[self.words].action

    @property
    def reference(self) -> str:
        """The small print: the code, and the error kinds if there are any."""
        kinds = self.values.get("kinds")
        return f"{self.code}: {kinds}" if kinds else self.code

    def text(self, language: Language) -> Words:
        """Return the sentences in `language`, with placeholders filled."""
        seen, meaning, todo = WORDS[self.words]
        if "left" in self.values:
            meaning = [*meaning, STILL_WORKS if self.values["left"] else NO_LONGER_WORKS]
        return Words(*(self._filled(part, language) for part in (seen, meaning, todo)))

    def advice(self, language: Language) -> str:
        """Return what it means and what to do, for a place that shows the rest already."""
        _, meaning, todo = WORDS[self.words]
        return f"{self._filled(meaning, language)} {self._filled(todo, language)}"

    def _filled(self, sentences: list[str | Plural], language: Language) -> str:
        values = {**self.values, "account": self.account_id or "", "login": self._login_path}
        if self.problem is not None:
            values["variable"] = self.problem.variable or ""
            values["what"] = settings_problems.sentence(language, self.problem)
            values["example"] = settings_problems.example(language, self.problem)
        return " ".join(
            translated(language, sentence, **values)
            if isinstance(sentence, str)
            # The count is "100+" when there are more.
            else translated_plural(language, *sentence, int(values["count"].rstrip("+")), **values)
            for sentence in sentences
        )

    @property
    def _login_path(self) -> str:
        return f"/rd/login?account_id={quote(self.account_id or '', safe='')}"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as `2 h 5 min`, which read the same in both languages."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
