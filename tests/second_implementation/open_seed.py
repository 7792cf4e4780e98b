#!/usr/bin/env python3
"""Prints the seed of one ciphertext, in hex, from a keyring and one of its roots.

    open_seed.py --root-key FILE --keyring FILE --ciphertext FILE --key-id k1-…
    open_seed.py --recovery-key FILE --keyring FILE --ciphertext FILE --key-id k1-…

`--root-key` is a key file of 32 raw bytes, `--recovery-key` the text that `init` shows. Any fault
is one line on standard error and exit code 1. The seed is a secret: mind where it is printed.
"""

import argparse
import sys
from pathlib import Path

import claviger_format as claviger


class Fault(Exception):
    """What was being done, what was wrong, what to do next; on one line."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise Fault(f"reading the command line: {message}; see --help")


def main(arguments: list[str]) -> int:
    try:
        print(seed_of(parse(arguments)).hex())
    except Fault as fault:
        print(f"open_seed: {fault}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = parser.add_mutually_exclusive_group(required=True)
    root.add_argument("--root-key", metavar="FILE")
    root.add_argument("--recovery-key", metavar="FILE")
    parser.add_argument("--keyring", metavar="FILE", required=True)
    parser.add_argument("--ciphertext", metavar="FILE", required=True)
    parser.add_argument("--key-id", metavar="ID", required=True)
    return parser.parse_args(arguments)


def seed_of(options: argparse.Namespace) -> bytes:
    kind, secret = root_secret(options)
    data = read(options.keyring)
    keyring = open_keyring(options.keyring, data, kind, secret)
    kek = live_kek(keyring, options.key_id)
    cluster_id = bytes.fromhex(keyring.header["clusterId"])
    try:
        return claviger.open_seed(kek, cluster_id, read(options.ciphertext))
    except claviger.Refused as refused:
        raise Fault(
            f"opening the ciphertext {options.ciphertext} with {options.key_id}: {refused}; "
            "compare it with the stored object and its key id"
        ) from None


def root_secret(options: argparse.Namespace) -> tuple[str, bytes]:
    """The kind of slot to look for, and the 32 bytes that open it."""
    if options.root_key:
        secret = read(options.root_key)
        if len(secret) != claviger.KEY_LENGTH:
            raise Fault(
                f"reading the root key {options.root_key}: it has {len(secret)} bytes instead of "
                "32; give the raw key file, or --recovery-key for the text"
            )
        return "key-file", secret
    try:
        return "recovery", claviger.recovery_key(read(options.recovery_key).decode("utf-8"))
    except (claviger.Refused, UnicodeDecodeError) as refused:
        text = refused if isinstance(refused, claviger.Refused) else "it is not text"
        raise Fault(
            f"reading the recovery key {options.recovery_key}: {text}; compare it with the paper"
        ) from None


def open_keyring(path: str, data: bytes, kind: str, secret: bytes) -> claviger.Keyring:
    try:
        header = claviger.read_document(data).header
        return claviger.open_document(data, keyring_key(path, header, kind, secret))
    except claviger.Refused as refused:
        raise Fault(f"opening the keyring {path}: {refused}; try an older copy of it") from None


def keyring_key(path: str, header: dict, kind: str, secret: bytes) -> bytes:
    wrapping_key = claviger.key_of_key_file(secret)
    for slot in header["slots"]:
        if slot["kind"] != kind:
            continue
        try:
            return claviger.open_slot(header, slot, wrapping_key)
        except claviger.Refused:
            continue
    raise Fault(
        f"opening the keyring {path}: none of its {kind} slots opens with this root; "
        "give the root of this cluster and of this copy"
    )


def live_kek(keyring: claviger.Keyring, name: str) -> bytes:
    key = next((key for key in keyring.header["keys"] if key["id"] == name), None)
    if key is None:
        raise Fault(f"looking for the key {name}: the keyring has none; try a newer copy of it")
    if key["state"] == "disabled":
        raise Fault(f"looking for the key {name}: it is disabled; enable it first")
    if key["state"] == "destroyed":
        raise Fault(f"looking for the key {name}: it is destroyed; only an older copy can have it")
    return keyring.keks[name]


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Fault(f"reading {path}: {error.strerror}; check its path and mode") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
