"""Claviger's stored formats, a second time.

Written from the page of stored formats ("Every byte", called *the page* below) and from nothing
else, so that a fault of the first implementation cannot hide in its own tests. It is meant to be
read beside that page: each docstring names the row that it follows. Nothing here is fast, and
nothing here wipes memory: it is for tests and for a look at a keyring by other means.

    LP, D                 lp, derive
    XAES-256-GCM          xaes_seal, xaes_open                  (C2SP)
    key id, ciphertext    key_id, seal_seed, open_seed
    slots                 slot_statement, wrap_keyring_key, unwrap_keyring_key, open_slot
    recovery key          recovery_text, recovery_key
    document              read_document, open_document, seal_document, encode_document
    rekeyProofs           rekey_proof
"""

import base64
import hashlib
import hmac
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from header_rules import Refused, base64_bytes, canonical, check_header

KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH = 32, 24, 16
SHORTEST_CIPHERTEXT, LONGEST_CIPHERTEXT = 41, 1_024
LARGEST_DOCUMENT = 512 * 1024
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


# --- LP, D, XAES-256-GCM -------------------------------------------------------------------------


def lp(*items: bytes) -> bytes:
    """The page's first line: each item as u32 big-endian length, then the item."""
    return b"".join(len(item).to_bytes(4, "big") + item for item in items)


def derive(key: bytes, label: str) -> bytes:
    """The page's first line: D(K, label) = HKDF-SHA-256, no salt, info = label, 32 bytes."""
    return HKDF(SHA256(), KEY_LENGTH, salt=None, info=label.encode("ascii")).derive(key)


def xaes_derived_key(key: bytes, nonce: bytes) -> bytes:
    """C2SP XAES-256-GCM: K_x, the AES-256-GCM key of one nonce, by two CMACs of one block each."""
    if len(key) != KEY_LENGTH or len(nonce) != NONCE_LENGTH:
        raise ValueError("XAES-256-GCM takes a key of 32 bytes and a nonce of 24")
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    zeros = int.from_bytes(block.update(bytes(16)), "big")  # C2SP's L
    k1 = ((zeros << 1) & (2**128 - 1)) ^ (0x87 if zeros >> 127 else 0)
    messages = (bytes([0, counter]) + b"X\0" + nonce[:12] for counter in (1, 2))
    blocks = ((int.from_bytes(m, "big") ^ k1).to_bytes(16, "big") for m in messages)
    return b"".join(block.update(b) for b in blocks)


def xaes_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """C2SP XAES-256-GCM: ciphertext, then the tag of 16 bytes."""
    return AESGCM(xaes_derived_key(key, nonce)).encrypt(nonce[12:], plaintext, aad)


def xaes_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """C2SP XAES-256-GCM, refused as `authentication`."""
    try:
        return AESGCM(xaes_derived_key(key, nonce)).decrypt(nonce[12:], sealed, aad)
    except InvalidTag:
        raise Refused("authentication", "the tag does not verify") from None


def _open_with_nonce_in_front(key: bytes, stored: bytes, aad: bytes) -> bytes:
    """The page's "nonce[24] ‖ XAES-256-GCM", as bodies and slots store it."""
    return xaes_open(key, stored[:NONCE_LENGTH], stored[NONCE_LENGTH:], aad)


# --- key id, ciphertext --------------------------------------------------------------------------


def key_id_bytes(kek: bytes) -> bytes:
    """Row "key id": the first 16 bytes of D(KEK, "claviger/v1/kek/id")."""
    return derive(kek, "claviger/v1/kek/id")[:16]


def key_id(kek: bytes) -> str:
    """Row "key id": `k1-` and the hex of those bytes."""
    return "k1-" + key_id_bytes(kek).hex()


def _seed_aad(kek: bytes, cluster_id: bytes) -> bytes:
    return lp(b"claviger/v1/seed", cluster_id, key_id_bytes(kek))


def seal_seed(kek: bytes, cluster_id: bytes, nonce: bytes, seed: bytes) -> bytes:
    """Row "ciphertext of a seed"."""
    sealing_key = derive(kek, "claviger/v1/kek/seal")
    return b"\x01" + nonce + xaes_seal(sealing_key, nonce, seed, _seed_aad(kek, cluster_id))


