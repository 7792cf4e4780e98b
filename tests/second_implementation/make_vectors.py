#!/usr/bin/env python3
"""Writes the golden files under tests/vectors; `--check` compares and writes nothing.

Everything is fixed, nonces too, so that the files are the same bytes on every run. Once a release
has shipped, a file is never changed: a new format gets new files.
"""

import json
import sys
from pathlib import Path

from invalid_bytes import invalid_bytes
from invalid_headers import invalid_headers
from small_vectors import small_vectors
from valid_documents import valid_documents
from vector_values import KEYRING_KEY, ROOT_KEY

VECTORS = Path(__file__).resolve().parent.parent / "vectors"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("make_vectors: takes --check or nothing", file=sys.stderr)
        return 1
    wanted = golden_files()
    if arguments:
        return check(wanted)
    for name, content in wanted.items():
        path = VECTORS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{len(wanted)} golden files written")
    return 0


def check(wanted: dict[str, bytes]) -> int:
    faults = differences(wanted, VECTORS)
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"{len(wanted)} golden files are as they should be")
    return 1 if faults else 0


def differences(wanted: dict[str, bytes], folder: Path) -> list[str]:
    """What is missing or differs; in `document`, which holds nothing else, also what is extra."""
    faults = []
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif path.read_bytes() != content:
            faults.append(f"{name}: differs")
    found = {path.relative_to(folder).as_posix() for path in (folder / "document").rglob("*.*")}
    return faults + [f"{name}: nothing makes it" for name in sorted(found - wanted.keys())]


def golden_files() -> dict[str, bytes]:
    """By path below `vectors`."""
    files = {name: as_json(content) for name, content in small_vectors().items()}
    for name, (data, beside) in valid_documents().items():
        files[f"document/valid/{name}.keyring"] = data
        files[f"document/valid/{name}.json"] = as_json(beside)
    invalid = [*invalid_bytes(), *invalid_headers()]
    for entry in invalid:
        path = f"document/invalid/{entry.name}.keyring"
        assert path not in files, path
        files[path] = entry.data
    files["document/invalid/reasons.json"] = as_json(reasons(invalid))
    return files


def reasons(invalid: list) -> dict:
    return {
        "about": "Why each document beside this file must be refused. keyringKey is the key that "
        "a sound one is sealed with, rootKey opens its slot of kind key-file. sealed: line 2 opens "
        "with line 1 as it stands, so that only the defect can be the reason. class is the second "
        "implementation's word for the refusal.",
        "rootKey": ROOT_KEY.hex(),
        "keyringKey": KEYRING_KEY.hex(),
        "files": {
            entry.name: {"reason": entry.reason, "class": entry.kind, "sealed": entry.sealed}
            for entry in invalid
        },
    }


def as_json(content: dict) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
