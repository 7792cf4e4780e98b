//! What is done to a whole plugin before the oracles are asked: each group's faults, as they come
//! from outside of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use claviger_proto::v2::DecryptRequest;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tonic::Code;

use crate::calls::encrypt;
use crate::connections::greet_or_closed;
use crate::floods::{flood, open_streams};
use crate::frames::{
    CONTINUATION, DATA, DECRYPT, ENCRYPT, HEADERS, Listens, PREFACE, RST_STREAM, STATUS,
    begin_call, call, call_headers, connect, field, frame, greet, message, prefixed, setting,
};
use crate::oracles::{SEED, value};
use crate::plugin::Calls;
use crate::whole::Whole;

/// What is sent instead of a call, or of a message.
pub(crate) async fn wire(plugin: &Whole) {
    let body = message(&field(1, SEED));
    for body in [
        &message(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")[..],
        &message(&SEED[..9]),
        &prefixed(0, 40, &field(1, SEED)),
        &prefixed(1, 34, &field(1, SEED)),
        &prefixed(0, u32::MAX, &[]),
        &message(&SEED.repeat(3_000)),
        &[0, 0, 0],
        &[],
    ] {
        for path in [STATUS, ENCRYPT, DECRYPT, "/v2.KeyManagementService/Destroy"] {
            call(plugin, path, &[], body).await.unwrap();
        }
    }
    let long = String::from_utf8(SEED.repeat(300)).unwrap();
    for (name, value) in [
        ("grpc-timeout", "1n"),
        ("grpc-timeout", "99999999H"),
        ("grpc-encoding", "gzip"),
        ("x-long", &long),
    ] {
        // A server that refuses the headers may close before it answers.
        let _ = call(plugin, ENCRYPT, &[(name, value)], &body).await;
    }
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01",
        SEED,
        &PREFACE[..20],
    ] {
        let mut stream = connect(plugin).await;
        stream.write_all(noise).await.unwrap();
    }
}

/// Calls of the contract that must not succeed, and some that must.
pub(crate) async fn semantics(plugin: &Whole) {
    let mut client = plugin.client().await;
    let key_id = client.answer_status().await.key_id;
    let sealed = client.seal(SEED).await.ciphertext;
    for len in 0..sealed.len() {
        client.open(&key_id, &sealed[..len]).await.unwrap_err();
    }
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        client.open(&key_id, &flipped).await.unwrap_err();
    }
    let other = key_id.replace(|c: char| c.is_ascii_digit(), "0");
    for id in [
        "",
        "\0",
        "k\u{456}y",
        &SEED.escape_ascii().to_string(),
        &other,
    ] {
        client.open(id, &sealed).await.unwrap_err();
    }
    for foreign in [&b"vault:v1:"[..], b"2", SEED, &[0x1f; 200]] {
        client.open(&key_id, foreign).await.unwrap_err();
    }
    for len in [0, 513, 4_096] {
        encrypt(&mut client, &SEED.repeat(200)[..len], "uid")
            .await
            .unwrap_err();
    }
    for uid in ["\n\u{1b}[2J".repeat(99), "u".repeat(60_000), String::new()] {
        encrypt(&mut client, SEED, &uid).await.unwrap();
        client.open("x", SEED).await.unwrap_err();
    }
}

/// Connections that are too many, too slow, or cut off.
pub(crate) async fn connections(plugin: &Whole) {
    let mut kept = Vec::new();
    for _ in 0..1_000 {
        kept.push(greet_or_closed(plugin).await);
    }
    drop(kept);
    for _ in 0..100 {
        // Those of before may still be counted.
        let mut stream = greet_or_closed(plugin).await;
        let _ = stream.write_all(&begin_call(1, ENCRYPT)).await;
        let _ = stream
            .write_all(&frame(DATA, 0, 1, &message(SEED)[..20]))
            .await;
    }
}

