"""Line 1 of a document: exactly the fields of the page's row "header", in its order, each in its
one form. Whatever has a second spelling (a space, an escape, an upper-case digit) is refused.
"""

import base64
import json
import re
from datetime import datetime

STATES = ("staged", "primary", "retired", "disabled", "destroyed")
KINDS = (
    "key-file",
    "recovery",
    "passphrase",
    "vault",
    "aws-kms",
    "azure-key-vault",
    "gcp-kms",
    "pkcs11",
)
KEPT_ENTRIES = 16
HIGHEST = 2**64 - 1
SALT_LENGTH = 16

HEADER = (
    "format",
    "clusterId",
    "clusterName",
    "revision",
    "previous",
    "keyringKeyId",
    "rekeyProofs",
    "merged",
    "policy",
    "keys",
    "slots",
)
REKEY_PROOF = ("from", "to", "revision", "proof")
MERGED = ("sha256", "revision")
DURATIONS = ("rotateEvery", "disabledFor", "snapshotRetention", "removeMemberAfter")
STATE_DATES = ("activated", "retired", "disabled", "destroyed")
SLOT = ("id", "kind", "name", "created", "payload")
KDF = ("name", "salt", "m", "t", "p")


class Refused(Exception):
    """What was read is not what it claims to be. `kind` is for programs, the text for people."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


def canonical(header: dict) -> bytes:
    """The one spelling of a header: no spaces, only the escapes that JSON demands, UTF-8."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def check_header(line: bytes) -> dict:
    """The header of line 1. Refused as `json`, `fields`, `newer`, `value` or `rules`."""
    header = _parse(line)
    _check_format(header)
    _fields(header, "header", HEADER)
    _hex(header["clusterId"], "clusterId", 16)
    _text(header["clusterName"], "clusterName")
    _integer(header["revision"], "revision", 1, HIGHEST)
    _hex(header["previous"], "previous", 32)
    _hex(header["keyringKeyId"], "keyringKeyId", 32)
    for position, proof in enumerate(_kept(header["rekeyProofs"], "rekeyProofs")):
        _check_rekey_proof(proof, f"rekeyProofs[{position}]")
    for position, merged in enumerate(_kept(header["merged"], "merged")):
        _check_merged(merged, f"merged[{position}]")
    _check_policy(header["policy"])
    for position, key in enumerate(_list(header["keys"], "keys")):
        _check_key(key, f"keys[{position}]")
    for position, slot in enumerate(_list(header["slots"], "slots")):
        _check_slot(slot, f"slots[{position}]")
    _check_rules(header)
    return header


def _parse(line: bytes) -> dict:
    try:
        header = json.loads(line.decode("utf-8"), object_pairs_hook=_no_duplicates)
        spelling = canonical(header)
    except (ValueError, RecursionError):
        raise Refused("json", "line 1 is not JSON in UTF-8") from None
    if not isinstance(header, dict):
        raise Refused("json", "line 1 is not a JSON object")
    if spelling != line:
        raise Refused("json", "line 1 is not in its one spelling (spaces, escapes, numbers)")
    return header


def _no_duplicates(pairs: list) -> dict:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Refused("fields", "a field is there twice")
    return dict(pairs)


def _check_format(header: dict) -> None:
    """Before all else: another format may have other fields."""
    if "format" not in header:
        raise Refused("fields", "header: it has no format")
    _integer(header["format"], "format", 1, HIGHEST)
    if header["format"] > 1:
        raise Refused("newer", "the document is of a newer format than this program reads")


def _check_rekey_proof(proof: object, where: str) -> None:
    _fields(proof, where, REKEY_PROOF)
    for name in ("from", "to", "proof"):
        _hex(proof[name], f"{where}.{name}", 32)
    _integer(proof["revision"], f"{where}.revision", 1, HIGHEST)


def _check_merged(merged: object, where: str) -> None:
    _fields(merged, where, MERGED)
    _hex(merged["sha256"], f"{where}.sha256", 32)
    _integer(merged["revision"], f"{where}.revision", 1, HIGHEST)


def _check_policy(policy: object) -> None:
    _fields(policy, "policy", (*DURATIONS, "replicas"))
    for name in DURATIONS:
        _integer(policy[name], f"policy.{name}", 0, HIGHEST)
    for position, replica in enumerate(_list(policy["replicas"], "policy.replicas")):
        _text(replica, f"policy.replicas[{position}]")


