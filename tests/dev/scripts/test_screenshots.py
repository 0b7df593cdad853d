"""The pictures of the READMEs: small files, of exactly the colours that they were taken in."""

import struct
import zlib

import pytest

from dev.screenshots.pictures import LANGUAGES
from dev.screenshots.png import SIGNATURE, with_palette
from tests.support.documents import ROOT, read

RED, GREEN, BLUE, WHITE = b"\xff\0\0", b"\0\xff\0", b"\0\0\xff", b"\xff\xff\xff"
PICTURES = ROOT / "docs" / "screenshots"
LARGEST = 80_000


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, lines: list[bytes], *, colours: int = 2) -> bytes:
    """A picture of lines that begin with the number of their filter."""
    header = struct.pack(">IIBBBBB", width, len(lines), 8, colours, 0, 0, 0)
    data = zlib.compress(b"".join(lines))
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunks(picture: bytes) -> dict[bytes, bytes]:
    found, at = {}, len(SIGNATURE)
    while at < len(picture):
        (size,) = struct.unpack_from(">I", picture, at)
        kind, body = picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]
        assert picture[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(kind + body))
        found[kind] = body
        at += size + 12
    return found


def colours_of(picture: bytes) -> list[list[bytes]]:
    """The colour of each pixel, row by row, of a picture with a palette."""
    parts = chunks(picture)
    width, height, depth, kind = struct.unpack_from(">IIBB", parts[b"IHDR"])
    assert (depth, kind) == (8, 3)
    lines = zlib.decompress(parts[b"IDAT"])
    palette = [parts[b"PLTE"][at : at + 3] for at in range(0, len(parts[b"PLTE"]), 3)]
    rows = [lines[at : at + width + 1] for at in range(0, height * (width + 1), width + 1)]
    assert {row[0] for row in rows} == {0}
    return [[palette[place] for place in row[1:]] for row in rows]


def subtracted(row: bytes, other: bytes) -> bytes:
    return bytes((one - two) % 256 for one, two in zip(row, other, strict=True))


@pytest.mark.parametrize("number", range(5))
def test_whatever_filter_a_line_came_with_its_colours_stay(number: int) -> None:
    above, below = RED + GREEN + BLUE, WHITE + RED + GREEN
    left, corner = bytes(3) + below[:-3], bytes(3) + above[:-3]
    average = bytes((one + two) // 2 for one, two in zip(left, above, strict=True))
    # Of these pixels the predictor of Paeth is what stands above, left, and left of that.
    paeth = above[:3] + bytes(
        min((a, b, c), key=lambda value: abs(a + b - c - value))
        for a, b, c in zip(left[3:], above[3:], corner[3:], strict=True)
    )
    predicted = [bytes(9), left, above, average, paeth][number]
    taken = png(3, [b"\0" + above, bytes([number]) + subtracted(below, predicted)])
    assert colours_of(with_palette(taken)) == [[RED, GREEN, BLUE], [WHITE, RED, GREEN]]


def test_a_colour_too_many_becomes_the_nearest_of_the_frequent_ones() -> None:
    frequent = [bytes([number, 0, 0]) for number in range(256)]
    rare = b"\x80\x01\0"
    line = b"\0" + b"".join(frequent) + frequent[0]
    rows = colours_of(with_palette(png(257, [line, line[:-3] + rare])))
    assert rows[0] == [*frequent, frequent[0]]
    assert rows[1] == [*frequent, frequent[0x80]]


def test_a_picture_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="colour type 6"):
        with_palette(png(1, [b"\0" + RED + b"\xff"], colours=6))


@pytest.mark.parametrize(("language", "readme"), [("en", "README.md"), ("pt-BR", "README.pt-BR.md")])
def test_the_readme_of_a_language_shows_each_of_its_pictures_and_they_are_small(
    language: str, readme: str
) -> None:
    assert language in LANGUAGES
    files = sorted(PICTURES.glob(f"*.{language}.png"))
    assert files
    for file in files:
        assert f"](docs/screenshots/{file.name})" in read(readme)
        assert file.stat().st_size <= LARGEST, file.name