/// Peers that send more than anybody could want.
pub(crate) async fn floods(plugin: &Whole) {
    let reset = |time: u32| {
        let id = 2 * time + 1;
        [
            begin_call(id, ENCRYPT),
            frame(RST_STREAM, 0, id, &8u32.to_be_bytes()),
        ]
        .concat()
    };
    assert!(flood(&mut greet(plugin).await, reset, 100_000).await < 10_000);
    let mut stream = greet(plugin).await;
    let headers = frame(HEADERS, 0, 1, &call_headers(ENCRYPT));
    stream.write_all(&headers).await.unwrap();
    let block = [&[0, 1, b'x', 100][..], &[b'v'; 100]].concat();
    let more = frame(CONTINUATION, 0, 1, &block.repeat(10));
    assert!(flood(&mut stream, |_| more.clone(), 100_000).await < 1_000);
    let mut stream = greet(plugin).await;
    stream.write_all(&begin_call(1, ENCRYPT)).await.unwrap();
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    assert!(flood(&mut stream, |_| empty.clone(), 100_000).await < 1_000);
    let mut stream = greet(plugin).await;
    stream.write_all(&setting(4, 0)).await.unwrap();
    open_streams(&mut stream, 10_000, Some(&message(&field(1, SEED)))).await;
}

