"""Sizes of the same bytes under general compressors at their strongest usual settings."""

from __future__ import annotations

import gzip
import lzma

NAMES = {"gzip": "gzip -9", "xz": "xz -9e", "zstd": "zstd -19"}


def sizes(content: bytes) -> dict[str, int]:
    """Bytes by name: gzip, xz and zstd, each with its own file header."""
    import zstandard

    return {
        "gzip": len(gzip.compress(content, 9, mtime=0)),
        "xz": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        "zstd": len(zstandard.ZstdCompressor(level=19).compress(content)),
    }
