"""The sound documents of the vectors, each with what opens it and what is inside."""

import hashlib

import claviger_format as claviger
from vector_values import (
    ABORTED_KEK,
    CLUSTER,
    DESTROYED_KEK,
    KEK_A,
    KEK_B,
    KEK_C,
    KEK_D,
    KEYRING_KEY,
    LIVE_KEKS,
    OLD_KEYRING_KEY,
    OLDER_KEYRING_KEY,
    PASSPHRASE,
    RECOVERY_KEY,
    ROOT_KEY,
    header,
    key,
    key_file_slot,
    nonce,
    passphrase_slot,
    recovery_slot,
)


def valid_documents() -> dict[str, tuple[bytes, dict]]:
    """By name: the document and what stands beside it."""
    return {
        "one_key": one_key(),
        "two_keys_and_a_tombstone": document(
            "two_keys_and_a_tombstone",
            "The document of which each invalid one is a variation.",
            header(),
            LIVE_KEKS,
        ),
        "every_state": every_state(),
        "two_slots": document(
            "two_slots",
            "A key file and a recovery key, each of which opens it.",
            header(slots=[key_file_slot(), recovery_slot()]),
            LIVE_KEKS,
        ),
        "proofs_and_merged": proofs_and_merged(),
        "passphrase_slot": document(
            "passphrase_slot",
            "A passphrase alone, with its kdf.",
            header(slots=[passphrase_slot()]),
            LIVE_KEKS,
        ),
        "policy": policy(),
        "free_cluster_name": document(
            "free_cluster_name",
            "A cluster name that JSON must escape, beyond ASCII, and a solidus that it must not.",
            header(clusterName='Zürich "prod" \\ eu/1 \U0001f511'),
            LIVE_KEKS,
        ),
        "no_key": document("no_key", "No key, so a body of no KEK.", header(keys=[]), []),
    }


def document(name: str, about: str, head: dict, keks: list[bytes], **inside) -> tuple[bytes, dict]:
    data = claviger.encode_document(head, keks, KEYRING_KEY, nonce(f"body of {name}"))
    by_id = {claviger.key_id(kek): kek.hex() for kek in keks}
    beside = {
        "about": about,
        "sha256": hashlib.sha256(data).hexdigest(),
        "open": [opener(slot) for slot in head["slots"]],
        "nonce": nonce(f"body of {name}").hex(),
        "keyringKey": KEYRING_KEY.hex(),
        "clusterId": head["clusterId"],
        "clusterName": head["clusterName"],
        "revision": head["revision"],
        "keys": [
            {"id": key["id"], "state": key["state"], "kek": by_id.get(key["id"])}
            for key in head["keys"]
        ],
    }
    return data, beside | inside


def opener(slot: dict) -> dict:
    means = {
        "key-file": {"rootKey": ROOT_KEY.hex()},
        "recovery": {
            "rootKey": RECOVERY_KEY.hex(),
            "recoveryKey": claviger.recovery_text(RECOVERY_KEY),
        },
        "passphrase": {"passphrase": PASSPHRASE},
    }
    return {"slot": slot["id"], "kind": slot["kind"], "name": slot["name"], **means[slot["kind"]]}


def one_key() -> tuple[bytes, dict]:
    head = header(
        revision=1,
        previous="0" * 64,
        keys=[key(KEK_A, "primary", activated="2026-01-01")],
    )
    return document("one_key", "What init writes: revision 1, one primary.", head, [KEK_A])


def every_state() -> tuple[bytes, dict]:
    keys = [
        key(KEK_D, "staged", created="2026-06-01"),
        key(
            DESTROYED_KEK,
            "destroyed",
            activated="2026-01-01",
            retired="2026-02-01",
            disabled="2026-03-01",
            destroyed="2026-05-01",
        ),
        key(KEK_A, "disabled", activated="2026-01-02", retired="2026-03-02", disabled="2026-06-01"),
        key(ABORTED_KEK, "destroyed", created="2026-03-01", destroyed="2026-03-02"),
        key(KEK_B, "retired", activated="2026-03-02", retired="2026-05-01"),
        key(KEK_C, "primary", created="2026-05-01", activated="2026-05-01"),
    ]
    return document(
        "every_state",
        "Every state, tombstones between live keys; one tombstone is of an aborted rotation.",
        header(revision=42, keys=keys),
        [KEK_D, KEK_A, KEK_B, KEK_C],
    )


def proofs_and_merged() -> tuple[bytes, dict]:
    chain = [(OLDER_KEYRING_KEY, OLD_KEYRING_KEY, 3), (OLD_KEYRING_KEY, KEYRING_KEY, 5)]
    proofs = [rekey_entry(old, new, revision) for old, new, revision in chain]
    merged = [
        {"sha256": hashlib.sha256(text).hexdigest(), "revision": revision}
        for text, revision in ((b"one merged document", 4), (b"another one", 4), (b"a third", 6))
    ]
    return document(
        "proofs_and_merged",
        "Two rekeys, provable by who holds an old keyring key, and three merged documents.",
        header(revision=7, rekeyProofs=proofs, merged=merged),
        LIVE_KEKS,
        oldKeyringKeys=[OLDER_KEYRING_KEY.hex(), OLD_KEYRING_KEY.hex()],
    )


def rekey_entry(old: bytes, new: bytes, revision: int) -> dict:
    new_id = claviger.keyring_key_id(new)
    return {
        "from": claviger.keyring_key_id(old).hex(),
        "to": new_id.hex(),
        "revision": revision,
        "proof": claviger.rekey_proof(old, CLUSTER, new_id, revision).hex(),
    }


def policy() -> tuple[bytes, dict]:
    settings = {
        "rotateEvery": 31536000,
        "disabledFor": 604800,
        "snapshotRetention": 2592000,
        "removeMemberAfter": 86400,
        "replicas": ["cp2", "cp3"],
    }
    head = header(policy=settings)
    return document("policy", "A policy with every field set.", head, LIVE_KEKS, policy=settings)
