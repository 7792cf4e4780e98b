#!/usr/bin/env python3
"""The program `open_seed.py`, run as a person runs it."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from make_vectors import VECTORS

HERE = Path(__file__).resolve().parent
VALID = VECTORS / "document" / "valid"


class OpenSeed(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        ciphertexts = json.loads((VECTORS / "ciphertext.json").read_text("utf-8"))
        self.vector = next(v for v in ciphertexts["valid"] if v["name"] == "seed_of_32")
        self.beside = json.loads((VALID / "two_slots.json").read_text("utf-8"))
        self.root, self.recovery = self.beside["open"]
        self.files = {
            "root_key": bytes.fromhex(self.root["rootKey"]),
            "recovery_key": (self.recovery["recoveryKey"] + "\n").encode(),
            "keyring": (VALID / "two_slots.keyring").read_bytes(),
            "ciphertext": bytes.fromhex(self.vector["ciphertext"]),
        }

    def run_program(self, root: str = "root", **changed) -> subprocess.CompletedProcess:
        key_id = changed.pop("key_id", self.vector["keyId"])
        for name, content in {**self.files, **changed}.items():
            Path(self.folder, name).write_bytes(content)
        arguments = [f"--{root}-key", f"{root}_key", "--keyring", "keyring"]
        return self.run_with(*arguments, "--ciphertext", "ciphertext", "--key-id", key_id)

    def run_with(self, *arguments: str) -> subprocess.CompletedProcess:
        program = [sys.executable, HERE / "open_seed.py", *arguments]
        return subprocess.run(program, cwd=self.folder, capture_output=True, text=True)

    def assert_fault(self, run: subprocess.CompletedProcess, words: str):
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        self.assertEqual(run.stderr.count("\n"), 1, run.stderr)
        self.assertIn(words, run.stderr)

    def test_each_root_opens_it(self):
        for root in ("root", "recovery"):
            run = self.run_program(root)
            self.assertEqual((run.returncode, run.stderr), (0, ""))
            self.assertEqual(run.stdout, self.vector["seed"] + "\n")

    def test_faults(self):
        root, recovery, keyring, ciphertext = self.files.values()
        other_revision = keyring.replace(b'"revision":2', b'"revision":3')
        every_state = (VALID / "every_state.keyring").read_bytes()
        for kind, words, changed in (
            ("root", "has 31 bytes", {"root_key": root[:-1]}),
            ("root", "slots opens", {"root_key": bytes(32)}),
            ("recovery", "checksum", {"recovery_key": b"1" + recovery[1:]}),
            ("recovery", "not text", {"recovery_key": b"\xff"}),
            ("recovery", "slots opens", {"keyring": every_state}),
            ("root", "tag does not verify", {"ciphertext": ciphertext[:-1]}),
            ("root", "tag does not verify", {"keyring": other_revision}),
            ("root", "two lines", {"keyring": b""}),
            ("root", "keyring has none", {"key_id": "k1-" + "0" * 32}),
            ("root", "it is destroyed", {"key_id": self.beside["keys"][2]["id"]}),
            ("root", "it is disabled", {"keyring": every_state}),
        ):
            with self.subTest(words):
                self.assert_fault(self.run_program(kind, **changed), words)

    def test_faults_of_the_command_line(self):
        self.assert_fault(self.run_with(), "required")
        both = ["--root-key", "a", "--recovery-key", "b"]
        self.assert_fault(self.run_with(*both), "not allowed with")
        absent = ["--root-key", "absent", "--keyring", "a", "--ciphertext", "b", "--key-id", "c"]
        self.assert_fault(self.run_with(*absent), "No such file")


if __name__ == "__main__":
    unittest.main()
