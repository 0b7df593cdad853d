"""The pictures of the documents: small files, of the colours that they were taken in."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from dev.screenshots.pictures import save
from tests.support.documents import LANGUAGES, ROOT, read

LARGEST = 80_000


def test_a_picture_has_a_palette_with_the_colours_of_its_page(tmp_path: Path) -> None:
    page, line = (250, 251, 252), (208, 215, 222)
    taken = Image.new("RGB", (400, 300), page)
    taken.paste(line, (0, 100, 400, 110))
    # More colours than a palette holds, as the edges of letters have them.
    for number in range(1000):
        taken.putpixel((number % 400, 200 + number // 400), (number % 256, number // 4, 90))
    png = io.BytesIO()
    taken.save(png, "PNG")
    save(png.getvalue(), tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as saved:
        assert saved.mode == "P"
        colours = saved.convert("RGB")
    assert (colours.getpixel((5, 5)), colours.getpixel((5, 105))) == (page, line)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_documents_of_a_language_show_each_of_its_pictures_and_they_are_small(language: str) -> None:
    folder = ROOT / "docs" / language
    shown = {
        (file.parent / link).resolve()
        for file in folder.rglob("*.md")
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", read(file))
    }
    files = set((folder / "pictures").iterdir())
    assert len(files) > 5
    assert shown == files
    assert max(file.stat().st_size for file in files) <= LARGEST
