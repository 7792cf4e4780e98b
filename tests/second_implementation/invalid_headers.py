"""Invalid documents whose defect is in what the header says: fields, values, rules."""

import base64
from collections.abc import Iterator

import claviger_format as claviger
from faulty import Invalid, over_change, over_header, over_line, over_text
from valid_documents import rekey_entry
from vector_values import (
    KEK_A,
    KEK_B,
    KEYRING_KEY,
    OLD_KEYRING_KEY,
    header,
    key,
    key_file_slot,
    passphrase_slot,
)


def invalid_headers() -> list[Invalid]:
    return [*fields(), *values(), *dates(), *rules(), *passphrase_bounds()]


def fields() -> Iterator[Invalid]:
    kind = "fields"
    name = '"clusterName":"vectors"'
    yield over_text("duplicate_field", kind, "clusterName twice", name, f"{name},{name}")
    twice = '"id":"7071727374757677"'
    yield over_text("duplicate_field_in_slot", kind, "a slot's id twice", twice, f"{twice},{twice}")
    yield over_text("unknown_field", kind, "a field after the last", "}]}", '}],"more":1}')
    yield over_text(
        "unknown_field_in_policy", kind, "a field more", '[]},"keys"', '[],"x":0},"keys"'
    )
    yield over_change(
        "unknown_field_in_key", kind, "a key's field more", lambda h: h["keys"][0].update(x="y")
    )
    yield over_change(
        "unknown_field_in_slot", kind, "a slot's field more", lambda h: h["slots"][0].update(x="y")
    )
    yield over_change("missing_field", kind, "no clusterName", lambda h: h.pop("clusterName"))
    yield over_change("missing_format", kind, "no format", lambda h: h.pop("format"))
    yield over_change("missing_empty_list", kind, "no merged", lambda h: h.pop("merged"))
    yield over_change(
        "missing_field_in_policy", kind, "no replicas", lambda h: h["policy"].pop("replicas")
    )
    yield over_change(
        "missing_field_in_key", kind, "a key without created", lambda h: h["keys"][0].pop("created")
    )
    yield over_change(
        "missing_field_in_slot", kind, "a slot without name", lambda h: h["slots"][0].pop("name")
    )
    previous = {"previous": header()["previous"]}
    rest = {name: value for name, value in header().items() if name != "previous"}
    moved = claviger.canonical({"format": 1, **previous, **rest})
    yield over_line("misordered_fields", kind, "previous before clusterId", moved)
    yield over_change("misordered_fields_in_key", kind, "retired before activated", _move_activated)
    yield over_change(
        "misordered_fields_in_slot",
        kind,
        "a slot's id last",
        lambda h: _to_end(h["slots"][0], "id"),
    )


def _to_end(entry: dict, name: str) -> None:
    entry[name] = entry.pop(name)


def _move_activated(head: dict) -> None:
    _to_end(head["keys"][0], "activated")


def values() -> Iterator[Invalid]:
    kind = "value"
    head = header()
    first_id = head["keys"][0]["id"]
    yield over_header("format_0", kind, "format 0", format=0)
    yield over_header("format_2", "newer", "a newer format", format=2)
    yield over_header("format_as_text", kind, "a format as text", format="1")
    yield over_header("format_true", kind, "a format as a boolean", format=True)
    yield over_header("uppercase_hex", kind, "an upper-case cluster id", clusterId="B0" * 16)
    yield over_header("short_hex", kind, "a cluster id of 15 bytes", clusterId="b0" * 15)
    yield over_header("odd_hex", kind, "31 digits of a cluster id", clusterId="b" * 31)
    yield over_header("not_hex", kind, "a letter g in previous", previous="g" * 64)
    yield over_header("short_previous", kind, "a previous hash of 31 bytes", previous="ab" * 31)
    yield over_header("cluster_name_null", kind, "clusterName null", clusterName=None)
    yield over_header("cluster_name_number", kind, "a number as clusterName", clusterName=1)
    yield over_header("revision_0", kind, "revision 0", revision=0, previous="0" * 64)
    yield over_header("negative_revision", kind, "revision -1", revision=-1)
    yield over_header("revision_above_u64", kind, "revision 2^64", revision=2**64)
    yield over_header("revision_as_text", kind, "a revision as text", revision="2")
    yield over_header("keys_null", kind, "keys null", keks=[], keys=None)
    yield over_header("merged_null", kind, "merged null", merged=None)
    yield over_header("policy_in_array", kind, "a policy in an array", policy=[head["policy"]])
    for name, reason, value in (
        ("negative_duration", "a negative duration", -1),
        ("duration_with_fraction", "half a second", 604800.5),
        ("duration_as_text", "a duration as text", "7d"),
        ("duration_null", "a duration that is null", None),
    ):
        policy = head["policy"] | {"disabledFor": value}
        yield over_header(name, kind, reason, policy=policy)
    replicas = head["policy"] | {"replicas": [1]}
    yield over_header("replica_number", kind, "a number as a replica's name", policy=replicas)
    for name, reason, value in (
        ("uppercase_hex_in_key_id", "an upper-case key id", "k1-" + first_id[3:].upper()),
        ("key_id_of_version_2", "a key id that starts with k2-", "k2-" + first_id[3:]),
        ("key_id_without_prefix", "a key id without k1-", first_id[3:]),
        ("short_key_id", "a key id of 15 bytes", first_id[:-2]),
    ):
        yield over_change(name, kind, reason, lambda h, v=value: h["keys"][0].update(id=v))
    yield over_change(
        "unknown_state", kind, "the state active", lambda h: h["keys"][0].update(state="active")
    )
    yield over_change(
        "unknown_slot_kind", kind, "the kind tpm", lambda h: h["slots"].append(_slot_of_kind("tpm"))
    )
    yield over_change(
        "uppercase_hex_in_slot_id",
        kind,
        "an upper-case slot id",
        lambda h: h["slots"].append(_slot_of_kind("recovery") | {"id": "ABCDEF0102030405"}),
    )
    unpadded = key_file_slot()["payload"].rstrip("=")
    yield over_change(
        "unpadded_base64_in_slot",
        kind,
        "a payload without padding",
        lambda h: h["slots"][0].update(payload=unpadded),
    )
    proof = rekey_entry(OLD_KEYRING_KEY, KEYRING_KEY, 2)
    for name, reason, change in (
        ("short_rekey_proof", "a proof of 31 bytes", {"proof": proof["proof"][:-2]}),
        ("rekey_proof_revision_0", "a proof for revision 0", {"revision": 0}),
    ):
        yield over_header(name, kind, reason, rekeyProofs=[proof | change])


