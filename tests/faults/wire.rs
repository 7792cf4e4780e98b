//! Rows 1 to 16: bytes that are no call of the contract.

use claviger::observer::{Method, Reason, Rejection};
use claviger_proto::v2::EncryptResponse;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tonic::Code;

use crate::frames::{
    Answer, DATA, DECRYPT, ENCRYPT, END_STREAM, STATUS, begin_call, call, exchange, field, frame,
    greet, message, next_frame, prefixed,
};
use crate::plugin::{Calls, Plugin, until_closed};

/// Refused by what stands before the three calls, and counted as such.
fn assert_protocol(answer: &Answer, code: Code) {
    assert_eq!(answer.code, code, "{answer:?}");
    assert_eq!(answer.reason, None, "{answer:?}");
}

#[tokio::test]
async fn row_01_random_bytes_are_no_message() {
    let plugin = Plugin::start().await;
    for noise in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"MARKER-MARKER",
        &[0x0a, 0xff],
    ] {
        for path in [ENCRYPT, DECRYPT] {
            let answer = call(&plugin, path, &[], &message(noise)).await.unwrap();
            assert_protocol(&answer, Code::Internal);
            assert!(!answer.message.contains("MARKER"), "{answer:?}");
        }
    }
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.refusals, [Reason::Protocol; 6]);
}