/// What happens to the socket's file and its folder, while the plugin runs and at its start.
pub(crate) async fn host(plugin: &mut Whole) {
    let socket = plugin.socket();
    let restored = value(&plugin.metrics(), "claviger_socket_restored_total ");
    fs::remove_file(&socket).unwrap();
    plugin.answers().await;
    // Another plugin looks at the same folder, and goes.
    let second = plugin.command(&["serve"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let now = value(&plugin.metrics(), "claviger_socket_restored_total ");
    assert_eq!(now, restored + 1);

    // A crash leaves the socket behind.
    plugin.kill(Signal::KILL);
    assert!(socket.exists());
    plugin.start_again();
    plugin.answers().await;
    plugin.stop();
    let refused = |why: &str| {
        let refused = plugin.command(&["serve"]);
        assert_eq!(refused.status.code(), Some(1), "{why}: {refused:?}");
    };
    fs::create_dir(&socket).unwrap();
    refused("a folder at the path");
    fs::remove_dir(&socket).unwrap();
    fs::write(&socket, "a file").unwrap();
    refused("a file at the path");
    fs::remove_file(&socket).unwrap();
    let mode = |mode| fs::set_permissions(plugin.path(""), PermissionsExt::from_mode(mode));
    mode(0o777).unwrap();
    refused("a folder that others may write to");
    mode(0o700).unwrap();
    let target = plugin.path("target");
    fs::write(&target, "untouched").unwrap();
    symlink(&target, &socket).unwrap();
    plugin.start_again();
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    fs::remove_file(target).unwrap();
}

/// Another key made the primary one, and its id once it is published.
pub(crate) async fn rotated(plugin: &Whole) -> String {
    let before = plugin.answers().await;
    let heard = plugin.heard();
    let rotate = plugin.command(&["rotate"]);
    assert_eq!(rotate.status.code(), Some(0), "{rotate:?}");
    plugin.says(heard, "to=primary");
    let key_id = plugin.answers().await;
    assert_ne!(key_id, before);
    key_id
}

/// As a tool that copies files puts it there.
fn put_keyring(plugin: &Whole, bytes: &[u8]) {
    let copy = plugin.path("copy");
    fs::write(&copy, bytes).unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(copy, plugin.path("keyring")).unwrap();
}

/// What other tools do to the keyring's file, while the plugin runs and at its start.
pub(crate) async fn keyring(plugin: &mut Whole) {
    let path = plugin.path("keyring");
    let before = fs::read(&path).unwrap();
    let other = Whole::start();
    let foreign = fs::read(other.path("keyring")).unwrap();
    drop(other);
    let mut flipped = before.clone();
    flipped[before.len() / 2] ^= 1;
    let newer = String::from_utf8(before.clone()).unwrap();
    let newer = newer.replacen("{\"format\":1,", "{\"format\":2,", 1);
    // Two commits, so that what was there is an older one.
    for days in ["rotateEvery=91d", "rotateEvery=92d"] {
        let heard = plugin.heard();
        let set = plugin.command(&["policy", "set", days]);
        assert_eq!(set.status.code(), Some(0), "{set:?}");
        plugin.says(heard, "keyring opened");
    }
    let good = fs::read(&path).unwrap();
    let damages: [(&str, &[u8]); 7] = [
        ("older", &before),
        ("garbage", b"garbage"),
        ("empty", b""),
        ("half", &good[..good.len() / 2]),
        ("flipped", &flipped),
        ("another cluster's", &foreign),
        ("newer", newer.as_bytes()),
    ];
    let put = |bytes: &[u8]| put_keyring(plugin, bytes);
    let mut client = plugin.client().await;
    for (what, bytes) in damages {
        let heard = plugin.heard();
        put(bytes);
        plugin.says(
            heard,
            "meanwhile=\"the keyring that was open stays in use\"",
        );
        let sealed = client.seal(SEED).await;
        let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
        assert_eq!(opened.unwrap(), SEED, "{what}");
        put(&good);
        plugin.says(heard, "the storage holds the keyring that is used again");
    }
    let sealed = client.seal(SEED).await;
    drop(client);

    for (what, bytes) in damages {
        plugin.kill(Signal::KILL);
        fs::write(&path, bytes).unwrap();
        plugin.start_again();
        let mut client = plugin.client().await;
        let refused = encrypt(&mut client, SEED, "").await.unwrap_err();
        let opened = client.open(&sealed.key_id, &sealed.ciphertext).await;
        if what == "older" {
            assert_eq!(
                refused.code(),
                Code::FailedPrecondition,
                "{what}: {refused}"
            );
            assert_eq!(opened.unwrap(), SEED, "{what}");
        } else {
            assert_eq!(refused.code(), Code::Unavailable, "{what}: {refused}");
            assert_eq!(opened.unwrap_err().code(), Code::Unavailable, "{what}");
        }
        assert!(fs::read(&path).unwrap() == bytes, "{what}: it was changed");
        drop(client);
        let heard = plugin.heard();
        fs::write(&path, &good).unwrap();
        plugin.says(heard, "keyring opened");
    }
}

/// What the kernel, an administrator and who reads logs and metrics do to the process.
pub(crate) async fn process(plugin: &mut Whole) {
    for _ in 0..100 {
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
            plugin.signal(signal);
        }
    }
    plugin.answers().await;

    // More than the pipe and the queue take, and nobody reads.
    let deaf = plugin.nobody_reads_the_log().await;
    let mut client = plugin.client().await;
    let nonsense = DecryptRequest {
        key_id: "nonsense".to_owned(),
        ..DecryptRequest::default()
    };
    let mut calls = 0;
    while value(&plugin.metrics(), "claviger_log_lines_dropped_total ") == 0 {
        for _ in 0..500 {
            client.decrypt(nonsense.clone()).await.unwrap_err();
        }
        calls += 500;
        assert!(calls < 50_000, "no line was lost");
    }
    drop((client, deaf));

    let mut scrapers = Vec::new();
    for _ in 0..100 {
        let mut scraper = plugin.scraper();
        // The metrics' server may have enough of them.
        let _ = scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
        scrapers.push(scraper);
    }
    plugin.answers().await;
    drop(scrapers);

    plugin.signal(Signal::STOP);
    let waits = tokio::net::UnixStream::connect(plugin.socket()).await;
    plugin.signal(Signal::CONT);
    plugin.answers().await;
    drop(waits.unwrap());

    for signal in [Signal::ABORT, Signal::SEGV, Signal::KILL] {
        plugin.kill(signal);
        plugin.start_again();
        plugin.answers().await;
    }
}
