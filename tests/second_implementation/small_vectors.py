"""The vectors of everything but documents: one JSON file for each format."""

import base64

import claviger_format as claviger
from vector_values import (
    CLUSTER,
    KEK_A,
    KEK_B,
    KEYRING_KEY,
    OLD_KEYRING_KEY,
    OTHER_CLUSTER,
    OTHER_ROOT_KEY,
    OTHER_SLOT,
    RECOVERY_KEY,
    ROOT_KEY,
    SLOT,
    counting,
    flipped,
    nonce,
)


def small_vectors() -> dict[str, dict]:
    return {
        "key_id.json": key_ids(),
        "keyring_key_id.json": keyring_key_ids(),
        "xaes.json": xaes(),
        "ciphertext.json": ciphertexts(),
        "slot.json": slots(),
        "recovery_key.json": recovery_keys(),
        "rekey_proof.json": rekey_proofs(),
    }


def key_ids() -> dict:
    return {
        "about": "The key id of a KEK. The first is the golden one of the page of formats.",
        "valid": [{"kek": kek.hex(), "keyId": claviger.key_id(kek)} for kek in (KEK_A, KEK_B)],
    }


def keyring_key_ids() -> dict:
    keys = (KEYRING_KEY, OLD_KEYRING_KEY)
    return {
        "about": "The id of a keyring key, all 32 bytes.",
        "valid": [
            {"keyringKey": key.hex(), "keyringKeyId": claviger.keyring_key_id(key).hex()}
            for key in keys
        ],
    }


def xaes() -> dict:
    """C2SP's own numbers, typed in and not computed: c2sp.org/XAES-256-GCM, "Test vectors"."""
    common = {"nonce": b"ABCDEFGHIJKLMNOPQRSTUVWX".hex(), "plaintext": b"XAES-256-GCM".hex()}
    return {
        "about": "Published by C2SP. derivedKey is its K_x, the AES-256-GCM key of the nonce.",
        "valid": [
            {
                "name": "highest bit of L clear",
                "key": "01" * 32,
                **common,
                "aad": "",
                "derivedKey": "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
                "sealed": "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
            },
            {
                "name": "highest bit of L set",
                "key": "03" * 32,
                **common,
                "aad": b"c2sp.org/XAES-256-GCM".hex(),
                "derivedKey": "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
                "sealed": "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
            },
        ],
        "accumulated": [
            {
                "iterations": 10_000,
                "hash": "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939",
            },
            {
                "iterations": 1_000_000,
                "hash": "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15",
            },
        ],
    }


# --- ciphertexts ---------------------------------------------------------------------------------


def ciphertexts() -> dict:
    valid = []
    for length in (1, 12, 31, 32, 33, 512, 983):
        seed = counting(0x90, length)
        number = nonce(f"seed of {length}")
        valid.append(
            {
                "name": f"seed_of_{length}" + ("_the_longest" if length == 983 else ""),
                "kek": KEK_A.hex(),
                "keyId": claviger.key_id(KEK_A),
                "clusterId": CLUSTER.hex(),
                "nonce": number.hex(),
                "seed": seed.hex(),
                "ciphertext": claviger.seal_seed(KEK_A, CLUSTER, number, seed).hex(),
            }
        )
    return {
        "about": "Seeds under a KEK. Each invalid one is named by its defect; class says how it "
        "is refused.",
        "valid": valid,
        "invalid": [
            {
                "name": name,
                "class": kind,
                "kek": KEK_A.hex(),
                "keyId": claviger.key_id(KEK_A),
                "clusterId": CLUSTER.hex(),
                "ciphertext": ciphertext.hex(),
            }
            for name, kind, ciphertext in invalid_ciphertexts()
        ],
    }