#[tokio::test]
async fn row_02_texts_must_be_utf8() {
    let plugin = Plugin::start().await;
    let not_utf8 = b"\xc3\x28";
    for (path, number) in [(ENCRYPT, 2), (DECRYPT, 2), (DECRYPT, 3)] {
        let answer = call(&plugin, path, &[], &message(&field(number, not_utf8)))
            .await
            .unwrap();
        assert_protocol(&answer, Code::Internal);
    }
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_03_a_message_cut_short_is_refused() {
    let plugin = Plugin::start().await;
    for body in [
        prefixed(0, 34, &field(1, &[7; 31])),
        vec![0, 0, 0],
        prefixed(0, 1, &[]),
    ] {
        let answer = call(&plugin, ENCRYPT, &[], &body).await.unwrap();
        assert_protocol(&answer, Code::Internal);
    }
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_04_a_call_without_message_is_refused() {
    let plugin = Plugin::start().await;
    assert_protocol(
        &call(&plugin, ENCRYPT, &[], &[]).await.unwrap(),
        Code::Internal,
    );
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_05_compressed_without_encoding_and_unknown_flags_are_refused() {
    let plugin = Plugin::start().await;
    for flag in [1, 2, 7, 255] {
        let body = prefixed(flag, 34, &field(1, &[7; 32]));
        assert_protocol(
            &call(&plugin, ENCRYPT, &[], &body).await.unwrap(),
            Code::Internal,
        );
    }
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_06_nothing_is_inflated() {
    let plugin = Plugin::start().await;
    // 64 KiB of zeros, as gzip makes them.
    let bomb =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xed\xc1\x01\x01\x00\x00\x00\x80\x90\xfe\xaf";
    for encoding in ["gzip", "zstd", "deflate", "bomb"] {
        let body = prefixed(1, bomb.len() as u32, bomb);
        let answer = call(&plugin, ENCRYPT, &[("grpc-encoding", encoding)], &body)
            .await
            .unwrap();
        assert_protocol(&answer, Code::Unimplemented);
    }
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_07_a_message_over_64_kib_is_refused() {
    let plugin = Plugin::start().await;
    let answer = call(&plugin, ENCRYPT, &[], &message(&[0x0a; 70_000]))
        .await
        .unwrap();
    assert_protocol(&answer, Code::OutOfRange);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_08_a_length_of_4_gib_is_refused_before_a_byte_of_it_arrives() {
    let plugin = Plugin::start().await;
    let answer = call(&plugin, ENCRYPT, &[], &prefixed(0, u32::MAX, &[]))
        .await
        .unwrap();
    assert_protocol(&answer, Code::OutOfRange);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_09_of_two_messages_the_first_is_answered() {
    let plugin = Plugin::start().await;
    let mut body = message(&field(1, &[7; 32]));
    body.extend(message(&field(1, &[])));
    let answer = call(&plugin, ENCRYPT, &[], &body).await.unwrap();
    assert_eq!(opened(&plugin, &answer).await, [7; 32]);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_10_unknown_fields_are_ignored() {
    let plugin = Plugin::start().await;
    let mut fields = field(15, b"from a newer apiserver");
    fields.extend(field(1, &[7; 32]));
    fields.extend([0x70, 0x01]); // field 14, a number
    let answer = call(&plugin, ENCRYPT, &[], &message(&fields))
        .await
        .unwrap();
    assert_eq!(opened(&plugin, &answer).await, [7; 32]);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_11_of_a_repeated_field_the_last_counts() {
    let plugin = Plugin::start().await;
    let mut fields = field(1, &[6; 32]);
    fields.extend(field(1, &[7; 32]));
    let answer = call(&plugin, ENCRYPT, &[], &message(&fields))
        .await
        .unwrap();
    assert_eq!(opened(&plugin, &answer).await, [7; 32]);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_12_ten_thousand_annotations_are_refused_in_their_turn() {
    let plugin = Plugin::start().await;
    let sealed = plugin.client().await.seal(&[7; 32]).await;
    let mut fields = field(1, &sealed.ciphertext);
    fields.extend(field(3, sealed.key_id.as_bytes()));
    for entry in 0..10_000u32 {
        let [.., high, low] = entry.to_be_bytes();
        fields.extend(field(4, &field(1, &[high & 0x7f, low & 0x7f])));
    }
    assert!(fields.len() > 60_000 && fields.len() < 64 * 1024);
    let fields = message(&fields);
    let answer = call(&plugin, DECRYPT, &[], &fields).await.unwrap();
    assert_eq!(answer.code, Code::InvalidArgument);
    assert_eq!(answer.reason.as_deref(), Some("annotations"));

    // It is not put off either: a call behind it on its connection is answered behind it.
    let mut frames = begin_call(1, DECRYPT);
    for part in fields.chunks(16 * 1024) {
        frames.extend(frame(DATA, 0, 1, part));
    }
    frames.extend(frame(DATA, END_STREAM, 1, &[]));
    frames.extend(begin_call(3, STATUS));
    frames.extend(frame(DATA, END_STREAM, 3, &message(&[])));
    let before = plugin.tally().requests.len();
    let mut stream = greet(&plugin).await;
    stream.write_all(&frames).await.unwrap();
    let tally = plugin
        .heard(|tally| tally.requests.len() == before + 2)
        .await;
    let answered = [
        (Method::Decrypt, Code::InvalidArgument),
        (Method::Status, Code::Ok),
    ];
    assert_eq!(tally.requests[before..], answered);
    drop(stream);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_13_unknown_methods_are_unimplemented() {
    let plugin = Plugin::start().await;
    for path in [
        "/v1beta1.KeyManagementService/Encrypt",
        "/v2.KeyManagementService/Destroy",
        "/v2.KeyManagementService/encrypt",
        "/grpc.health.v1.Health/Check",
        "/",
    ] {
        let answer = call(&plugin, path, &[], &message(&[])).await.unwrap();
        assert_protocol(&answer, Code::Unimplemented);
    }
    let tally = plugin.ends_unharmed().await;
    let unknown = (Method::Unknown, Code::Unimplemented);
    assert_eq!(
        tally
            .requests
            .iter()
            .filter(|request| **request == unknown)
            .count(),
        5
    );
}

#[tokio::test]
async fn row_14_a_peer_that_does_not_speak_http2_is_closed() {
    let plugin = Plugin::start().await;
    let noises = [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"\0\0\0\0",
        b"P",
    ];
    for noise in noises {
        let mut stream = plugin.connect().await;
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(until_closed(&mut stream).await, b"", "{noise:?}");
    }
    let tally = plugin.ends_unharmed().await;
    assert_eq!(tally.rejections, [Rejection::Noise; 4]);
}

#[tokio::test]
async fn row_15_any_grpc_timeout_is_served_or_cancelled() {
    let plugin = Plugin::start().await;
    let body = message(&field(1, &[7; 32]));
    for timeout in [
        "0n",
        "0H",
        "1n",
        "99999999H",
        "999999999H",
        "-1S",
        "1",
        "S",
        "1.5S",
        "1x",
        "\u{9}",
        "",
    ] {
        let answer = call(&plugin, ENCRYPT, &[("grpc-timeout", timeout)], &body)
            .await
            .unwrap();
        assert!(
            matches!(answer.code, Code::Ok | Code::Cancelled),
            "{timeout:?}: {answer:?}"
        );
    }
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_16_a_thousand_headers_are_refused() {
    let plugin = Plugin::start().await;
    let mut bystander = plugin.client().await;
    let names: Vec<_> = (0..1_000).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "value")).collect();
    assert_refused(call(&plugin, ENCRYPT, &many, &message(&[])).await);
    let long = "v".repeat(9 * 1024);
    assert_refused(call(&plugin, ENCRYPT, &[("x-long", &long)], &message(&[])).await);

    let authority = format!(
        "http://{}/v2.KeyManagementService/Encrypt",
        "a".repeat(9 * 1024)
    );
    let request = http::Request::post(authority).body(()).unwrap();
    assert_refused(exchange(&plugin, request, Some(&message(&[]))).await);

    // Binary junk in a header is none of our business.
    let junk = call(
        &plugin,
        ENCRYPT,
        &[("x-bin", "\u{fffd}==")],
        &message(&field(1, &[7])),
    )
    .await;
    assert_eq!(junk.unwrap().code, Code::Ok);
    bystander.answer_status().await;
    drop(bystander);
    plugin.ends_unharmed().await;
}

fn assert_refused(answer: Result<Answer, h2::Error>) {
    match answer {
        Ok(answer) => assert_eq!(answer.http, 431, "{answer:?}"),
        Err(error) => assert!(
            error.is_remote() || error.is_reset() || error.is_go_away(),
            "{error}"
        ),
    }
}

#[tokio::test]
async fn an_authority_that_is_no_authority_resets_only_its_stream() {
    // kube-apiserver before 1.32 sends the socket's path; h2 refuses it, and the connection lives.
    let plugin = Plugin::start().await;
    let mut stream = greet(&plugin).await;
    let mut block = vec![0x83, 0x86, 0x04, 32];
    block.extend(ENCRYPT.as_bytes());
    block.extend([0x01, 12]);
    block.extend(b"/run/k/k.sock".iter().take(12));
    stream.write_all(&frame(1, 4, 1, &block)).await.unwrap();
    stream
        .write_all(&begin_call(3, "/v2.KeyManagementService/Status"))
        .await
        .unwrap();
    stream
        .write_all(&frame(DATA, 1, 3, &message(&[])))
        .await
        .unwrap();
    let mut reset = false;
    loop {
        let frame = next_frame(&mut stream).await.unwrap();
        reset |= frame.kind == 3 && frame.stream == 1;
        if frame.stream == 3 && frame.flags & 1 != 0 {
            break;
        }
    }
    assert!(reset);
    drop(stream);
    plugin.ends_unharmed().await;
}

/// Opens what an Encrypt call answered.
async fn opened(plugin: &Plugin, answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.code, Code::Ok, "{answer:?}");
    let sealed = EncryptResponse::decode(&answer.body[5..]).unwrap();
    plugin
        .client()
        .await
        .open(&sealed.key_id, &sealed.ciphertext)
        .await
        .unwrap()
}