def _check_key(key: object, where: str) -> None:
    _fields(key, where, ("id", "state", "created"), STATE_DATES)
    _matches(key["id"], f"{where}.id", "k1-[0-9a-f]{32}")
    _one_of(key["state"], f"{where}.state", STATES)
    for name in ("created", *STATE_DATES):
        if name in key:
            _date(key[name], f"{where}.{name}")


def _check_slot(slot: object, where: str) -> None:
    _fields(slot, where, SLOT, ("kdf",))
    _hex(slot["id"], f"{where}.id", 8)
    _one_of(slot["kind"], f"{where}.kind", KINDS)
    _text(slot["name"], f"{where}.name")
    _date(slot["created"], f"{where}.created")
    base64_bytes(slot["payload"], f"{where}.payload")
    if ("kdf" in slot) != (slot["kind"] == "passphrase"):
        raise Refused("rules", f"{where}: kdf is there for passphrases, and only for them")
    if "kdf" in slot:
        _check_kdf(slot["kdf"], f"{where}.kdf")


def _check_kdf(kdf: object, where: str) -> None:
    """Row "root `passphrase`": what is accepted, so that a forged header cannot ask for more."""
    _fields(kdf, where, KDF)
    _one_of(kdf["name"], f"{where}.name", ("argon2id",))
    if len(base64_bytes(kdf["salt"], f"{where}.salt")) != SALT_LENGTH:
        raise Refused("value", f"{where}.salt: it has not {SALT_LENGTH} bytes")
    _integer(kdf["m"], f"{where}.m", 64 * 1024, 1024 * 1024)
    _integer(kdf["t"], f"{where}.t", 3, 10)
    _integer(kdf["p"], f"{where}.p", 1, 8)


def _check_rules(header: dict) -> None:
    if header["revision"] == 1 and header["previous"] != "0" * 64:
        raise Refused("rules", "revision 1 has a previous document")
    for name in ("keys", "slots"):
        if len({entry["id"] for entry in header[name]}) != len(header[name]):
            raise Refused("rules", f"{name}: an id is there twice")
    if sum(key["state"] == "primary" for key in header["keys"]) > 1:
        raise Refused("rules", "keys: more than one is primary")


def _fields(value: object, where: str, required: tuple, optional: tuple = ()) -> None:
    if not isinstance(value, dict):
        raise Refused("value", f"{where}: it is not an object")
    present = [name for name in (*required, *optional) if name in value]
    if list(value) != present or not set(required) <= set(present):
        raise Refused("fields", f"{where}: its fields are not the ones of the page, in order")


def _list(value: object, where: str) -> list:
    if not isinstance(value, list):
        raise Refused("value", f"{where}: it is not an array")
    return value


def _kept(value: object, where: str) -> list:
    if len(_list(value, where)) > KEPT_ENTRIES:
        raise Refused("rules", f"{where}: it has more than {KEPT_ENTRIES} entries")
    return value


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise Refused("value", f"{where}: it is not a string")


def _integer(value: object, where: str, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:  # a bool is an int to isinstance
        raise Refused("value", f"{where}: it is not an integer from {low} to {high}")


def _one_of(value: object, where: str, known: tuple) -> None:
    if value not in known:
        raise Refused("value", f"{where}: it is none of {', '.join(known)}")


def _matches(value: object, where: str, pattern: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise Refused("value", f"{where}: it is not of the form {pattern}")


def _hex(value: object, where: str, length: int) -> None:
    _matches(value, where, f"[0-9a-f]{{{2 * length}}}")


def _date(value: object, where: str) -> None:
    """RFC 3339, UTC, whole seconds: one spelling of each second."""
    _matches(value, where, "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
    try:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise Refused("value", f"{where}: there is no such date") from None


def base64_bytes(value: object, where: str) -> bytes:
    """Padded standard base64, in its one spelling."""
    try:
        decoded = base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise Refused("value", f"{where}: it is not base64") from None
    if base64.b64encode(decoded).decode("ascii") != value:
        raise Refused("value", f"{where}: it is not padded standard base64 in its one spelling")
    return decoded
