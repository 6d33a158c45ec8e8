"""SHA-256 of what is stored, and the seal of a Parquet part: its own digest inside it, so that whoever reads it can check it.

A seal is the 32 bytes of the SHA-256 of the Parquet file, put in front of the file's footer. Parquet readers find pages by
offsets from the start and the footer from the end, so they never see it; page indexes lie in the same gap. A part is
checked without its commit: also between two stages, or where a killed attempt left it and the next one takes it over.
SHA-256 and not the page checksums of Parquet: those are CRC-32, do not cover the footer, and cost as much.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.store import Store

SEAL_BYTES = 32
TAIL_BYTES = 8
"""The end of a Parquet file: the footer's length, little-endian in 4 bytes, and "PAR1"."""


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def described(data: bytes) -> dict[str, Any]:
    """An object as commits and manifests list it."""
    return {"bytes": len(data), "sha256": sha256(data)}


def read_checked(store: Store, path: str, digest: str) -> bytes:
    """An object with this SHA-256, fetched once more where it was damaged on the way. Raises DamagedObject."""
    for _ in range(2):
        try:
            data = store.read_bytes(path)
        except ArtifactError as error:
            raise DamagedObject.at(store.url(path), f"{error}; `hardmine run` makes it anew") from error
        if sha256(data) == digest:
            return data
    raise DamagedObject.at(
        store.url(path),
        f"{store.url(path)} does not have the SHA-256 that was committed, read twice; it was changed or damaged after "
        f"hardmine wrote it and is not loaded. Restore it, or let `hardmine run` make it anew",
    )


def record_digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value; the order of a mapping's keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def seal(parquet: bytes) -> tuple[bytes, str]:
    """(the file with its seal, the digest as hexadecimal)."""
    digest = hashlib.sha256(parquet)
    at = _footer(parquet)
    view = memoryview(parquet)
    return b"".join([view[:at], digest.digest(), view[at:]]), digest.hexdigest()


def seal_of(data: bytes) -> str | None:
    """The digest of a sealed file, hexadecimal; None: the file is not what it was when it was sealed."""
    at = _footer(data) - SEAL_BYTES
    if at < 0 or data[-4:] != b"PAR1":
        return None
    view = memoryview(data)
    digest = hashlib.sha256(view[:at])
    digest.update(view[at + SEAL_BYTES :])
    return digest.hexdigest() if digest.digest() == view[at : at + SEAL_BYTES] else None


def _footer(data: bytes) -> int:
    """Where the footer of a Parquet file starts; negative where that cannot be."""
    return len(data) - TAIL_BYTES - int.from_bytes(data[-TAIL_BYTES:-4], "little")