def invalid_ciphertexts() -> list[tuple[str, str, bytes]]:
    seed, number = counting(0x90), nonce("seed of 32")
    sound = claviger.seal_seed(KEK_A, CLUSTER, number, seed)
    sealing_key = claviger.derive(KEK_A, "claviger/v1/kek/seal")
    right_id, other_id = claviger.key_id_bytes(KEK_A), claviger.key_id_bytes(KEK_B)
    label = b"claviger/v1/seed"

    def sealed(key: bytes, aad: bytes) -> bytes:
        return b"\x01" + number + claviger.xaes_seal(key, number, seed, aad)

    right_aad = claviger.lp(label, CLUSTER, right_id)
    assert sealed(sealing_key, right_aad) == sound
    too_long = claviger.seal_seed(KEK_A, CLUSTER, number, counting(0x90, 984))
    assert len(too_long) == 1_025
    hex_cluster = claviger.lp(label, CLUSTER.hex().encode(), right_id)
    text_id = claviger.lp(label, CLUSTER, claviger.key_id(KEK_A).encode())
    return [
        ("first_byte_00", "foreign", b"\x00" + sound[1:]),
        ("first_byte_20", "foreign", b"\x20" + sound[1:]),
        ("first_byte_ff", "foreign", b"\xff" + sound[1:]),
        ("vault_transit", "foreign", b"vault:v1:" + base64.b64encode(sound)),
        ("kms_v1_envelope", "foreign", b"k8s:enc:kms:v1:plugin:" + sound),
        ("aws_kms", "foreign", b"2" + sound),
        ("base64_of_ours", "foreign", base64.b64encode(sound)),
        ("first_byte_02", "newer", b"\x02" + sound[1:]),
        ("first_byte_1f", "newer", b"\x1f" + sound[1:]),
        ("empty", "too_short", b""),
        ("first_byte_alone", "too_short", sound[:1]),
        ("cut_to_40_bytes", "too_short", sound[:40]),
        ("seed_of_984", "too_long", too_long),
        ("appended_to_1025_bytes", "too_long", sound + bytes(1_025 - len(sound))),
        ("cut_to_41_bytes", "authentication", sound[:41]),
        ("cut_by_one_byte", "authentication", sound[:-1]),
        ("appended_byte", "authentication", sound + b"\0"),
        ("nonce_first_bit_flipped", "authentication", flipped(sound, 8)),
        ("nonce_last_bit_flipped", "authentication", flipped(sound, 25 * 8 - 1)),
        ("seed_bit_flipped", "authentication", flipped(sound, 25 * 8)),
        ("tag_first_bit_flipped", "authentication", flipped(sound, -128)),
        ("tag_last_bit_flipped", "authentication", flipped(sound, -1)),
        ("other_cluster", "authentication", claviger.seal_seed(KEK_A, OTHER_CLUSTER, number, seed)),
        ("other_kek", "authentication", claviger.seal_seed(KEK_B, CLUSTER, number, seed)),
        (
            "other_key_id_in_aad",
            "authentication",
            sealed(sealing_key, claviger.lp(label, CLUSTER, other_id)),
        ),
        ("key_id_as_text_in_aad", "authentication", sealed(sealing_key, text_id)),
        ("cluster_id_as_hex_in_aad", "authentication", sealed(sealing_key, hex_cluster)),
        ("no_aad", "authentication", sealed(sealing_key, b"")),
        (
            "aad_without_lengths",
            "authentication",
            sealed(sealing_key, label + CLUSTER + right_id),
        ),
        ("kek_used_directly", "authentication", sealed(KEK_A, right_aad)),
    ]


# --- slots ---------------------------------------------------------------------------------------


def slots() -> dict:
    return {
        "about": "Slots of the kinds key-file and recovery. unwrapped is keyringKey and the "
        "SHA-256 of the statement S; payload is what the header stores. Each invalid one is named "
        "by its defect; class says how it is refused.",
        "valid": [slot_vector(kind, root) for kind, root in roots().items()],
        "invalid": invalid_slots(),
    }


def roots() -> dict[str, bytes]:
    return {"key-file": ROOT_KEY, "recovery": RECOVERY_KEY}


def slot_vector(kind: str, root_key: bytes) -> dict:
    keyring_key_id = claviger.keyring_key_id(KEYRING_KEY)
    statement = claviger.slot_statement(CLUSTER, SLOT, kind, keyring_key_id)
    wrapping_key = claviger.key_of_key_file(root_key)
    number = nonce(f"slot vector {kind}")
    payload = claviger.wrap_keyring_key(wrapping_key, statement, number, KEYRING_KEY)
    return {
        "name": kind.replace("-", "_"),
        "kind": kind,
        "rootKey": root_key.hex(),
        "clusterId": CLUSTER.hex(),
        "slotId": SLOT.hex(),
        "keyringKeyId": keyring_key_id.hex(),
        "statement": statement.hex(),
        "nonce": number.hex(),
        "keyringKey": KEYRING_KEY.hex(),
        "payload": base64.b64encode(payload).decode(),
    }


def invalid_slots() -> list[dict]:
    vectors = []
    for kind, root_key in roots().items():
        sound = slot_vector(kind, root_key)
        for name in ("statement", "nonce", "keyringKey"):
            del sound[name]
        other_kind = next(other for other in roots() if other != kind)
        other_id = claviger.keyring_key_id(OLD_KEYRING_KEY).hex()
        changes = [
            ("other_cluster", "authentication", {"clusterId": OTHER_CLUSTER.hex()}),
            ("other_slot_id", "authentication", {"slotId": OTHER_SLOT.hex()}),
            ("other_kind", "authentication", {"kind": other_kind}),
            ("other_keyring_key_id", "authentication", {"keyringKeyId": other_id}),
            ("other_root_key", "authentication", {"rootKey": OTHER_ROOT_KEY.hex()}),
        ]
        changes += [
            (defect, refused, {"payload": base64.b64encode(payload).decode()})
            for defect, refused, payload in invalid_payloads(kind, root_key)
        ]
        for defect, refused, change in changes:
            name = f"{sound['name']}_{defect}"
            vectors.append({**sound, "name": name, "class": refused, **change})
    return vectors


