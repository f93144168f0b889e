"""Draws pictures of one colour as PNG, which is enough to see that an image came, and which one."""

from __future__ import annotations

import hashlib
import struct
import zlib
from functools import lru_cache


@lru_cache(maxsize=64)
def draw(width: int, height: int, about: str) -> bytes:
    """Return a PNG file (W3C, third edition) of a colour that depends on the text *about*."""
    colour = hashlib.blake2b(about.encode("utf-8", "surrogatepass"), digest_size=3).digest()
    rows = (b"\0" + bytes((width + 7) // 8)) * height  # one bit for each point, all of the palette's first colour
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
        (b"PLTE", colour),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def is_picture(content: bytes) -> bool:
    """Whether a file begins as PNG, JPEG or WebP do."""
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (
        content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    )
