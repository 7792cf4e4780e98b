//! Rows 38 to 53: connections that are too many, too slow, too loud or never end.

use std::time::Duration;

use claviger::observer::{Method, Reason, Rejection};
use claviger_proto::v2::StatusRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::MissedTickBehavior;
use tonic::Code;

use crate::frames::{
    CONTINUATION, DATA, ENCRYPT, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE,
    RST_STREAM, WINDOW_UPDATE, begin_call, call_headers, field, frame, greet, message, next_frame,
    setting, until_goaway,
};
use crate::plugin::{Calls, PATIENCE, Plugin, Setup, own_uid, until_closed};

/// For what nobody but the server waits for.
const SHORT: Duration = Duration::from_millis(50);
/// For what a client of this process has to do in time, however busy the machine is.
const FAIR: Duration = Duration::from_millis(500);
const STATUS: &str = "/v2.KeyManagementService/Status";

/// A body of Encrypt with a seed of 32 bytes.
fn seed() -> Vec<u8> {
    message(&field(1, &[7; 32]))
}

#[tokio::test]
async fn row_38_silent_connection_is_closed() {
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.preface = FAIR)).await;
    for said in [&b""[..], &PREFACE[..23]] {
        let mut stream = plugin.connect().await;
        stream.write_all(said).await.unwrap();
        assert_eq!(until_closed(&mut stream).await, b"");
    }
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.rejections, [Rejection::Silence; 2]);
    assert_eq!(tally.opened, 1, "only the last one was served");
}

#[tokio::test]
async fn row_38_one_byte_now_and_then_does_not_move_the_deadline() {
    let limit = Duration::from_millis(300);
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.preface = limit)).await;
    let mut stream = plugin.connect().await;
    let mut pace = tokio::time::interval(limit / 10);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    let closed = loop {
        pace.tick().await;
        if stream.write_all(&PREFACE[sent..=sent]).await.is_err() {
            break true;
        }
        sent += 1;
        if sent == PREFACE.len() {
            break false;
        }
    };
    assert!(
        closed,
        "the whole preface came over {sent} intervals and was awaited"
    );
    plugin
        .heard(|tally| tally.rejections == [Rejection::Silence])
        .await;
    plugin.ends_unharmed().await;
}

fn short_keepalive() -> Setup {
    Setup::limits(|limits| {
        limits.keepalive_interval = SHORT;
        limits.keepalive_timeout = FAIR;
    })
}

#[tokio::test]
async fn row_39_a_peer_that_ignores_pings_is_closed() {
    let plugin = Plugin::start_with(short_keepalive()).await;
    let mut stream = greet(&plugin).await;
    let mut pinged = false;
    while let Some(frame) = next_frame(&mut stream).await {
        pinged |= frame.kind == PING;
    }
    assert!(pinged);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_39_a_peer_that_answers_pings_stays() {
    let plugin = Plugin::start_with(short_keepalive()).await;
    let mut stream = greet(&plugin).await;
    for _ in 0..5 {
        let ping = loop {
            let frame = next_frame(&mut stream)
                .await
                .expect("the connection stays open");
            if frame.kind == PING && frame.flags == 0 {
                break frame;
            }
        };
        stream
            .write_all(&frame(PING, 1, 0, &ping.payload))
            .await
            .unwrap();
    }
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_40_a_body_that_does_not_end_is_answered_at_the_deadline() {
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.call = FAIR)).await;
    let mut stream = greet(&plugin).await;
    stream.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
    stream
        .write_all(&frame(DATA, 0, 1, &seed()[..20]))
        .await
        .unwrap();
    let tally = plugin.heard(|tally| !tally.requests.is_empty()).await;
    assert_eq!(tally.requests, [(Method::Encrypt, Code::DeadlineExceeded)]);
    assert_eq!(tally.refusals, [Reason::Deadline]);
    // The stream is over on both sides, and the connection is as good as before.
    while next_frame(&mut stream).await.unwrap().kind != RST_STREAM {}
    stream.write_all(&begin_call(3, ENCRYPT)).await.unwrap();
    stream
        .write_all(&frame(DATA, END_STREAM, 3, &seed()))
        .await
        .unwrap();
    plugin
        .heard(|tally| tally.requests.last() == Some(&(Method::Encrypt, Code::Ok)))
        .await;
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_40_headers_that_do_not_end_are_cut_off_by_keepalive() {
    let plugin = Plugin::start_with(short_keepalive()).await;
    let headers = call_headers(ENCRYPT);
    for said in [
        frame(HEADERS, 0, 1, &headers[..20]),
        begin_call(1, ENCRYPT)[..30].to_vec(),
    ] {
        let mut stream = greet(&plugin).await;
        stream.write_all(&said).await.unwrap();
        until_closed(&mut stream).await;
    }
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.requests.len(), 1, "no call was made of them");
}

