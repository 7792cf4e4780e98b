//! Waiting for a peer's first words.

use std::io;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How every HTTP/2 client begins (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The peer said something else, or hung up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotHttp2;

/// Waits until the whole preface has arrived, and leaves it in the socket for the HTTP/2 server.
pub(super) async fn arrival(stream: &UnixStream) -> Result<(), NotHttp2> {
    loop {
        let readiness = stream
            .ready(Interest::READABLE)
            .await
            .map_err(|_| NotHttp2)?;
        match stream.try_io(Interest::READABLE, || is_preface(stream)) {
            Ok(true) => return Ok(()),
            // Nothing more comes from a peer that hung up, and its readiness never ends: without
            // this we would turn in circles.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && !readiness.is_read_closed() => {}
            Ok(false) | Err(_) => return Err(NotHttp2),
        }
    }
}

/// Whether the stream begins with the preface. While it may still become one, the answer is
/// [`io::ErrorKind::WouldBlock`], after which the runtime waits for more bytes.
fn is_preface(stream: &UnixStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let (_, len) = rustix::net::recv(stream, &mut start, RecvFlags::PEEK)?;
    match &start[..len] {
        start if start == PREFACE => Ok(true),
        start if PREFACE.starts_with(start) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_preface_is_left_in_the_socket() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(PREFACE).await.unwrap();
        client.write_all(b"more").await.unwrap();
        assert_eq!(arrival(&server).await, Ok(()));
        let mut read = [0; 28];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore");
    }

    #[tokio::test]
    async fn a_preface_may_come_byte_by_byte() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut arrival = waiting(server);
        for byte in PREFACE {
            assert!(!arrival.is_finished());
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!((&mut arrival).await.unwrap(), Ok(()));
    }

    fn waiting(server: UnixStream) -> tokio::task::JoinHandle<Result<(), NotHttp2>> {
        tokio::spawn(async move { arrival(&server).await })
    }

    #[tokio::test]
    async fn row_14_anything_else_is_noise_at_the_first_wrong_byte() {
        for noise in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"PRI * HTTP/2.1",
            b"\0",
        ] {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(noise).await.unwrap();
            assert_eq!(arrival(&server).await, Err(NotHttp2), "{noise:?}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_half_way_is_noise() {
        for said in [&b""[..], b"PRI", &PREFACE[..23]] {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(said).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(arrival(&server).await, Err(NotHttp2), "{said:?}");
        }
    }
}
