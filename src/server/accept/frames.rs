//! Whether a peer is in the middle of what must end soon: a frame, or the headers of a call, which
//! may span several frames (RFC 9113 §4.1, §6.10). Nothing is interpreted beyond that.

/// Length, type, flags and stream of a frame.
const HEAD: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A place in the stream of bytes that a peer sends.
#[derive(Debug)]
pub(super) struct Frames {
    /// What has come of the next frame's head.
    head: [u8; HEAD],
    head_len: usize,
    /// Bytes of the preface, or of a frame's payload, that are still to come.
    payload: usize,
    /// Headers have begun, and the last of their frames has not.
    in_headers: bool,
}

impl Frames {
    /// Before a preface of this many bytes.
    pub(super) fn before_preface(len: usize) -> Self {
        Self {
            head: [0; HEAD],
            head_len: 0,
            payload: len,
            in_headers: false,
        }
    }

    /// Takes the next bytes. Whether something that had begun ended in them.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while !bytes.is_empty() {
            let taken = if self.payload > 0 {
                let taken = self.payload.min(bytes.len());
                self.payload -= taken;
                taken
            } else {
                self.advance_head(bytes)
            };
            bytes = &bytes[taken..];
            ended |= self.is_between();
        }
        ended
    }

    fn advance_head(&mut self, bytes: &[u8]) -> usize {
        let taken = (HEAD - self.head_len).min(bytes.len());
        self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
        self.head_len += taken;
        if self.head_len == HEAD {
            let [a, b, c, kind, flags, ..] = self.head;
            self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
            self.head_len = 0;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.in_headers = flags & END_HEADERS == 0;
            }
        }
        taken
    }

    /// Whether nothing has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        self.payload == 0 && self.head_len == 0 && !self.in_headers
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![kind; len.into()]);
        frame
    }

    #[test]
    fn frames_and_headers_begin_and_end() {
        let mut frames = Frames::before_preface(3);
        assert!(!frames.is_between());
        assert!(!frames.advance(b"ab") && !frames.is_between());
        assert!(frames.advance(b"c") && frames.is_between());
        // DATA, whole; SETTINGS without payload.
        assert!(frames.advance(&frame(0, 0, 5)) && frames.is_between());
        assert!(frames.advance(&frame(4, 1, 0)) && frames.is_between());
        // Headers that go on.
        assert!(!frames.advance(&frame(HEADERS, 0, 5)) && !frames.is_between());
        assert!(!frames.advance(&frame(CONTINUATION, 0, 0)) && !frames.is_between());
        assert!(frames.advance(&frame(CONTINUATION, END_HEADERS, 2)) && frames.is_between());
        // One ends and another begins.
        let two = [frame(HEADERS, END_HEADERS, 5), frame(0, 0, 5)].concat();
        assert!(frames.advance(&two[..20]) && !frames.is_between());
        assert!(frames.advance(&two[20..]) && frames.is_between());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_cut(
            kinds in prop::collection::vec((0u8..10, any::<u8>(), any::<u8>()), 1..8),
            cut in 1usize..40,
        ) {
            let mut bytes = b"preface".to_vec();
            kinds.iter().for_each(|&(kind, flags, len)| bytes.extend(frame(kind, flags, len)));
            let mut whole = Frames::before_preface(7);
            let ended = whole.advance(&bytes);
            let mut pieces = Frames::before_preface(7);
            let ended_in = bytes.chunks(cut).filter(|piece| pieces.advance(piece)).count();
            prop_assert!(ended && ended_in > 0);
            prop_assert_eq!(whole.is_between(), pieces.is_between());
            let goes_on = |&&(kind, ..): &&(u8, u8, u8)| matches!(kind, HEADERS | CONTINUATION);
            let last = kinds.iter().rfind(goes_on);
            let open = last.is_some_and(|(_, flags, _)| flags & END_HEADERS == 0);
            prop_assert_eq!(whole.is_between(), !open);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            Frames::before_preface(0).advance(&bytes);
        }
    }
}
