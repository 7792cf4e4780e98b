#!/usr/bin/env python3
"""Holds the second implementation to the golden files and to what can be tried exhaustively.

python3 test_format.py                          all of it but the longest run
python3 test_format.py --accumulated 1000000    C2SP's million iterations, half a minute
"""

import base64
import hashlib
import json
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes

import claviger_format as claviger
import make_vectors
from header_rules import canonical
from vector_values import CLUSTER, KEK_A, KEYRING_KEY, LIVE_KEKS, flipped, header, nonce

VALID = make_vectors.VECTORS / "document" / "valid"
INVALID = make_vectors.VECTORS / "document" / "invalid"


def vectors(name: str) -> dict:
    return json.loads((make_vectors.VECTORS / name).read_text("utf-8"))


def raw(vector: dict, *names: str) -> list[bytes]:
    """The hex fields of a vector, as bytes."""
    return [bytes.fromhex(vector[name]) for name in names]


class Case(unittest.TestCase):
    def assert_refused(self, kind: str, function, *arguments):
        with self.assertRaises(claviger.Refused) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.kind, kind)

    def for_each(self, name: str, part: str, check: Callable[[dict], None]):
        """Checks the vectors of one list, each as a sub-test; an empty list is a fault."""
        found = vectors(name)[part]
        self.assertTrue(found)
        for vector in found:
            with self.subTest(vector.get("name", part)):
                check(vector)


class GoldenFiles(Case):
    def test_they_are_what_make_vectors_makes(self):
        wanted = make_vectors.golden_files()
        self.assertEqual(make_vectors.differences(wanted, make_vectors.VECTORS), [])

    def test_a_changed_missing_or_extra_file_is_seen(self):
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder, "document")
            document.mkdir()
            Path(folder, "a.json").write_bytes(b"1")
            Path(document, "extra.json").write_bytes(b"1")
            found = make_vectors.differences({"a.json": b"2", "b.json": b"2"}, Path(folder))
        self.assertEqual(
            found,
            ["a.json: differs", "b.json: missing", "document/extra.json: nothing makes it"],
        )


class Primitives(Case):
    def test_lp(self):
        self.assertEqual(claviger.lp(), b"")
        self.assertEqual(claviger.lp(b"ab", b""), b"\0\0\0\x02ab\0\0\0\0")

    def test_xaes_of_c2sp(self):
        def check(vector: dict):
            key, number, plaintext, aad = raw(vector, "key", "nonce", "plaintext", "aad")
            derived, sealed = raw(vector, "derivedKey", "sealed")
            self.assertEqual(claviger.xaes_derived_key(key, number), derived)
            self.assertEqual(claviger.xaes_seal(key, number, plaintext, aad), sealed)
            self.assertEqual(claviger.xaes_open(key, number, sealed, aad), plaintext)

        self.for_each("xaes.json", "valid", check)

    def test_xaes_takes_only_its_own_lengths(self):
        for key, number in ((31, 24), (33, 24), (16, 24), (32, 12), (32, 25)):
            with self.assertRaises(ValueError):
                claviger.xaes_seal(bytes(key), bytes(number), b"", b"")

    def test_xaes_of_c2sp_accumulated(self):
        self.assertEqual(accumulated(10_000), published_hash(10_000))

    def test_golden_key_id_of_the_page(self):
        golden = "k1-ed41dddad06fa5a51ae4b71183601342"
        self.assertEqual(claviger.key_id(bytes(range(32))), golden)

    def test_key_ids(self):
        def check(vector: dict):
            self.assertEqual(claviger.key_id(*raw(vector, "kek")), vector["keyId"])

        self.for_each("key_id.json", "valid", check)

    def test_keyring_key_ids(self):
        def check(vector: dict):
            key, wanted = raw(vector, "keyringKey", "keyringKeyId")
            self.assertEqual(claviger.keyring_key_id(key), wanted)

        self.for_each("keyring_key_id.json", "valid", check)

    def test_rekey_proofs(self):
        def check(vector: dict):
            old, cluster_id, new_id = raw(vector, "oldKeyringKey", "clusterId", "newKeyringKeyId")
            proof = claviger.rekey_proof(old, cluster_id, new_id, vector["revision"])
            self.assertEqual(proof.hex(), vector["proof"])

        self.for_each("rekey_proof.json", "valid", check)