def open_seed(kek: bytes, cluster_id: bytes, ciphertext: bytes) -> bytes:
    """Row "ciphertext of a seed". Refused as `foreign` or `newer` (the first byte), `too_short`,
    `too_long` or `authentication`."""
    if not ciphertext:
        raise Refused("too_short", "it is empty")
    if ciphertext[0] == 0 or ciphertext[0] >= 0x20:
        raise Refused("foreign", "its first byte is of no format of Claviger")
    if ciphertext[0] != 1:
        raise Refused("newer", "its first byte is of a newer format than this program reads")
    if len(ciphertext) < SHORTEST_CIPHERTEXT:
        raise Refused("too_short", f"it has less than {SHORTEST_CIPHERTEXT} bytes")
    if len(ciphertext) > LONGEST_CIPHERTEXT:
        raise Refused("too_long", f"it has more than {LONGEST_CIPHERTEXT} bytes")
    opening_key = derive(kek, "claviger/v1/kek/seal")
    return _open_with_nonce_in_front(opening_key, ciphertext[1:], _seed_aad(kek, cluster_id))


# --- slots ---------------------------------------------------------------------------------------


def keyring_key_id(keyring_key: bytes) -> bytes:
    """Row "keyringKeyId": all 32 bytes of D(KK, "claviger/v1/keyring/id"); hex in the header."""
    return derive(keyring_key, "claviger/v1/keyring/id")


def slot_statement(cluster_id: bytes, slot_id: bytes, kind: str, keyring_key_id: bytes) -> bytes:
    """Row "slot payload": S."""
    return lp(b"claviger/v1/slot", cluster_id, slot_id, kind.encode("ascii"), keyring_key_id)


def key_of_key_file(secret: bytes) -> bytes:
    """Row "root `key-file`, `recovery`": the wrapping key of the file's 32 bytes."""
    return derive(secret, "claviger/v1/root/key-file")


def key_of_passphrase(passphrase: bytes, kdf: dict) -> bytes:
    """Row "root `passphrase`": Argon2id v1.3 with the slot's own parameters."""
    return Argon2id(
        salt=base64_bytes(kdf["salt"], "salt"),
        length=KEY_LENGTH,
        iterations=kdf["t"],
        lanes=kdf["p"],
        memory_cost=kdf["m"],
    ).derive(passphrase)


def wrap_keyring_key(wrapping_key: bytes, statement: bytes, nonce: bytes, kk: bytes) -> bytes:
    """Rows "slot payload" and "root `key-file`, `recovery`": what a slot's `payload` stores."""
    unwrapped = kk + hashlib.sha256(statement).digest()
    return nonce + xaes_seal(wrapping_key, nonce, unwrapped, statement)


def unwrap_keyring_key(wrapping_key: bytes, statement: bytes, stored: bytes, kk_id: bytes) -> bytes:
    """The same rows, back. Refused as `length`, `authentication` or `binding` (a half that is not
    the one that the slot states)."""
    if len(stored) != NONCE_LENGTH + 2 * KEY_LENGTH + TAG_LENGTH:
        raise Refused("length", f"a slot's payload has 104 bytes, this one {len(stored)}")
    unwrapped = _open_with_nonce_in_front(wrapping_key, stored, statement)
    kk, stated = unwrapped[:KEY_LENGTH], unwrapped[KEY_LENGTH:]
    same_key = hmac.compare_digest(keyring_key_id(kk), kk_id)
    same_statement = hmac.compare_digest(hashlib.sha256(statement).digest(), stated)
    if not (same_key and same_statement):
        raise Refused("binding", "it holds a keyring key or a statement of another slot")
    return kk


def open_slot(header: dict, slot: dict, wrapping_key: bytes) -> bytes:
    """The keyring key out of one slot of a header."""
    kk_id = bytes.fromhex(header["keyringKeyId"])
    statement = slot_statement(
        bytes.fromhex(header["clusterId"]), bytes.fromhex(slot["id"]), slot["kind"], kk_id
    )
    stored = base64_bytes(slot["payload"], "payload")
    return unwrap_keyring_key(wrapping_key, statement, stored, kk_id)


# --- recovery key --------------------------------------------------------------------------------


def recovery_checksum(key: bytes) -> bytes:
    """Row "recovery key": the first 5 bytes of SHA-256(LP("claviger/v1/recovery", key))."""
    return hashlib.sha256(lp(b"claviger/v1/recovery", key)).digest()[:5]


def crockford(whole: bytes) -> str:
    """Row "recovery key": 37 bytes and four zero bits, as 60 letters in 12 groups of five."""
    bits = int.from_bytes(whole, "big") << 4
    letters = "".join(CROCKFORD[bits >> shift & 31] for shift in range(295, -1, -5))
    return "-".join(letters[i : i + 5] for i in range(0, 60, 5))


def recovery_text(key: bytes) -> str:
    """Row "recovery key": what `init` shows."""
    return crockford(key + recovery_checksum(key))


