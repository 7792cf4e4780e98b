"""The values that all vectors share. Every key is an obvious test value and counts upwards; only
nonces and previous hashes look random, and they are hashes of a name."""

import base64
import hashlib

import claviger_format as claviger


def counting(start: int, length: int = 32) -> bytes:
    return bytes((start + i) % 256 for i in range(length))


def nonce(name: str) -> bytes:
    return hashlib.sha256(b"claviger test vector, nonce of " + name.encode()).digest()[:24]


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit flipped; bit 0 is the lowest bit of the first byte, -1 the highest of
    the last."""
    bit %= 8 * len(data)
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


KEK_A, KEK_B, KEK_C, KEK_D = (counting(start) for start in (0x00, 0x20, 0x40, 0x60))
DESTROYED_KEK, ABORTED_KEK = counting(0x01), counting(0x02)
KEYRING_KEY = counting(0x80)
OLD_KEYRING_KEY, OLDER_KEYRING_KEY = counting(0x81), counting(0x82)
ROOT_KEY, OTHER_ROOT_KEY = counting(0xC0), counting(0xC1)
RECOVERY_KEY = counting(0xE0)
PASSPHRASE = "correct horse battery staple"
SALT = counting(0x50, 16)
KDF = {
    "name": "argon2id",
    "salt": base64.b64encode(SALT).decode(),
    "m": 65536,
    "t": 3,
    "p": 4,
}

CLUSTER, OTHER_CLUSTER = counting(0xB0, 16), counting(0xB1, 16)
SLOT, OTHER_SLOT = counting(0x70, 8), counting(0x78, 8)


def slot(kind: str, wrapping_key: bytes, **changed) -> dict:
    """One slot of a header. `changed`: name, id, keyring_key and the keyring_key_id it states."""
    name = changed.get("name", kind)
    slot_id = changed.get("id", SLOT)
    keyring_key = changed.get("keyring_key", KEYRING_KEY)
    stated = changed.get("keyring_key_id", claviger.keyring_key_id(keyring_key))
    statement = claviger.slot_statement(CLUSTER, slot_id, kind, stated)
    payload = claviger.wrap_keyring_key(
        wrapping_key, statement, nonce(f"slot {kind} {slot_id.hex()}"), keyring_key
    )
    return {
        "id": slot_id.hex(),
        "kind": kind,
        "name": name,
        "created": "2026-11-23T10:00:00Z",
        "payload": base64.b64encode(payload).decode(),
    }


def key_file_slot(**changed) -> dict:
    wrapping_key = claviger.key_of_key_file(ROOT_KEY)
    return slot("key-file", wrapping_key, **{"name": "local", **changed})


def recovery_slot() -> dict:
    wrapping_key = claviger.key_of_key_file(RECOVERY_KEY)
    return slot("recovery", wrapping_key, id=OTHER_SLOT)


def passphrase_slot() -> dict:
    wrapping_key = claviger.key_of_passphrase(PASSPHRASE.encode(), KDF)
    return slot("passphrase", wrapping_key, id=OTHER_SLOT, name="phrase") | {"kdf": dict(KDF)}


def key(kek: bytes, state: str, **dates) -> dict:
    """One key of a header; `dates` are days of a year, in the header's order."""
    days = {"created": "2026-01-01", **dates}
    return {
        "id": claviger.key_id(kek),
        "state": state,
        **{name: f"{day}T10:00:00Z" for name, day in days.items()},
    }


def header(**changed) -> dict:
    """The header of which every document of the vectors is a variation."""
    return {
        "format": 1,
        "clusterId": CLUSTER.hex(),
        "clusterName": "vectors",
        "revision": 2,
        "previous": hashlib.sha256(b"claviger test vector, previous document").hexdigest(),
        "keyringKeyId": claviger.keyring_key_id(KEYRING_KEY).hex(),
        "rekeyProofs": [],
        "merged": [],
        "policy": {
            "rotateEvery": 0,
            "disabledFor": 604800,
            "snapshotRetention": 2592000,
            "removeMemberAfter": 0,
            "replicas": [],
        },
        "keys": [
            key(KEK_A, "retired", activated="2026-01-01", retired="2026-02-01"),
            key(KEK_B, "primary", created="2026-02-01", activated="2026-02-01"),
            key(DESTROYED_KEK, "destroyed", destroyed="2026-03-01"),
        ],
        "slots": [key_file_slot()],
    } | changed


LIVE_KEKS = [KEK_A, KEK_B]
