"""Invalid documents whose defect is in their bytes: lines, spelling of the JSON, line 2, seal."""

import base64
from collections.abc import Iterator

import claviger_format as claviger
from faulty import Invalid, over_header, over_line, over_text, sound_document, sound_line
from vector_values import (
    DESTROYED_KEK,
    KEK_A,
    KEK_B,
    KEK_C,
    KEYRING_KEY,
    LIVE_KEKS,
    OLD_KEYRING_KEY,
    flipped,
    key_file_slot,
    nonce,
)


def invalid_bytes() -> list[Invalid]:
    return [*lines(), *json_spellings(), *bodies(), *seals()]


def lines() -> Iterator[Invalid]:
    kind = "lines"
    sound = sound_document("lines")
    line_1, line_2, _ = sound.split(b"\n")
    bom = b"\xef\xbb\xbf"

    def raw(name: str, reason: str, data: bytes, sealed: bool) -> Invalid:
        return Invalid(name, kind, reason, data, sealed)

    yield raw("empty", "an empty file", b"", False)
    yield raw("first_line_only", "line 2 is missing", line_1 + b"\n", False)
    yield raw("no_final_newline", "line 2 has no LF at its end", sound[:-1], True)
    yield raw("third_line", "a line after line 2", sound + b"more\n", True)
    yield raw("third_line_empty", "an empty line after line 2", sound + b"\n", True)
    yield raw("nul_at_end", "a byte after the last LF", sound + b"\0", True)
    yield raw("line_2_twice", "line 2 again", sound + line_2 + b"\n", True)
    wrapped = line_1 + b"\n" + line_2[:76] + b"\n" + line_2[76:] + b"\n"
    yield raw("wrapped_base64", "base64 wrapped at 76 letters", wrapped, False)
    yield raw("empty_line_first", "an empty line before line 1", b"\n" + sound, False)
    yield raw(
        "crlf", "CR LF line ends, sealed without the CR", sound.replace(b"\n", b"\r\n"), False
    )
    yield over_line("crlf_sealed", kind, "a CR at the end of line 1", line_1 + b"\r")
    yield raw("cr_on_line_2", "a CR at the end of line 2", sound[:-1] + b"\r\n", True)
    yield raw("bom", "a byte order mark, sealed without it", bom + sound, False)
    yield over_line("bom_sealed", kind, "a byte order mark", bom + line_1)
    filler = claviger.LARGEST_DOCUMENT + 1 - len(sound)
    name = "vectors" + "x" * filler
    too_large = over_header("too_large", "size", "one byte more than 512 KiB", clusterName=name)
    assert len(too_large.data) == claviger.LARGEST_DOCUMENT + 1
    yield too_large


def json_spellings() -> Iterator[Invalid]:
    kind, line = "json", sound_line()
    yield over_line("trailing_space", kind, "a space at the end of line 1", line + b" ")
    yield over_line("leading_space", kind, "a space at the start of line 1", b" " + line)
    yield over_text("space_after_colon", kind, "a space in the JSON", '"format":1', '"format": 1')
    yield over_text(
        "tab_after_comma", kind, "a tab in the JSON", '1,"clusterId"', '1,\t"clusterId"'
    )
    yield over_text("escaped_letter", kind, "a letter escaped", '"local"', '"\\u006cocal"')
    yield over_text("escaped_solidus", kind, "a solidus escaped", '"vectors"', '"vec\\/tors"')
    yield over_text(
        "escaped_field_name", kind, "a field name escaped", '"merged"', '"\\u006derged"'
    )
    yield over_text("lone_surrogate", kind, "half a surrogate pair", '"vectors"', '"\\ud83d"')
    not_utf_8 = line.replace(b'"vectors"', b'"\xff"')
    yield over_line("invalid_utf8", kind, "a byte that is not UTF-8", not_utf_8)
    yield over_text("raw_control_character", kind, "a tab in a string", '"vectors"', '"vec\ttors"')
    yield over_text("leading_zero", kind, "a number with a leading zero", ":2,", ":02,")
    yield over_text("float_revision", "value", "a revision with a fraction", ":2,", ":2.0,")
    yield over_text("exponent_revision", kind, "a revision with an exponent", ":2,", ":2e0,")
    yield over_text("minus_zero", kind, "minus zero", '"rotateEvery":0', '"rotateEvery":-0')
    yield over_text("nan_duration", kind, "NaN", '"rotateEvery":0', '"rotateEvery":NaN')
    yield over_text("trailing_comma", kind, "a comma after the last slot", "}]}", "}],}")
    yield over_line("comment", kind, "a comment after the header", line + b"//")
    yield over_line("two_headers", kind, "a second header on line 1", line + line)
    yield over_line("header_in_array", kind, "an array around the header", b"[" + line + b"]")
    yield over_text("deep_nesting", kind, "10,000 open brackets", '"vectors"', "[" * 10_000)
    no_header = claviger.seal_document(b"", [], KEYRING_KEY, nonce("body of empty_header"))
    yield Invalid("empty_header", kind, "line 1 is empty", no_header, True)


