//! Does a text hold one of our seeds? In clear, in hex, in base64 at any alignment, or as a list of
//! numbers, which is how Go and Rust print bytes. A part of a seed is enough.

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};

/// A part of a seed that cannot turn up by chance, in bytes.
const PART: usize = 8;
/// Bytes that base64 writes as twelve digits, without padding.
const BASE64_PART: usize = 9;

/// The forms in which a seed may show up.
#[derive(Clone)]
pub(super) struct Needles(Vec<Vec<u8>>);

impl Needles {
    /// The forms of a seed's first and last bytes. Short seeds turn up by chance: they have none.
    pub(super) fn of(seed: &[u8]) -> Self {
        if seed.len() < BASE64_PART + 2 {
            return Self(Vec::new());
        }
        let mut forms = Vec::new();
        for part in [&seed[..PART], &seed[seed.len() - PART..]] {
            let numbers: Vec<_> = part.iter().map(u8::to_string).collect();
            forms.push(part.to_vec());
            forms.push(HEXLOWER.encode(part).into_bytes());
            forms.push(HEXUPPER.encode(part).into_bytes());
            forms.push(numbers.join(" ").into_bytes());
            forms.push(numbers.join(", ").into_bytes());
        }
        let last = seed.len() - BASE64_PART;
        for at in [0, 1, 2, last - 2, last - 1, last] {
            let part = &seed[at..at + BASE64_PART];
            forms.push(BASE64.encode(part).into_bytes());
            forms.push(BASE64URL.encode(part).into_bytes());
        }
        Self(forms)
    }

    /// Whether one of the forms is in there.
    pub(super) fn in_bytes(&self, haystack: &[u8]) -> bool {
        self.0
            .iter()
            .any(|form| haystack.windows(form.len()).any(|window| window == form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 32] = *b"\x00\x01\xfe\xff\xfb\xef\xbe 56789abcdef 345678>?\xff\xfe\xfd\xfc";

    #[test]
    fn every_form_is_found_at_every_alignment() {
        let needles = Needles::of(&SEED);
        for shift in 0..3 {
            let framed = [&b"xyz"[..shift], &SEED, b"tail"].concat();
            let numbers = framed.iter().map(u8::to_string).collect::<Vec<_>>();
            for form in [
                HEXLOWER.encode(&framed),
                HEXUPPER.encode(&framed),
                BASE64.encode(&framed),
                BASE64URL.encode(&framed),
                numbers.join(" "),
                format!("{framed:?}"),
            ] {
                assert!(needles.in_bytes(form.as_bytes()), "{form}");
            }
            assert!(needles.in_bytes(&framed), "raw");
        }
    }

    #[test]
    fn either_end_is_enough() {
        let needles = Needles::of(&SEED);
        assert!(needles.in_bytes(HEXLOWER.encode(&SEED[..10]).as_bytes()));
        assert!(!needles.in_bytes(HEXLOWER.encode(&SEED[8..24]).as_bytes()));
        for shift in 0..3 {
            for part in [&SEED[..13], &SEED[19..]] {
                let framed = [&b"xyz"[..shift], part, b"tail"].concat();
                let text = BASE64.encode(&framed);
                assert!(needles.in_bytes(text.as_bytes()), "{shift}: {text}");
            }
        }
    }

    #[test]
    fn other_bytes_are_not_our_seed() {
        let needles = Needles::of(&SEED);
        assert!(!needles.in_bytes(b""));
        assert!(!needles.in_bytes(&[0; 200]));
        assert!(!needles.in_bytes(BASE64.encode(&[7; 32]).as_bytes()));
        assert!(!Needles::of(b"x").in_bytes(b"xxx"));
    }
}
