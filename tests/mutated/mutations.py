"""Random damage to bytes and to text: bit flips, truncations, swapped and repeated parts, values of other kinds."""

from __future__ import annotations

import random
import re

_VALUES = (
    "-1", "0", "1", "1e999", "-1e999", "nan", "NaN", ".inf", "null", "~", "true", '""', "''", "[]", "{}", "[1, 2]",
    "99999999999999999999", "9223372036854775807", "4294967296", "0.5", "1e-3", '"\\ud800"', "é", "../../x",
    "/dev/zero", "!!python/object/apply:os.system ['true']", "&a [*a]", "*b", "!!binary x", "[" * 2000, "2001-01-01",
    '{"a": {"a": {"a": 1}}}', "float32", "w2a2", "\x00", "A" * 5000,
)  # fmt: skip
_WORD = re.compile(r'"[^"\n]*"|[-+\w.]+')


def damaged(data: bytes, rng: random.Random, *, text: bool = False, head: int | None = None) -> bytes:
    """Returns `data` with one to three changes.

    Args:
        text: Whether words are exchanged as well.
        head: How many of the first bytes are changed most of the time; None is all.
    """
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.choice(_TEXT_CHANGES if text else _CHANGES)
        size = len(data) if head is None or rng.random() < 0.2 else min(head, len(data))
        data = change(data, size, rng)
    return data


def _flip_bits(data: bytes, size: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 16)) if size else 0):
        changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_bytes(data: bytes, size: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8)) if size else 0):
        changed[rng.randrange(size)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def _truncate(data: bytes, size: int, rng: random.Random) -> bytes:
    return data[: rng.randrange(size + 1)]


def _cut(data: bytes, size: int, rng: random.Random) -> bytes:
    start = rng.randrange(size + 1)
    return data[:start] + data[start + rng.choice((1, 4, 64, 1000)) :]


def _repeat(data: bytes, size: int, rng: random.Random) -> bytes:
    start, length = rng.randrange(size + 1), rng.choice((1, 8, 100))
    return data[: start + length] + data[start:]


def _swap(data: bytes, size: int, rng: random.Random) -> bytes:
    length = rng.choice((1, 4, 8, 32))
    if size < 2 * length:
        return data
    first = rng.randrange(size - 2 * length + 1)
    second = rng.randrange(first + length, size - length + 1)
    one, two = data[first : first + length], data[second : second + length]
    return data[:first] + two + data[first + length : second] + one + data[second + length :]


def _change_word(data: bytes, size: int, rng: random.Random) -> bytes:
    text = data.decode("utf-8", errors="surrogateescape")
    words = list(_WORD.finditer(text[:size]))
    if not words:
        return data
    word, other = rng.choice(words), rng.choice(words).group()
    new = rng.choice((rng.choice(_VALUES), rng.choice(_VALUES), other))
    return (text[: word.start()] + new + text[word.end() :]).encode("utf-8", errors="surrogateescape")


_CHANGES = (_flip_bits, _set_bytes, _truncate, _cut, _repeat, _swap)
_TEXT_CHANGES = (*_CHANGES, *(_change_word,) * 8)
