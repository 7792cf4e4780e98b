"""How a sound document, `two_keys_and_a_tombstone`, is made faulty in one point.

Where the defect is not the seal itself, the body is sealed over line 1 exactly as it stands, so
that nothing else can be the reason: a decoder that is lax in that one point accepts the file.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import claviger_format as claviger
from vector_values import KEYRING_KEY, LIVE_KEKS, header, nonce


class Invalid(NamedTuple):
    name: str
    kind: str  # of the refusal
    reason: str
    data: bytes
    sealed: bool  # whether line 2 opens with line 1 as it stands


def over_line(name: str, kind: str, reason: str, line: bytes, keks: list[bytes] = LIVE_KEKS):
    """Sealed over a faulty line 1."""
    data = claviger.seal_document(line, keks, KEYRING_KEY, nonce(f"body of {name}"))
    return Invalid(name, kind, reason, data, True)


def over_header(name: str, kind: str, reason: str, keks: list[bytes] = LIVE_KEKS, **changed):
    """Sealed over a header with other values."""
    return over_line(name, kind, reason, claviger.canonical(header(**changed)), keks)


def over_change(name: str, kind: str, reason: str, change: Callable[[dict], None]):
    """Sealed over a header that `change` changed in place."""
    head = copy.deepcopy(header())
    change(head)
    return over_line(name, kind, reason, claviger.canonical(head))


def over_text(name: str, kind: str, reason: str, old: str, new: str):
    """Sealed over a line 1 in which one piece of text was replaced."""
    line = sound_line().decode()
    assert line.count(old) == 1, (name, line.count(old))
    return over_line(name, kind, reason, line.replace(old, new).encode())


def sound_line() -> bytes:
    return claviger.canonical(header())


def sound_document(name: str) -> bytes:
    return claviger.encode_document(header(), LIVE_KEKS, KEYRING_KEY, nonce(f"body of {name}"))
