"""The pictures to take: page, size, language, colour scheme and file name."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser

Language = Literal["en", "pt-BR"]

LANGUAGES: dict[Language, str] = {"en": "en-US", "pt-BR": "pt-BR"}
"""The pages' languages with the browser's."""
ZONE = "America/Sao_Paulo"
DESKTOP = (1120, 760)
PHONE = (390, 844)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of a page. `size`: width and height of the window in pixels."""

    name: str
    path: str
    size: tuple[int, int] = DESKTOP
    dark: bool = False
    below: str = ""
    """A CSS selector: the page is scrolled to this element."""

    def file_name(self, language: Language) -> str:
        """Return the path of its file in the folder of the documents."""
        return f"{language}/pictures/{self.name}.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The operator who looks at the pages."""

    email: str
    password: str = field(repr=False)


class Photographer:
    """Takes pictures of the service at `url` into `folder`."""

    def __init__(self, browser: Browser, url: str, operator: Operator, folder: Path) -> None:
        self._browser = browser
        self._url = url
        self._operator = operator
        self._folder = folder

    def take(self, *pictures: Picture) -> None:
        """Take these, each in both languages."""
        for picture in pictures:
            for language in LANGUAGES:
                self._take(picture, language)

    def _take(self, picture: Picture, language: Language) -> None:
        width, height = picture.size
        with self._browser.new_context(
            locale=LANGUAGES[language],
            timezone_id=ZONE,
            color_scheme="dark" if picture.dark else "light",
            reduced_motion="reduce",
            viewport={"width": width, "height": height},
        ) as context:
            page = context.new_page()
            page.goto(f"{self._url}/login")
            page.locator("[name=email]").fill(self._operator.email)
            page.locator("[name=password]").fill(self._operator.password)
            page.locator("main form button").click()
            page.wait_for_url(lambda url: not url.endswith("/login"))
            page.goto(self._url + picture.path)
            if picture.below:
                page.locator(picture.below).first.evaluate("place => place.scrollIntoView()")
            # Hides the blinking caret and the focus ring.
            page.evaluate("document.activeElement.blur()")
            taken = page.screenshot(animations="disabled", caret="hide")
        file = self._folder / picture.file_name(language)
        file.parent.mkdir(parents=True, exist_ok=True)
        save(taken, file)


def save(taken: bytes, file: Path) -> None:
    """Write a screenshot as a PNG file with 256 colours, enough for pages of text."""
    with Image.open(io.BytesIO(taken)) as image:
        image.convert("RGB").quantize(dither=Image.Dither.NONE).save(file, optimize=True)