class Ciphertexts(Case):
    def test_valid(self):
        def check(vector: dict):
            kek, cluster_id, number = raw(vector, "kek", "clusterId", "nonce")
            seed, ciphertext = raw(vector, "seed", "ciphertext")
            self.assertEqual(claviger.key_id(kek), vector["keyId"])
            self.assertEqual(claviger.seal_seed(kek, cluster_id, number, seed), ciphertext)
            self.assertEqual(claviger.open_seed(kek, cluster_id, ciphertext), seed)

        self.for_each("ciphertext.json", "valid", check)

    def test_invalid(self):
        def check(vector: dict):
            arguments = raw(vector, "kek", "clusterId", "ciphertext")
            self.assert_refused(vector["class"], claviger.open_seed, *arguments)

        self.for_each("ciphertext.json", "invalid", check)

    def test_each_bit_and_each_length(self):
        sound = claviger.seal_seed(KEK_A, CLUSTER, nonce("each bit"), bytes(32))
        self.assertEqual(len(sound), 73)
        for bit in range(8 * len(sound)):
            kind = "authentication" if bit >= 8 else ("newer", "foreign")[bit in (0, 5, 6, 7)]
            self.assert_refused(kind, claviger.open_seed, KEK_A, CLUSTER, flipped(sound, bit))
        for length in range(len(sound)):
            kind = "too_short" if length < 41 else "authentication"
            self.assert_refused(kind, claviger.open_seed, KEK_A, CLUSTER, sound[:length])


class Slots(Case):
    def test_valid(self):
        def check(vector: dict):
            root_key, cluster_id, slot_id, kk_id = raw(
                vector, "rootKey", "clusterId", "slotId", "keyringKeyId"
            )
            keyring_key, number = raw(vector, "keyringKey", "nonce")
            statement = claviger.slot_statement(cluster_id, slot_id, vector["kind"], kk_id)
            wrapping_key = claviger.key_of_key_file(root_key)
            payload = claviger.wrap_keyring_key(wrapping_key, statement, number, keyring_key)
            self.assertEqual(statement.hex(), vector["statement"])
            self.assertEqual(base64.b64encode(payload).decode(), vector["payload"])
            self.assertEqual(self.unwrap(vector), keyring_key)

        self.for_each("slot.json", "valid", check)

    def test_invalid(self):
        def check(vector: dict):
            self.assert_refused(vector["class"], self.unwrap, vector)

        self.for_each("slot.json", "invalid", check)

    def test_each_bit(self):
        vector = vectors("slot.json")["valid"][0]
        payload = base64.b64decode(vector["payload"])
        for bit in range(8 * len(payload)):
            changed = base64.b64encode(flipped(payload, bit)).decode()
            self.assert_refused("authentication", self.unwrap, vector | {"payload": changed})

    @staticmethod
    def unwrap(vector: dict) -> bytes:
        slot = {"id": vector["slotId"], "kind": vector["kind"], "payload": vector["payload"]}
        wrapping_key = claviger.key_of_key_file(*raw(vector, "rootKey"))
        return claviger.open_slot(vector, slot, wrapping_key)


