//! Rows 38 to 40, 47 and 50 to 53: connections that are too many, too slow or never end.

use std::time::Duration;

use claviger::observer::{Method, Reason, Rejection};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::MissedTickBehavior;
use tonic::Code;

use crate::frames::{
    CONTINUATION, DATA, ENCRYPT, END_STREAM, HEADERS, Listens, PING, PREFACE, RST_STREAM, STATUS,
    begin_call, call_headers, connect, field, frame, greet, message, next_frame, setting,
    until_goaway,
};
use crate::plugin::{Calls, PATIENCE, Plugin, Setup, own_uid, until_closed};

/// For what nobody but the server waits for.
const SHORT: Duration = Duration::from_millis(50);
/// For what a client of this process has to do in time, however busy the machine is.
pub(crate) const FAIR: Duration = Duration::from_millis(500);

/// A body of Encrypt with a seed of 32 bytes.
pub(crate) fn seed() -> Vec<u8> {
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

pub(crate) fn short_keepalive() -> Setup {
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
async fn row_40_headers_that_do_not_end_are_cut_off() {
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.frame = FAIR)).await;
    let headers = call_headers(ENCRYPT);
    for said in [
        frame(HEADERS, 0, 1, &headers[..20]),
        begin_call(1, ENCRYPT)[..30].to_vec(),
        begin_call(1, ENCRYPT)[..5].to_vec(),
    ] {
        let mut stream = greet(&plugin).await;
        stream.write_all(&said).await.unwrap();
        until_closed(&mut stream).await;
    }
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.requests.len(), 1, "no call was made of them");
}

#[tokio::test]
async fn row_40_a_byte_of_headers_now_and_then_does_not_move_the_deadline() {
    let limit = Duration::from_millis(300);
    let plugin = Plugin::start_with(Setup::limits(|limits| limits.frame = limit)).await;
    let mut idle = plugin.client().await;
    idle.answer_status().await;
    let mut stream = greet(&plugin).await;
    // Each byte is a frame of its own, so that only the headers as a whole are late.
    let headers = call_headers(ENCRYPT);
    let mut pace = tokio::time::interval(limit / 10);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closed = false;
    for (at, byte) in headers.iter().enumerate() {
        pace.tick().await;
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        closed = stream
            .write_all(&frame(kind, 0, 1, &[*byte]))
            .await
            .is_err();
        if closed {
            break;
        }
    }
    assert!(closed, "all of {} intervals were awaited", headers.len());
    // Who is in the middle of nothing may take its time.
    idle.answer_status().await;
    drop(idle);
    plugin.ends_unharmed().await;
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

pub(crate) async fn greet_or_closed(plugin: &impl Listens) -> UnixStream {
    let mut stream = connect(plugin).await;
    // The server may have closed it already.
    let _ = stream.write_all(PREFACE).await;
    let _ = stream.write_all(&frame(4, 0, 0, &[])).await;
    stream
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