def invalid_payloads(kind: str, root_key: bytes) -> list[tuple[str, str, bytes]]:
    sound = slot_vector(kind, root_key)
    payload = base64.b64decode(sound["payload"])
    statement, number = bytes.fromhex(sound["statement"]), bytes.fromhex(sound["nonce"])
    wrapping_key = claviger.key_of_key_file(root_key)
    unwrapped = claviger.xaes_open(wrapping_key, number, payload[24:], statement)
    other_key = OLD_KEYRING_KEY + unwrapped[32:]

    def sealed(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        return number + claviger.xaes_seal(key, number, plaintext, aad)

    assert sealed(wrapping_key, unwrapped, statement) == payload
    return [
        ("nonce_bit_flipped", "authentication", flipped(payload, 0)),
        ("keyring_key_bit_flipped", "authentication", flipped(payload, 24 * 8)),
        ("statement_hash_bit_flipped", "authentication", flipped(payload, 56 * 8)),
        ("tag_bit_flipped", "authentication", flipped(payload, -1)),
        ("root_key_used_directly", "authentication", sealed(root_key, unwrapped, statement)),
        ("no_aad", "authentication", sealed(wrapping_key, unwrapped, b"")),
        ("payload_cut", "length", payload[:-1]),
        ("payload_empty", "length", b""),
        ("keyring_key_alone", "length", sealed(wrapping_key, unwrapped[:32], statement)),
        ("byte_after_statement_hash", "length", sealed(wrapping_key, unwrapped + b"\0", statement)),
        ("keyring_key_of_another_id", "binding", sealed(wrapping_key, other_key, statement)),
        (
            "hash_of_another_statement",
            "binding",
            sealed(wrapping_key, flipped(unwrapped, -1), statement),
        ),
    ]


# --- recovery keys, rekeyProofs ------------------------------------------------------------------


def recovery_keys() -> dict:
    keys = (KEK_A, RECOVERY_KEY, bytes(32), b"\xff" * 32)
    text = claviger.recovery_text(KEK_A)
    assert "0" in text and "1" in text
    accepted = {
        "lower_case": text.lower(),
        "letter_o_for_zero": text.replace("0", "O"),
        "small_letter_o_for_zero": text.replace("0", "o"),
        "letter_i_for_one": text.replace("1", "I"),
        "small_letter_i_for_one": text.replace("1", "i"),
        "letter_l_for_one": text.replace("1", "L"),
        "small_letter_l_for_one": text.replace("1", "l"),
        "no_dashes": text.replace("-", ""),
        "newline_at_end": text + "\n",
    }
    return {
        "about": "The 32 bytes of a recovery key and their text for people. accepted: other ways "
        "to write the first one. Each invalid one is named by its defect.",
        "valid": [{"key": key.hex(), "text": claviger.recovery_text(key)} for key in keys],
        "accepted": [
            {"name": name, "text": spelling, "key": KEK_A.hex()}
            for name, spelling in accepted.items()
        ],
        "invalid": [
            {"name": name, "class": kind, "text": spelling}
            for name, (kind, spelling) in invalid_recovery_texts(text).items()
        ],
    }


def invalid_recovery_texts(text: str) -> dict[str, tuple[str, str]]:
    groups = text.split("-")
    swapped = "-".join([groups[1], groups[0], *groups[2:]])
    last_bit = KEK_A + flipped(claviger.recovery_checksum(KEK_A), -8)
    assert text[-1] in "0G" and text[0] == "0" and groups[0] != groups[1]
    return {
        "first_letter_changed": ("checksum", "1" + text[1:]),
        "letter_in_the_middle_changed": ("checksum", text[:30] + "Z" + text[31:]),
        "letter_of_the_checksum_changed": ("checksum", text[:-2] + "0" + text[-1]),
        "last_bit_of_the_checksum_flipped": ("checksum", claviger.crockford(last_bit)),
        "two_groups_swapped": ("checksum", swapped),
        "last_letter_missing": ("length", text[:-1]),
        "group_missing": ("length", "-".join(groups[:-1])),
        "letter_too_many": ("length", text + "0"),
        "group_too_many": ("length", text + "-00000"),
        "empty": ("length", ""),
        "letter_u": ("alphabet", "U" + text[1:]),
        "check_symbol": ("alphabet", text[:-1] + "*"),
        "dotless_i_for_one": ("alphabet", text.replace("1", "\u0131")),
        "full_width_zero": ("alphabet", text.replace("0", "\uff10")),
        "spare_bit_set": ("padding", text[:-1] + chr(ord(text[-1]) + 1)),
    }


def rekey_proofs() -> dict:
    new_id = claviger.keyring_key_id(KEYRING_KEY)
    return {
        "about": "The proof that the holder of an old keyring key made a new one.",
        "valid": [
            {
                "oldKeyringKey": OLD_KEYRING_KEY.hex(),
                "clusterId": CLUSTER.hex(),
                "newKeyringKeyId": new_id.hex(),
                "revision": revision,
                "proof": claviger.rekey_proof(OLD_KEYRING_KEY, CLUSTER, new_id, revision).hex(),
            }
            for revision in (2, 258, 2**64 - 1)
        ],
    }
