//! The last step of a log line: onto stderr whole, or counted as lost.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_appender::non_blocking::ErrorCounter;

/// Lines that could not be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Failed(Arc<AtomicU64>);

/// How many log lines were lost since the start, to a full queue or a failing stderr.
#[derive(Debug, Clone)]
pub struct DroppedLines {
    queue_full: ErrorCounter,
    failed: Failed,
}

impl DroppedLines {
    pub(super) fn new(queue_full: ErrorCounter, failed: Failed) -> Self {
        Self { queue_full, failed }
    }

    /// The number of lines.
    pub fn count(&self) -> u64 {
        let queue_full = u64::try_from(self.queue_full.dropped_lines()).unwrap_or(u64::MAX);
        queue_full.saturating_add(self.failed.0.load(Ordering::Relaxed))
    }
}

/// Writes one event per call, as one line. It reports no error: nobody could act on it, and the
/// appender would lose the line uncounted.
pub(super) struct Sink<W> {
    to: W,
    failed: Failed,
    /// The last line was cut off in its middle.
    torn: bool,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(to: W, failed: Failed) -> Self {
        Self {
            to,
            failed,
            torn: false,
        }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            write_whole(&mut self.to, b"\n", &mut self.torn)?;
        }
        write_whole(&mut self.to, line, &mut self.torn)
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.write_line(&one_line(event)).is_err() {
            self.failed.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.to.flush();
        Ok(())
    }
}

/// Like `write_all`, but says whether a part was written when it fails. Where a part was missing
/// before, it stays so until a whole write.
fn write_whole<W: Write>(to: &mut W, mut bytes: &[u8], torn: &mut bool) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                *torn = !bytes.is_empty();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// An event is one line, whatever stands in its fields: a collector must not take the rest of a
/// message for an event of its own.
fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for byte in text {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then fails until it is given more.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let mut disk = Disk {
            room: 10,
            ..Disk::default()
        };
        let failed = Failed::default();
        let mut sink = Sink::new(&mut disk, failed.clone());
        for line in ["first\n", "second\n", "third\n"] {
            sink.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(failed.0.load(Ordering::Relaxed), 2);

        sink.to.room = 100;
        sink.write_all(b"fourth\n").unwrap();
        sink.write_all(b"fifth\n").unwrap();
        assert_eq!(failed.0.load(Ordering::Relaxed), 2);
        // The torn line ends before the next one begins.
        assert_eq!(
            String::from_utf8_lossy(&disk.bytes),
            "first\nseco\nfourth\nfifth\n"
        );
    }

    #[test]
    fn an_event_is_one_line() {
        let lines: [(&[u8], &[u8]); 5] = [
            (b"plain\n", b"plain\n"),
            (b"a\nb\n", b"a\\nb\n"),
            (b"a\r\n\n", b"a\\r\\n\n"),
            (b"\n", b"\n"),
            (b"no end", b"no end"),
        ];
        for (event, line) in lines {
            assert_eq!(
                String::from_utf8_lossy(&one_line(event)),
                String::from_utf8_lossy(line)
            );
        }
    }
}
