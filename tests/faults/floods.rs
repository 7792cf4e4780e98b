//! Rows 41 to 46 and 49: peers that send more than anybody could want.

use claviger::observer::{Method, Reason};
use claviger_proto::v2::StatusRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;

use crate::connections::{FAIR, seed, short_keepalive};
use crate::frames::{
    CONTINUATION, DATA, ENCRYPT, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    WINDOW_UPDATE, begin_call, call_headers, frame, greet, next_frame, setting, until_goaway,
};
use crate::plugin::{Calls, Plugin, Setup, until_closed};

/// Writes the same bytes over and over until the peer stops it, or `times` are written.
pub(crate) async fn flood(
    stream: &mut UnixStream,
    mut next: impl FnMut(u32) -> Vec<u8>,
    times: u32,
) -> u32 {
    let (mut reading, mut writing) = stream.split();
    let drain = async { while matches!(reading.read(&mut [0; 4096]).await, Ok(1..)) {} };
    let write = async {
        for time in 0..times {
            if writing.write_all(&next(time)).await.is_err() {
                return time;
            }
        }
        times
    };
    tokio::pin!(write);
    tokio::select! {
        written = &mut write => written,
        () = drain => write.await,
    }
}

#[tokio::test]
async fn row_41_rapid_resets_end_the_connection() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    let reset = |time: u32| {
        let id = 2 * time + 1;
        let mut frames = begin_call(id, ENCRYPT);
        frames.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
        frames
    };
    let written = flood(&mut stream, reset, 1_000_000).await;
    assert!(written < 10_000, "{written} streams were reset");
    until_closed(&mut stream).await;
    let tally = plugin.ends_unharmed().await;
    assert!(
        tally.requests.len() < 10_000,
        "{} calls were begun",
        tally.requests.len()
    );
}

#[tokio::test]
async fn row_42_endless_continuations_end_the_connection() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    stream
        .write_all(&frame(HEADERS, 0, 1, &call_headers(ENCRYPT)))
        .await
        .unwrap();
    // Literal headers without a name that fits the table: x: 100 bytes.
    let mut block = vec![0, 1, b'x', 100];
    block.extend([b'v'; 100]);
    let more = frame(CONTINUATION, 0, 1, &block.repeat(10));
    let written = flood(&mut stream, |_| more.clone(), 100_000).await;
    assert!(written < 1_000, "{written} frames were taken");
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_42_empty_continuations_end_the_connection() {
    let plugin = Plugin::start_with(short_keepalive()).await;
    let mut stream = greet(&plugin).await;
    stream
        .write_all(&frame(HEADERS, 0, 1, &call_headers(ENCRYPT)))
        .await
        .unwrap();
    let more = frame(CONTINUATION, 0, 1, &[]);
    let written = flood(&mut stream, |_| more.clone(), 1_000_000).await;
    assert!(written < 1_000_000, "{written} frames were taken");
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_43_a_flood_of_empty_data_ends_the_connection() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    stream.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    let written = flood(&mut stream, |_| empty.clone(), 100_000).await;
    assert!(written < 1_000, "{written} hundred frames were taken");
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_44_a_header_list_over_the_limit_is_refused() {
    let plugin = Plugin::start().await;
    let mut bystander = plugin.client().await;
    for size in [9 * 1024, 1024 * 1024] {
        let mut stream = greet(&plugin).await;
        let mut block = call_headers(ENCRYPT);
        for _ in 0..size / 100 {
            block.extend([0, 1, b'x', 96]);
            block.extend([b'v'; 96]);
        }
        let chunks: Vec<_> = block.chunks(16_000).collect();
        let last = chunks.len() - 1;
        let frames = |time: u32| {
            let kind = if time == 0 { HEADERS } else { CONTINUATION };
            let ends = if time as usize == last {
                END_HEADERS
            } else {
                0
            };
            let flags = if time == 0 { ends | END_STREAM } else { ends };
            frame(kind, flags, 1, chunks[time as usize])
        };
        flood(&mut stream, frames, chunks.len() as u32).await;
        drop(stream);
    }
    bystander.answer_status().await;
    drop(bystander);
    let tally = plugin.ends_unharmed().await;
    assert!(
        tally
            .requests
            .iter()
            .all(|(method, _)| *method == Method::Status),
        "{tally:?}"
    );
}

#[tokio::test]
async fn row_45_frames_that_want_answers_do_not_pile_up_for_a_peer_that_does_not_read() {
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.write_stall = FAIR)).await;
    for wants_answer in [frame(PING, 0, 0, &[0; 8]), setting(5, 16_384)] {
        let mut stream = greet(&plugin).await;
        let many = wants_answer.repeat(1_000);
        let mut written = 0usize;
        // Not one answer is read, so the server must stop to read us, and then give us up.
        while stream.write_all(&many).await.is_ok() {
            written += many.len();
            assert!(written < 64 * 1024 * 1024, "the server reads on and on");
        }
    }
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_45_a_window_that_overflows_ends_the_connection() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    stream
        .write_all(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()))
        .await
        .unwrap();
    let (_, goaway) = until_goaway(&mut stream).await;
    let error = goaway.expect("GOAWAY").payload[4..8].to_vec();
    assert_eq!(error, 3u32.to_be_bytes(), "FLOW_CONTROL_ERROR");
    drop(stream);
    plugin.ends_unharmed().await;
}