def _slot_of_kind(kind: str) -> dict:
    return key_file_slot() | {"id": "0102030405060708", "kind": kind, "name": kind}


def dates() -> Iterator[Invalid]:
    for name, reason, text in (
        ("fractional_seconds", "fractions of a second", "2026-01-01T10:00:00.0Z"),
        ("date_with_offset", "an offset instead of Z", "2026-01-01T10:00:00+00:00"),
        ("date_without_zone", "no Z", "2026-01-01T10:00:00"),
        ("date_in_small_letters", "small letters t and z", "2026-01-01t10:00:00z"),
        ("date_with_space", "a space instead of T", "2026-01-01 10:00:00Z"),
        ("date_without_time", "a date without a time", "2026-01-01"),
        ("date_without_seconds", "no seconds", "2026-01-01T10:00Z"),
        ("impossible_date", "30 February", "2026-02-30T10:00:00Z"),
        ("impossible_hour", "24 o'clock", "2026-01-01T24:00:00Z"),
        ("date_as_number", "a Unix time", 1767261600),
    ):
        yield over_change(
            name, "value", reason, lambda h, text=text: h["keys"][0].update(created=text)
        )
    yield over_change(
        "fractional_seconds_in_slot",
        "value",
        "fractions of a second",
        lambda h: h["slots"][0].update(created="2026-11-23T10:00:00.5Z"),
    )
    yield over_change(
        "null_optional", "value", "disabled null", lambda h: h["keys"][0].update(disabled=None)
    )
    yield over_change("null_kdf", "rules", "kdf null", lambda h: h["slots"][0].update(kdf=None))


def rules() -> Iterator[Invalid]:
    kind = "rules"
    retired, primary, tombstone = header()["keys"]
    yield over_header(
        "previous_not_zero_at_1", kind, "revision 1 with a previous document", revision=1
    )
    yield over_header(
        "two_primaries",
        kind,
        "two primary keys",
        keys=[key(KEK_A, "primary", activated="2026-01-01"), primary, tombstone],
    )
    disabled = key(KEK_A, "disabled", disabled="2026-03-01")
    yield over_header(
        "duplicate_key_id",
        kind,
        "one key id twice, with its KEK twice",
        keks=[KEK_A, KEK_B, KEK_A],
        keys=[retired, primary, disabled],
    )
    yield over_header(
        "duplicate_key_id_tombstone",
        kind,
        "one key id alive and destroyed",
        keys=[retired, primary, key(KEK_A, "destroyed", destroyed="2026-03-01")],
    )
    yield over_header(
        "duplicate_slot_id", kind, "one slot twice", slots=[key_file_slot(), key_file_slot()]
    )
    proof = rekey_entry(OLD_KEYRING_KEY, KEYRING_KEY, 2)
    yield over_header("seventeen_rekey_proofs", kind, "17 rekeyProofs", rekeyProofs=[proof] * 17)
    merged = {"sha256": "ab" * 32, "revision": 2}
    yield over_header("seventeen_merged", kind, "17 merged documents", merged=[merged] * 17)


def passphrase_bounds() -> Iterator[Invalid]:
    """A second slot, of a passphrase; the first still opens the document."""
    sound = passphrase_slot()
    for name, reason, change in (
        ("kdf_memory_too_small", "m below 64 MiB", {"m": 65535}),
        ("kdf_memory_too_large", "m above 1 GiB", {"m": 1048577}),
        ("kdf_time_too_small", "t below 3", {"t": 2}),
        ("kdf_time_too_large", "t above 10", {"t": 11}),
        ("kdf_lanes_too_few", "p below 1", {"p": 0}),
        ("kdf_lanes_too_many", "p above 8", {"p": 9}),
        ("kdf_of_another_name", "a kdf other than argon2id", {"name": "argon2i"}),
        ("kdf_short_salt", "a salt of 15 bytes", {"salt": base64.b64encode(bytes(15)).decode()}),
        ("kdf_unpadded_salt", "a salt without padding", {"salt": sound["kdf"]["salt"][:-2]}),
    ):
        slots = [key_file_slot(), sound | {"kdf": sound["kdf"] | change}]
        yield over_header(name, "value", reason, slots=slots)
    unknown = sound | {"kdf": sound["kdf"] | {"v": 19}}
    yield over_header(
        "kdf_unknown_field", "fields", "a field more", slots=[key_file_slot(), unknown]
    )
    without = {name: value for name, value in sound.items() if name != "kdf"}
    yield over_header("passphrase_without_kdf", "rules", "no kdf", slots=[key_file_slot(), without])
    key_file = key_file_slot() | {"kdf": sound["kdf"]}
    yield over_header("kdf_on_key_file", "rules", "a key file with a kdf", slots=[key_file])