def recovery_key(text: str) -> bytes:
    """Row "recovery key", read as Crockford says: small letters too, O for 0, I and L for 1,
    dashes ignored. Refused as `alphabet`, `length`, `padding` or `checksum`."""
    letters = text.strip(" \t\r\n").replace("-", "")
    if not letters.isascii():
        raise Refused("alphabet", "it has a letter outside Crockford's alphabet")
    letters = letters.upper().translate(str.maketrans("OIL", "011"))
    if any(letter not in CROCKFORD for letter in letters):
        raise Refused("alphabet", "it has a letter outside Crockford's alphabet")
    if len(letters) != 60:
        raise Refused("length", f"it has {len(letters)} letters instead of 60")
    bits = 0
    for letter in letters:
        bits = bits << 5 | CROCKFORD.index(letter)
    if bits & 15:
        raise Refused("padding", "its last four bits are not zero")
    whole = (bits >> 4).to_bytes(37, "big")
    key, checksum = whole[:KEY_LENGTH], whole[KEY_LENGTH:]
    if not hmac.compare_digest(checksum, recovery_checksum(key)):
        raise Refused("checksum", "its checksum does not fit: a letter was misread or mistyped")
    return key


# --- document ------------------------------------------------------------------------------------


class Unverified(NamedTuple):
    """A document that is well formed. Nobody vouches for it yet: the header may select a slot and
    supply bounded KDF parameters, and nothing else."""

    header: dict
    line: bytes
    body: bytes


class Keyring(NamedTuple):
    """A document that was verified: its header, and the KEKs by key id, in the header's order."""

    header: dict
    keks: dict[str, bytes]


def read_document(data: bytes) -> Unverified:
    """Rows "document" and "header": everything that can be said without a key. Refused as `size`,
    `lines`, `json`, `fields`, `newer`, `value`, `rules` or `body`."""
    if len(data) > LARGEST_DOCUMENT:
        raise Refused("size", f"a document has at most {LARGEST_DOCUMENT} bytes")
    if data.startswith(b"\xef\xbb\xbf") or b"\r" in data:
        raise Refused("lines", "a document has neither a byte order mark nor a CR")
    lines = data.split(b"\n")
    if len(lines) != 3 or lines[2]:
        raise Refused("lines", "a document is two lines, each with an LF at its end")
    line = lines[0]
    header = check_header(line)
    try:
        body = base64_bytes(lines[1].decode("ascii"), "line 2")
    except (Refused, UnicodeDecodeError):
        raise Refused("body", "line 2 is not padded standard base64") from None
    live = sum(key["state"] != "destroyed" for key in header["keys"])
    if len(body) != NONCE_LENGTH + live * KEY_LENGTH + TAG_LENGTH:
        raise Refused("body", f"the body's length is not that of {live} KEKs")
    return Unverified(header, line, body)


def open_document(data: bytes, keyring_key: bytes) -> Keyring:
    """Rows "keyringKeyId", "body" and "key id". Beyond what `read_document` refuses, refused as
    `keyring_key`, `authentication` or `key_id`."""
    header, line, body = read_document(data)
    claimed = bytes.fromhex(header["keyringKeyId"])
    if not hmac.compare_digest(keyring_key_id(keyring_key), claimed):
        raise Refused("keyring_key", "the header names another keyring key")
    opening_key = derive(keyring_key, "claviger/v1/keyring/seal")
    opened = _open_with_nonce_in_front(opening_key, body, line)
    live = [key["id"] for key in header["keys"] if key["state"] != "destroyed"]
    keks = {}
    for position, name in enumerate(live):
        kek = opened[position * KEY_LENGTH : (position + 1) * KEY_LENGTH]
        if not hmac.compare_digest(key_id(kek), name):
            raise Refused("key_id", f"the bytes under {name} have another key id")
        keks[name] = kek
    return Keyring(header, keks)


def seal_document(line: bytes, keks: list[bytes], keyring_key: bytes, nonce: bytes) -> bytes:
    """Rows "document" and "body", for a line 1 that may be anything: no check is made."""
    sealing_key = derive(keyring_key, "claviger/v1/keyring/seal")
    body = nonce + xaes_seal(sealing_key, nonce, b"".join(keks), line)
    return line + b"\n" + base64.b64encode(body) + b"\n"


def encode_document(header: dict, keks: list[bytes], keyring_key: bytes, nonce: bytes) -> bytes:
    """Rows "document", "header" and "body". The result was opened again before it is returned."""
    data = seal_document(canonical(header), keks, keyring_key, nonce)
    open_document(data, keyring_key)
    return data


def rekey_proof(old_key: bytes, cluster_id: bytes, new_key_id: bytes, revision: int) -> bytes:
    """Row "rekeyProofs": HMAC-SHA-256 under D(old KK, "claviger/v1/keyring/rekey")."""
    message = lp(cluster_id, new_key_id, revision.to_bytes(8, "big"))
    return hmac.digest(derive(old_key, "claviger/v1/keyring/rekey"), message, "sha256")