/// Opens `calls` streams of Encrypt, with a body or without, and waits until the server has seen
/// them all: it answers a PING, or says GOAWAY, which is returned.
pub(crate) async fn open_streams(
    stream: &mut UnixStream,
    calls: u32,
    body: Option<&[u8]>,
) -> Option<Frame> {
    let mut frames = Vec::new();
    for call in 0..calls {
        let id = 2 * call + 1;
        frames.extend(begin_call(id, ENCRYPT));
        frames.extend(
            body.iter()
                .flat_map(|body| frame(DATA, END_STREAM, id, body)),
        );
    }
    frames.extend(frame(PING, 0, 0, &[0; 8]));
    let (mut reading, mut writing) = stream.split();
    // The server may close the connection before it has read all.
    let write = async { writing.write_all(&frames).await.ok() };
    let read = async {
        while let Some(frame) = next_frame(&mut reading).await {
            match frame.kind {
                GOAWAY => return Some(frame),
                PING if frame.flags == 1 => return None,
                DATA => panic!("an answer: {frame:?}"),
                _ => {}
            }
        }
        panic!("the connection was closed without GOAWAY")
    };
    tokio::join!(write, read).1
}

#[tokio::test]
async fn row_46_a_client_that_gives_no_window_holds_up_nobody_else() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    stream.write_all(&setting(4, 0)).await.unwrap();
    let goaway = open_streams(&mut stream, 128, Some(&seed())).await;
    assert!(goaway.is_none(), "{goaway:?}");
    plugin
        .heard(|tally| tally.requests == [(Method::Encrypt, Code::Ok); 128])
        .await;
    plugin.client().await.answer_status().await;
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_46_an_answer_that_nobody_takes_is_dropped_at_the_deadline() {
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.stream = FAIR)).await;
    let mut stream = greet(&plugin).await;
    stream.write_all(&setting(4, 0)).await.unwrap();
    let goaway = open_streams(&mut stream, 3, Some(&seed())).await;
    assert!(goaway.is_none(), "{goaway:?}");
    let mut reset = Vec::new();
    while reset.len() < 3 {
        let frame = next_frame(&mut stream).await.expect("the connection stays");
        assert_ne!(frame.kind, DATA, "there is no window for it");
        if frame.kind == RST_STREAM {
            reset.push((frame.stream, frame.payload));
        }
    }
    reset.sort();
    let cancel = 8u32.to_be_bytes().to_vec();
    assert_eq!(reset, [1, 3, 5].map(|stream| (stream, cancel.clone())));
    // The connection is as good as before.
    stream.write_all(&setting(4, 65_535)).await.unwrap();
    stream.write_all(&begin_call(7, ENCRYPT)).await.unwrap();
    let body = frame(DATA, END_STREAM, 7, &seed());
    stream.write_all(&body).await.unwrap();
    while next_frame(&mut stream).await.unwrap().kind != DATA {}
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_46_answers_that_wait_for_a_window_are_bounded() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    stream.write_all(&setting(4, 0)).await.unwrap();
    let goaway = open_streams(&mut stream, 10_000, Some(&seed())).await;
    assert!(goaway.is_some());
    drop(stream);
    let tally = plugin.ends_unharmed().await;
    // 128 wait for a window. 64 more are refused, and then the connection ends.
    assert!(tally.requests.len() <= 128 + 1, "{}", tally.requests.len());
}

#[tokio::test]
async fn row_49_of_128_calls_at_once_all_run() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    let goaway = open_streams(&mut stream, 128, None).await;
    assert!(goaway.is_none(), "{goaway:?}");
    for call in 0..128 {
        stream
            .write_all(&frame(DATA, END_STREAM, 2 * call + 1, &seed()))
            .await
            .unwrap();
    }
    let tally = plugin.heard(|tally| tally.requests.len() == 128).await;
    assert_eq!(tally.requests, [(Method::Encrypt, Code::Ok); 128]);
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_49_calls_beyond_the_limit_of_a_connection_are_shed() {
    let setup = Setup::limits(|limits| limits.calls_per_connection = 64);
    let plugin = Plugin::start_with(setup).await;
    let mut stream = greet(&plugin).await;
    let goaway = open_streams(&mut stream, 128, None).await;
    assert!(goaway.is_none(), "{goaway:?}");
    let tally = plugin.heard(|tally| tally.requests.len() == 64).await;
    assert_eq!(
        tally.requests,
        [(Method::Encrypt, Code::ResourceExhausted); 64]
    );
    assert_eq!(tally.refusals, [Reason::Overload; 64]);
    for call in 0..64 {
        stream
            .write_all(&frame(DATA, END_STREAM, 2 * call + 1, &seed()))
            .await
            .unwrap();
    }
    let tally = plugin.heard(|tally| tally.requests.len() == 128).await;
    assert_eq!(tally.requests[64..], [(Method::Encrypt, Code::Ok); 64]);
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_49_ten_thousand_calls_at_once_are_all_answered() {
    let plugin = Plugin::start().await;
    let client = plugin.client().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let mut client = client.clone();
        calls.spawn(async move { client.status(StatusRequest {}).await });
    }
    let codes: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .map(|answer| answer.map(drop))
        .collect();
    assert!(codes.iter().all(|answer| match answer {
        Ok(()) => true,
        Err(status) => status.code() == Code::ResourceExhausted,
    }));
    assert!(codes.iter().any(Result::is_ok));
    drop(client);
    plugin.ends_unharmed().await;
}