/// Writes the same bytes over and over until the peer stops it, or `times` are written.
async fn flood(stream: &mut UnixStream, mut next: impl FnMut(u32) -> Vec<u8>, times: u32) -> u32 {
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
async fn open_streams(stream: &mut UnixStream, calls: u32, body: Option<&[u8]>) -> Option<Frame> {
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
async fn row_47_of_a_thousand_connections_32_are_kept() {
    let plugin = Plugin::start().await;
    let mut apiserver = plugin.client().await;
    apiserver.answer_status().await;
    let mut kept = Vec::new();
    for _ in 0..1_000 {
        kept.push(greet_or_closed(&plugin).await);
    }
    let tally = plugin.heard(|tally| tally.rejections.len() >= 969).await;
    assert_eq!(tally.rejections, [Rejection::Capacity; 969]);
    plugin.heard(|tally| tally.opened == 32).await;
    apiserver.answer_status().await;
    // One goes, one comes.
    kept.truncate(5);
    plugin.heard(|tally| tally.closed >= 26).await;
    plugin.client().await.answer_status().await;
    drop((apiserver, kept));
    plugin.ends_unharmed().await;
}

async fn greet_or_closed(plugin: &Plugin) -> UnixStream {
    let mut stream = plugin.connect().await;
    // The server may have closed it already.
    let _ = stream.write_all(PREFACE).await;
    let _ = stream.write_all(&frame(4, 0, 0, &[])).await;
    stream
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

#[tokio::test]
async fn row_50_a_client_that_dies_in_a_call_leaves_nothing() {
    let plugin = Plugin::start().await;
    for _ in 0..100 {
        let mut stream = greet(&plugin).await;
        stream.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
        stream
            .write_all(&frame(DATA, 0, 1, &seed()[..20]))
            .await
            .unwrap();
    }
    plugin.heard(|tally| tally.closed == 100).await;
    let tally = plugin.ends_unharmed().await;
    assert!(tally.requests.iter().all(|(method, code)| match method {
        Method::Encrypt => *code == Code::Cancelled || *code == Code::Internal,
        _ => *code == Code::Ok,
    }));
}

#[tokio::test]
async fn row_51_a_peer_that_is_not_allowed_is_closed_before_any_http2() {
    let setup = Setup {
        allowed_uids: vec![own_uid() + 1],
        ..Setup::default()
    };
    let plugin = Plugin::start_with(setup).await;
    let mut stream = plugin.connect().await;
    // It may be closed before we say a word.
    let _ = stream.write_all(PREFACE).await;
    assert_eq!(until_closed(&mut stream).await, b"", "not a byte of HTTP/2");
    let tally = plugin.heard(|tally| !tally.rejections.is_empty()).await;
    assert_eq!(tally.rejections, [Rejection::Uid]);
    assert_eq!(tally.opened, 0);
    plugin.stop();
    plugin.stopped().await;
}

#[tokio::test]
async fn row_53_hung_clients_do_not_hold_up_the_end() {
    let setup = Setup::limits(|limits| limits.drain = SHORT);
    let plugin = Plugin::start_with(setup).await;
    let silent = plugin.connect().await;
    let idle = greet(&plugin).await;
    let mut calling = greet(&plugin).await;
    calling.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
    let mut deaf = greet(&plugin).await;
    deaf.write_all(&setting(4, 0)).await.unwrap();
    deaf.write_all(&begin_call(1, STATUS)).await.unwrap();
    deaf.write_all(&frame(DATA, END_STREAM, 1, &message(&[])))
        .await
        .unwrap();
    plugin
        .heard(|tally| tally.opened == 3 && tally.requests.len() == 1)
        .await;

    plugin.stop();
    let path = plugin.path();
    let tally = plugin.stopped().await;
    assert_eq!((tally.opened, tally.closed), (3, 3));
    assert!(!path.exists(), "the socket file is gone");
    for mut stream in [silent, idle, calling, deaf] {
        until_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn row_53_a_call_that_runs_is_finished_before_the_end() {
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    stream.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
    stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    while next_frame(&mut stream).await.unwrap().kind != PING {}
    plugin.stop();
    let (_, goaway) = until_goaway(&mut stream).await;
    assert_eq!(goaway.expect("GOAWAY").payload[4..8], [0; 4], "NO_ERROR");
    assert!(
        UnixStream::connect(plugin.path()).await.is_err(),
        "nobody else is accepted"
    );
    stream
        .write_all(&frame(DATA, END_STREAM, 1, &seed()))
        .await
        .unwrap();
    let ended = tokio::time::timeout(PATIENCE, async {
        let mut ended = false;
        while let Some(frame) = next_frame(&mut stream).await {
            ended |= frame.kind == HEADERS && frame.flags & END_STREAM != 0;
            // A client that honours GOAWAY acknowledges the ping that goes with it.
            if frame.kind == PING && frame.flags == 0 {
                let ack = crate::frames::frame(PING, 1, 0, &frame.payload);
                let _ = stream.write_all(&ack).await;
            }
        }
        ended
    });
    assert!(
        ended.await.unwrap(),
        "the call was answered to its trailers"
    );
    let tally = plugin.stopped().await;
    assert_eq!(tally.requests, [(Method::Encrypt, Code::Ok)]);
}