def bodies() -> Iterator[Invalid]:
    kind = "body"
    sound = sound_document("bodies")
    line_1, line_2, _ = sound.split(b"\n")
    text = line_2.decode()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert text.endswith("=") and not text.endswith("==") and ("+" in text or "/" in text)
    spare = text[:-2] + letters[letters.index(text[-2]) + 1] + "="

    def with_line_2(name: str, reason: str, changed: str) -> Invalid:
        assert changed != text
        data = line_1 + b"\n" + changed.encode() + b"\n"
        return Invalid(name, kind, reason, data, False)

    yield with_line_2("empty_line_2", "line 2 is empty", "")
    yield with_line_2("unpadded_base64", "no padding", text.rstrip("="))
    yield with_line_2("overpadded_base64", "padding too much", text + "=")
    url_safe = text.replace("+", "-").replace("/", "_")
    yield with_line_2("url_safe_base64", "the alphabet for URLs", url_safe)
    yield with_line_2("spare_bits_in_base64", "spare bits that are not zero", spare)
    yield with_line_2("trailing_space_on_line_2", "a space at the end of line 2", text + " ")
    yield with_line_2("leading_space_on_line_2", "a space at the start of line 2", " " + text)
    yield with_line_2("not_base64", "a letter outside base64", "*" + text[1:])
    yield with_line_2("hex_body", "hex instead of base64", base64.b64decode(text).hex())
    yield over_line("wrong_body_length", kind, "one KEK is missing", sound_line(), [KEK_A])
    all_keks = [*LIVE_KEKS, DESTROYED_KEK]
    yield over_line("kek_of_tombstone", kind, "a destroyed key's KEK", sound_line(), all_keks)
    short = [KEK_A, KEK_B[:-1]]
    yield over_line("kek_of_31_bytes", kind, "the last KEK has 31 bytes", sound_line(), short)
    yield over_line("no_kek", kind, "no KEK at all", sound_line(), [])


def seals() -> Iterator[Invalid]:
    kind = "authentication"
    line = sound_line()
    renamed = sound_document("header_bit_flipped").replace(b'"vectors"', b'"wectors"')
    yield Invalid("header_bit_flipped", kind, "one bit of the cluster name", renamed, False)
    for name, reason, bit in (
        ("body_bit_flipped", "one bit of a KEK", 24 * 8),
        ("nonce_bit_flipped", "one bit of the nonce", 0),
        ("tag_bit_flipped", "one bit of the tag", -1),
    ):
        body = base64.b64decode(sound_document(name).split(b"\n")[1])
        data = line + b"\n" + base64.b64encode(flipped(body, bit)) + b"\n"
        yield Invalid(name, kind, reason, data, False)
    right = claviger.derive(KEYRING_KEY, "claviger/v1/keyring/seal")
    other = claviger.derive(OLD_KEYRING_KEY, "claviger/v1/keyring/seal")
    for name, reason, sealing_key, aad in (
        ("sealed_by_another_keyring_key", "another keyring key", other, line),
        ("keyring_key_used_directly", "KK instead of D(KK, …)", KEYRING_KEY, line),
        ("newline_in_aad", "an AAD with the LF", right, line + b"\n"),
        ("no_aad", "no AAD", right, b""),
    ):
        number = nonce(f"body of {name}")
        body = number + claviger.xaes_seal(sealing_key, number, b"".join(LIVE_KEKS), aad)
        data = line + b"\n" + base64.b64encode(body) + b"\n"
        yield Invalid(name, kind, reason, data, False)
    other_id = claviger.keyring_key_id(OLD_KEYRING_KEY)
    yield over_header(
        "keyring_key_id_of_another",
        "keyring_key",
        "the keyringKeyId of another keyring key, also in the slot's statement",
        keyringKeyId=other_id.hex(),
        slots=[key_file_slot(keyring_key_id=other_id)],
    )
    yield over_line("key_id_not_of_kek", "key_id", "another KEK's bytes", line, [KEK_A, KEK_C])
    yield over_line("keks_in_other_order", "key_id", "KEKs swapped", line, [KEK_B, KEK_A])
