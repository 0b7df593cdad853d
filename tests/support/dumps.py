"""Dumps of a database, and a search in them for what must not be there, in whatever form."""

import base64
import binascii
import contextlib
import hashlib
import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import psycopg
import pytest
from psycopg import sql

from scripts.local import postgres_binaries

HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
COMPRESSED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
ESCAPED = re.compile(rb"\\+u([0-9a-fA-F]{4})")
HASHES = ("md5", "sha1", "sha256", "sha512", "blake2b")
HASH_BYTES = 8
"""Beginnings of hashes are searched, so that cut-off ones are found too."""
DEPTH = 2
"""How many coatings are taken off: base64 of a compressed text has two."""


def dumps_of(database_url: str, programs: Path | None) -> Iterator[bytes]:
    """Yield dumps of the database: what pg_dump makes, with statistics where it can, and COPY of every table.

    Skips the test where PostgreSQL's folder `programs` (None: the wheel's) has no pg_dump.
    """
    folder = programs or postgres_binaries.wheel_binaries()
    program = folder / "pg_dump"
    if not program.exists():
        pytest.skip(f"there is no pg_dump in {folder}")
    environment = postgres_binaries.environment(folder)
    offered = subprocess.run([program, "--help"], env=environment, capture_output=True, check=True).stdout
    more = ["--statistics"] if b"--statistics " in offered else []
    done = subprocess.run(
        [program, f"--dbname={database_url}", *more], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    yield done.stdout
    with psycopg.connect(database_url) as conn:
        yield b"".join(content for _, content in copies_of(conn))
        # What the planner knows of the columns, which PostgreSQL 18 puts into a dump on request.
        yield repr(conn.execute("SELECT * FROM pg_stats WHERE schemaname = 'public'").fetchall()).encode()


def copies_of(conn: psycopg.Connection[Any]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every table."""
    tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    for (name,) in tables.fetchall():
        statement = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(name))
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            yield name, b"".join(bytes(part) for part in copy)


def found_in(dump: bytes, values: dict[str, str], *, guessable: dict[str, str] | None = None) -> set[str]:
    """Return the names of the values that `dump` holds: as they are, encoded, compressed, in another case or reversed.

    Values that are `guessable` are searched by their plain hashes as well: who can guess them can test them so.
    """
    guessable = guessable or {}
    needles = {name: _spellings(value) for name, value in (values | guessable).items()}
    digests = {name: set(_digests(value)) for name, value in guessable.items()}
    found = set()
    for view in _views(dump, DEPTH):
        lowered = view.lower()
        found |= {name for name, spellings in needles.items() if any(text in lowered for text in spellings)}
        found |= {
            name
            for name, ends in digests.items()
            if any(digest in view or digest.hex().encode() in lowered for digest in ends)
        }
    return found


def _spellings(value: str) -> set[bytes]:
    lowered = value.encode().lower()
    return {lowered, lowered[::-1], value.lower().encode()}


def _digests(value: str) -> Iterator[bytes]:
    for text in {value, value.lower(), value.upper(), re.sub(r"\D", "", value) or value}:
        for name in HASHES:
            yield hashlib.new(name, text.encode()).digest()[:HASH_BYTES]


def _views(data: bytes, depth: int) -> Iterator[bytes]:
    """Yield `data` and what comes out of it when encodings and compressions are undone."""
    yield data
    if depth == 0:
        return
    for inner in (_unescaped(data), _unhexed(data), *_unbased(data), _inflated(data)):
        if inner:
            yield from _views(inner, depth - 1)


def _unescaped(data: bytes) -> bytes:
    """Undo percent-encoding, and the escapes of JSON and COPY."""
    plain = ESCAPED.sub(lambda match: chr(int(match[1], 16)).encode("utf-8", "surrogatepass"), data)
    plain = re.sub(rb'\\+(["/\\])', rb"\1", plain)
    return unquote_to_bytes(plain.replace(b"+", b" ")) + b"\n" + unquote_to_bytes(plain)


def _unhexed(data: bytes) -> bytes:
    return b"\n".join(
        binascii.unhexlify(run[start : len(run) - (len(run) - start) % 2])
        for run in HEX.findall(data)
        for start in (0, 1)
    )


def _unbased(data: bytes) -> Iterator[bytes]:
    """Undo base64 of both alphabets, whatever stands directly in front of it."""
    for start in range(4):
        parts = []
        for run in BASE64.findall(data):
            text = run[start:].replace(b"-", b"+").replace(b"_", b"/")
            whole = text[: len(text) - (len(text) % 4 == 1)]
            parts.append(binascii.a2b_base64(whole + b"=" * (-len(whole) % 4)))
        yield b"\n".join(parts)


def _inflated(data: bytes) -> bytes:
    parts = []
    for match in COMPRESSED.finditer(data):
        # 32: zlib or gzip, by its header.
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        with contextlib.suppress(zlib.error):
            parts.append(inflate.decompress(data[match.start() :], 1_000_000))
    return b"\n".join(parts)


def hidings(value: str) -> dict[str, bytes]:
    """Return forms in which somebody might store `value` and think it safe."""
    plain = value.encode()
    return {
        "plain": plain,
        "upper case": plain.upper(),
        "swapped case": value.swapcase().encode(),
        "reversed": plain[::-1],
        "hex": plain.hex().encode(),
        "hex in upper case": plain.hex().upper().encode(),
        "base64": base64.b64encode(plain),
        "base64, one byte further": base64.b64encode(b"x" + plain + b"yy"),
        "base64, two bytes further": base64.urlsafe_b64encode(b"xx" + plain + b"y"),
        "base64 behind a letter": b"k" + base64.b64encode(plain),
        "percent-encoded": "".join(f"%{byte:02X}" for byte in plain).encode(),
        "JSON escapes": "".join(f"\\u{ord(char):04x}" for char in value).encode(),
        "zlib": zlib.compress(b"some text around " + plain + b" it"),
        "gzip": zlib.compress(plain, wbits=zlib.MAX_WBITS | 16),
        "base64 of zlib": base64.b64encode(zlib.compress(plain)),
        "hex of base64": base64.b64encode(plain).hex().encode(),
    }


def hashes(value: str) -> dict[str, bytes]:
    """Return plain hashes of `value`, as texts and as bytes."""
    found: dict[str, bytes] = {}
    for name in HASHES:
        digest = hashlib.new(name, value.encode())
        found |= {f"{name} in hex": digest.hexdigest().encode(), f"{name} as bytes": digest.digest()}
    return found | {"sha256, cut off": hashlib.sha256(value.encode()).hexdigest()[:16].encode()}
