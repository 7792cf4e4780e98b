//! HTTP/2 and gRPC by hand: what no well-behaved client would send.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::{Code, Status};

use crate::plugin::{PATIENCE, Plugin};

/// How every HTTP/2 client begins.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const STATUS: &str = "/v2.KeyManagementService/Status";
pub(crate) const ENCRYPT: &str = "/v2.KeyManagementService/Encrypt";
pub(crate) const DECRYPT: &str = "/v2.KeyManagementService/Decrypt";

/// Frame types (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of HEADERS and DATA; SETTINGS and PING call the first one ACK.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// One setting with its value (RFC 9113 §6.5.2).
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// The headers of a call, in HPACK without indexing and without Huffman (RFC 7541 §6.2.2).
pub(crate) fn call_headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let text = |block: &mut Vec<u8>, text: &str| {
        block.push(
            u8::try_from(text.len())
                .ok()
                .filter(|len| *len < 127)
                .unwrap(),
        );
        block.extend(text.as_bytes());
    };
    for (name_index, value) in [(4, path), (1, "localhost")] {
        block.push(name_index);
        text(&mut block, value);
    }
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// HEADERS of a call whose body follows.
pub(crate) fn begin_call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call_headers(path))
}

/// A gRPC message with its prefix.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    prefixed(0, u32::try_from(bytes.len()).unwrap(), bytes)
}

/// A gRPC message with any prefix.
pub(crate) fn prefixed(flag: u8, len: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![flag];
    message.extend(len.to_be_bytes());
    message.extend(bytes);
    message
}

/// A protobuf field of wire type 2 with fewer than 128 bytes.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    assert!(bytes.len() < 128);
    field.extend(bytes);
    field
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A plugin in this process or another one.
pub(crate) trait Listens {
    fn socket(&self) -> PathBuf;
}

impl Listens for Plugin {
    fn socket(&self) -> PathBuf {
        self.path()
    }
}

/// A connection that says nothing by itself. While the backlog is full, the kernel says so at once.
pub(crate) async fn connect(plugin: &impl Listens) -> UnixStream {
    loop {
        match UnixStream::connect(plugin.socket()).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::task::yield_now().await;
            }
            connected => return connected.unwrap(),
        }
    }
}

/// A connection on which the client's first words were said.
pub(crate) async fn greet(plugin: &impl Listens) -> UnixStream {
    let mut stream = connect(plugin).await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The server's next frame, or none where it closed the connection.
pub(crate) async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let read = async {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        io::Result::Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server says something")
        .ok()
}

/// Reads until the server says GOAWAY or closes; every frame before that.
pub(crate) async fn until_goaway(stream: &mut UnixStream) -> (VecDeque<Frame>, Option<Frame>) {
    let mut seen = VecDeque::new();
    while let Some(frame) = next_frame(stream).await {
        if frame.kind == GOAWAY {
            return (seen, Some(frame));
        }
        seen.push_back(frame);
    }
    (seen, None)
}

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) reason: Option<String>,
    /// The body, gRPC prefix included.
    pub(crate) body: Vec<u8>,
}

/// One call on a connection of its own, with any headers and any body; the body's end is sent.
pub(crate) async fn call(
    plugin: &impl Listens,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, h2::Error> {
    let mut request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    exchange(plugin, request.body(()).unwrap(), Some(body)).await
}

/// One request on a connection of its own. Without a body the stream stays open.
pub(crate) async fn exchange(
    plugin: &impl Listens,
    request: http::Request<()>,
    body: Option<&[u8]>,
) -> Result<Answer, h2::Error> {
    let (mut client, connection) = h2::client::handshake(connect(plugin).await).await?;
    tokio::spawn(connection);
    let (response, mut sending) = client.send_request(request, false)?;
    if let Some(body) = body {
        // A server that refuses early resets the stream; its answer is what counts.
        let _ = sending.send_data(Bytes::copy_from_slice(body), true);
    }
    let answered = tokio::time::timeout(PATIENCE, response)
        .await
        .expect("an answer comes");
    let (head, mut receiving) = answered?.into_parts();
    let mut received = Vec::new();
    while let Some(chunk) = receiving.data().await {
        received.extend(chunk?);
    }
    let trailers = receiving.trailers().await?.unwrap_or_default();
    let status = Status::from_header_map(&head.headers)
        .or_else(|| Status::from_header_map(&trailers))
        .unwrap_or_else(|| Status::unknown("no status"));
    let reason = status.metadata().get(claviger::observer::REASON_METADATA);
    Ok(Answer {
        http: head.status.as_u16(),
        code: status.code(),
        message: status.message().to_owned(),
        reason: reason.map(|reason| reason.to_str().unwrap().to_owned()),
        body: received,
    })
}
