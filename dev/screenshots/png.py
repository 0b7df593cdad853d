"""PNG files with a palette instead of three bytes a pixel, which pages of text do not need.

The format: https://www.w3.org/TR/png-3/.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_COLOURS = 256


def with_palette(png: bytes) -> bytes:
    """Return the picture with its 256 most frequent colours, and the nearest of them in place of any other.

    `png`: 8 bits of red, green and blue, as Chromium writes them. Raises ValueError for any other kind.
    """
    width, height, rows = _rows(png)
    counts = Counter(pixel for row in rows for pixel in _pixels(row))
    palette = [colour for colour, _ in counts.most_common(MOST_COLOURS)]
    places = {colour: place for place, colour in enumerate(palette)}
    for colour in counts.keys() - places.keys():
        places[colour] = places[min(palette, key=lambda other: _distance(colour, other))]
    # Filter 0 for each row: neighbouring numbers of a palette have nothing in common.
    lines = b"".join(b"\0" + bytes(places[pixel] for pixel in _pixels(row)) for row in rows)
    return b"".join(
        [
            SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", b"".join(palette)),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _pixels(row: bytes) -> Iterator[bytes]:
    return (row[at : at + 3] for at in range(0, len(row), 3))


def _distance(colour: bytes, other: bytes) -> int:
    return sum((one - two) ** 2 for one, two in zip(colour, other, strict=True))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _rows(png: bytes) -> tuple[int, int, list[bytes]]:
    """Return width, height and the rows without their filters."""
    header, data = b"", b""
    at = len(SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            data += body
        at += size + 12
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if (depth, interlaced) != (8, 0) or colours != 2:
        raise ValueError(f"not 8 bits of red, green and blue: {depth} bits, colour type {colours}")
    packed = zlib.decompress(data)
    length = width * 3
    rows: list[bytes] = []
    before = bytearray(length)
    for start in range(0, height * (length + 1), length + 1):
        before = _unfiltered(packed[start], bytearray(packed[start + 1 : start + 1 + length]), before)
        rows.append(bytes(before))
    return width, height, rows


def _unfiltered(kind: int, row: bytearray, above: bytearray) -> bytearray:
    for at in range(len(row)):
        left = row[at - 3] if at >= 3 else 0
        corner = above[at - 3] if at >= 3 else 0
        match kind:
            case 0:
                break
            case 1:
                add = left
            case 2:
                add = above[at]
            case 3:
                add = (left + above[at]) // 2
            case _:
                add = _paeth(left, above[at], corner)
        row[at] = (row[at] + add) & 255
    return row


def _paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    # Where two are as near, the order of the three decides.
    return min((left, above, corner), key=lambda value: abs(estimate - value))