class RecoveryKeys(Case):
    def test_valid(self):
        def check(vector: dict):
            (key,) = raw(vector, "key")
            self.assertRegex(vector["text"], "^([0-9A-HJKMNP-TV-Z]{5}-){11}[0-9A-HJKMNP-TV-Z]{5}$")
            self.assertEqual(claviger.recovery_text(key), vector["text"])
            self.assertEqual(claviger.recovery_key(vector["text"]), key)

        self.for_each("recovery_key.json", "valid", check)

    def test_accepted(self):
        sound = vectors("recovery_key.json")["valid"][0]["text"]

        def check(vector: dict):
            self.assertNotEqual(vector["text"], sound)
            self.assertEqual(claviger.recovery_key(vector["text"]).hex(), vector["key"])

        self.for_each("recovery_key.json", "accepted", check)

    def test_invalid(self):
        def check(vector: dict):
            self.assert_refused(vector["class"], claviger.recovery_key, vector["text"])

        self.for_each("recovery_key.json", "invalid", check)

    def test_each_letter_by_each_other(self):
        text = claviger.recovery_text(KEK_A)
        for place, letter in enumerate(text):
            for other in set(claviger.CROCKFORD) - {letter}:
                if letter != "-":
                    with self.assertRaises(claviger.Refused):
                        claviger.recovery_key(text[:place] + other + text[place + 1 :])


class ValidDocuments(Case):
    def for_each_document(self, check: Callable[[bytes, dict], None]):
        paths = sorted(VALID.glob("*.keyring"))
        self.assertTrue(paths)
        for path in paths:
            with self.subTest(path.stem):
                check(path.read_bytes(), json.loads(path.with_suffix(".json").read_text("utf-8")))

    def test_each_slot_opens_it(self):
        def check(data: bytes, beside: dict):
            head = claviger.read_document(data).header
            for means, slot in zip(beside["open"], head["slots"], strict=True):
                self.assertEqual((means["slot"], means["kind"]), (slot["id"], slot["kind"]))
                keyring_key = claviger.open_slot(head, slot, self.wrapping_key(means, slot))
                self.assertEqual(keyring_key.hex(), beside["keyringKey"])

        self.for_each_document(check)

    def test_what_is_inside(self):
        def check(data: bytes, beside: dict):
            head, keks = claviger.open_document(data, *raw(beside, "keyringKey"))
            self.assertEqual(hashlib.sha256(data).hexdigest(), beside["sha256"])
            for name in ("clusterId", "clusterName", "revision"):
                self.assertEqual(head[name], beside[name])
            self.assertEqual(
                [(key["id"], key["state"]) for key in head["keys"]],
                [(key["id"], key["state"]) for key in beside["keys"]],
            )
            live = {key["id"]: key["kek"] for key in beside["keys"] if key["kek"] is not None}
            self.assertEqual({name: kek.hex() for name, kek in keks.items()}, live)

        self.for_each_document(check)

    def test_encoding_gives_the_same_bytes(self):
        def check(data: bytes, beside: dict):
            keyring_key, number = raw(beside, "keyringKey", "nonce")
            head, keks = claviger.open_document(data, keyring_key)
            again = claviger.encode_document(head, list(keks.values()), keyring_key, number)
            self.assertEqual(again, data)

        self.for_each_document(check)

    def test_rekey_proofs_lead_to_the_keyring_key(self):
        data = (VALID / "proofs_and_merged.keyring").read_bytes()
        beside = json.loads((VALID / "proofs_and_merged.json").read_text("utf-8"))
        head = claviger.read_document(data).header
        reached = beside["oldKeyringKeys"][0]
        for entry, old in zip(head["rekeyProofs"], beside["oldKeyringKeys"], strict=True):
            self.assertEqual(claviger.keyring_key_id(bytes.fromhex(old)).hex(), entry["from"])
            cluster_id, new_id = bytes.fromhex(head["clusterId"]), bytes.fromhex(entry["to"])
            proof = claviger.rekey_proof(bytes.fromhex(old), cluster_id, new_id, entry["revision"])
            self.assertEqual(proof.hex(), entry["proof"])
            reached = entry["to"]
        self.assertEqual(reached, head["keyringKeyId"])

    def test_of_exactly_512_kib(self):
        number = nonce("exactly 512 KiB")
        short = claviger.encode_document(header(clusterName=""), LIVE_KEKS, KEYRING_KEY, number)
        head = header(clusterName="x" * (claviger.LARGEST_DOCUMENT - len(short)))
        largest = claviger.encode_document(head, LIVE_KEKS, KEYRING_KEY, number)
        self.assertEqual(len(largest), 512 * 1024)

    @staticmethod
    def wrapping_key(means: dict, slot: dict) -> bytes:
        if means["kind"] == "passphrase":
            return claviger.key_of_passphrase(means["passphrase"].encode(), slot["kdf"])
        if means["kind"] == "recovery":
            assert claviger.recovery_key(means["recoveryKey"]).hex() == means["rootKey"]
        return claviger.key_of_key_file(*raw(means, "rootKey"))


class InvalidDocuments(Case):
    def for_each_document(self, check: Callable[[bytes, dict], None]):
        reasons = json.loads((INVALID / "reasons.json").read_text("utf-8"))
        named = {path.stem for path in INVALID.glob("*.keyring")}
        self.assertEqual(named, set(reasons["files"]))
        self.assertTrue(named)
        for name, entry in reasons["files"].items():
            with self.subTest(name):
                check((INVALID / f"{name}.keyring").read_bytes(), entry)

    def test_each_is_refused_for_its_reason(self):
        def check(data: bytes, entry: dict):
            self.assert_refused(entry["class"], claviger.open_document, data, KEYRING_KEY)

        self.for_each_document(check)

    def test_sealed_ones_open_over_line_1_as_it_stands(self):
        opening_key = claviger.derive(KEYRING_KEY, "claviger/v1/keyring/seal")

        def check(data: bytes, entry: dict):
            if entry["sealed"]:
                line, second = data.split(b"\n")[:2]
                body = base64.b64decode(second.rstrip(), validate=True)
                claviger.xaes_open(opening_key, body[:24], body[24:], line)

        self.for_each_document(check)

    def test_each_bit_of_a_sound_one(self):
        sound = (VALID / "two_keys_and_a_tombstone.keyring").read_bytes()
        claviger.open_document(sound, KEYRING_KEY)
        for bit in range(8 * len(sound)):
            with self.assertRaises(claviger.Refused, msg=f"bit {bit}"):
                claviger.open_document(flipped(sound, bit), KEYRING_KEY)

    def test_each_length_of_a_sound_one(self):
        sound = (VALID / "two_keys_and_a_tombstone.keyring").read_bytes()
        for length in range(len(sound)):
            with self.assertRaises(claviger.Refused, msg=f"{length} bytes"):
                claviger.open_document(sound[:length], KEYRING_KEY)

    def test_encoding_refuses_what_decoding_refuses(self):
        faulty = header(revision=0)
        self.assertEqual(json.loads(canonical(faulty)), faulty)
        self.assert_refused(
            "value", claviger.encode_document, faulty, LIVE_KEKS, KEYRING_KEY, nonce("faulty")
        )


def published_hash(iterations: int) -> str:
    accumulated_vectors = vectors("xaes.json")["accumulated"]
    return next(v["hash"] for v in accumulated_vectors if v["iterations"] == iterations)


def accumulated(iterations: int) -> str:
    """C2SP XAES-256-GCM, "Accumulated randomized tests": inputs are read from SHAKE128 of nothing,
    and all ciphertexts are hashed with SHAKE128."""
    inputs = hashes.XOFHash(hashes.SHAKE128(digest_size=sys.maxsize))
    outputs = hashlib.shake_128()

    def take(length: int) -> bytes:
        return inputs.squeeze(length) if length else b""

    for _ in range(iterations):
        key, number = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        sealed = claviger.xaes_seal(key, number, plaintext, aad)
        if claviger.xaes_open(key, number, sealed, aad) != plaintext:
            raise AssertionError("what was sealed does not open")
        outputs.update(sealed)
    return outputs.hexdigest(32)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--accumulated"]:
        count = int(sys.argv[2])
        same = accumulated(count) == published_hash(count)
        print(f"{count} iterations:", "the published hash" if same else "another hash")
        sys.exit(0 if same else 1)
    unittest.main()
