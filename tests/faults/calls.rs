//! Rows 17 to 33, as far as the wire sees them: well-formed calls that must not succeed, and some
//! that must.

use claviger::config::StatusVersion;
use claviger::observer::Reason;
use claviger_keystore::testing::rotate;
use claviger_proto::v2::{DecryptRequest, EncryptRequest};
use tonic::{Code, Status};

use crate::plugin::{Calls, Client, Plugin, Setup};

/// The code and the reason of a refused call.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("the call is refused");
    let reason = status
        .metadata()
        .get(claviger::observer::REASON_METADATA)
        .expect("it has a reason");
    (status.code(), reason.to_str().unwrap().to_owned())
}

fn invalid(reason: Reason) -> (Code, String) {
    (Code::InvalidArgument, reason.as_str().to_owned())
}

fn data_loss() -> (Code, String) {
    (Code::DataLoss, Reason::Authentication.as_str().to_owned())
}

pub(crate) async fn encrypt(
    client: &mut Client,
    seed: &[u8],
    uid: &str,
) -> Result<Vec<u8>, Status> {
    let request = EncryptRequest {
        plaintext: seed.to_vec(),
        uid: uid.to_owned(),
    };
    Ok(client.encrypt(request).await?.into_inner().ciphertext)
}

#[tokio::test]
async fn status_answers_what_kube_apiserver_accepts() {
    for (version, text) in [
        (StatusVersion::V2, "v2"),
        (StatusVersion::V2Beta1, "v2beta1"),
    ] {
        let plugin = Plugin::start_with(Setup {
            version,
            ..Setup::default()
        })
        .await;
        let status = plugin.client().await.answer_status().await;
        assert_eq!(
            (status.version.as_str(), status.healthz.as_str()),
            (text, "ok")
        );
        let primary = plugin.keystore.keyring().await.unwrap().primary().unwrap();
        assert_eq!(status.key_id, primary.to_string());
        assert_eq!(plugin.tally().status_answers, [primary]);
        plugin.ends_unharmed().await;
    }
}

#[tokio::test]
async fn row_17_an_empty_seed_is_refused() {
    let plugin = Plugin::start().await;
    let answer = encrypt(&mut plugin.client().await, b"", "").await;
    assert_eq!(refused(answer), invalid(Reason::SeedLength));
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_18_seeds_of_1_to_512_bytes_are_sealed() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    for len in [1, 31, 32, 33, 512] {
        let sealed = client.seal(&vec![7; len]).await;
        assert!(sealed.ciphertext.len() <= 1024 && sealed.annotations.is_empty());
        assert_eq!(
            client
                .open(&sealed.key_id, &sealed.ciphertext)
                .await
                .unwrap(),
            vec![7; len]
        );
    }
    let answer = encrypt(&mut client, &[7; 513], "").await;
    assert_eq!(refused(answer), invalid(Reason::SeedLength));
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_19_an_empty_ciphertext_is_refused() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    let answer = client.open(&sealed.key_id, b"").await;
    assert_eq!(refused(answer), invalid(Reason::CiphertextLength));
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_20_every_truncation_is_refused() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    for len in 0..sealed.ciphertext.len() {
        let answer = client.open(&sealed.key_id, &sealed.ciphertext[..len]).await;
        // Format, nonce and tag alone take 41.
        let expected = if len < 41 {
            invalid(Reason::CiphertextLength)
        } else {
            data_loss()
        };
        assert_eq!(refused(answer), expected, "{len}");
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_21_every_flipped_bit_is_refused() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    for bit in 0..sealed.ciphertext.len() * 8 {
        let mut flipped = sealed.ciphertext.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expected = match flipped[0] {
            1 => data_loss(),
            2..=0x1f => invalid(Reason::NewerCiphertext),
            _ => invalid(Reason::ForeignCiphertext),
        };
        assert_eq!(
            refused(client.open(&sealed.key_id, &flipped).await),
            expected,
            "bit {bit}"
        );
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_22_appended_bytes_are_refused() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    for (more, expected) in [
        (1, data_loss()),
        (1024 - sealed.ciphertext.len(), data_loss()),
        (
            1025 - sealed.ciphertext.len(),
            invalid(Reason::CiphertextLength),
        ),
    ] {
        let mut longer = sealed.ciphertext.clone();
        longer.resize(longer.len() + more, 0);
        assert_eq!(
            refused(client.open(&sealed.key_id, &longer).await),
            expected
        );
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_23_another_valid_key_id_does_not_open_it() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    let other = rotate(&plugin.keystore).await;
    let answer = client.open(&other.to_string(), &sealed.ciphertext).await;
    assert_eq!(refused(answer), data_loss());
    assert_eq!(
        client
            .open(&sealed.key_id, &sealed.ciphertext)
            .await
            .unwrap(),
        [7; 32]
    );
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_24_a_malformed_key_id_is_refused() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    let upper_case = sealed.key_id.to_uppercase();
    let malformed = [
        String::new(),
        "k".repeat(1_025),
        format!("{}\0", sealed.key_id),
        format!("{}\n", sealed.key_id),
        format!(" {}", sealed.key_id),
        sealed.key_id.replacen('k', "\u{43a}", 1), // a Cyrillic letter that looks the same
        sealed.key_id[..34].to_owned(),
        upper_case,
        "arn:aws:kms:eu-central-1:111122223333:key/1".to_owned(),
    ];
    for key_id in malformed {
        let answer = client.open(&key_id, &sealed.ciphertext).await;
        let message = answer.as_ref().unwrap_err().message().to_owned();
        assert!(key_id.is_empty() || !message.contains(&key_id), "{message}");
        assert_eq!(
            refused(answer),
            invalid(Reason::MalformedKeyId),
            "{key_id:?}"
        );
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_25_the_same_key_in_another_cluster_does_not_open_it() {
    let here = Plugin::start_with_kek([7; 32]).await;
    let there = Plugin::start_with_kek([7; 32]).await;
    let sealed = there.client().await.seal(&[5; 32]).await;
    let mut client = here.client().await;
    assert_eq!(client.answer_status().await.key_id, sealed.key_id);
    let answer = client.open(&sealed.key_id, &sealed.ciphertext).await;
    assert_eq!(
        refused(answer),
        (Code::DataLoss, "authentication".to_owned())
    );
    drop(client);
    here.ends_unharmed().await;
    there.ends_unharmed().await;
}

#[tokio::test]
async fn row_26_another_keyrings_key_is_not_found() {
    let plugin = Plugin::start().await;
    let stranger = Plugin::start().await;
    let sealed = stranger.client().await.seal(&[7; 32]).await;
    let answer = plugin
        .client()
        .await
        .open(&sealed.key_id, &sealed.ciphertext)
        .await;
    assert!(
        answer
            .as_ref()
            .unwrap_err()
            .message()
            .contains(&sealed.key_id)
    );
    assert_eq!(refused(answer), (Code::NotFound, "unknown_key".to_owned()));
    plugin.ends_unharmed().await;
    stranger.ends_unharmed().await;
}

#[tokio::test]
async fn row_27_annotations_are_refused() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    let request = DecryptRequest {
        ciphertext: sealed.ciphertext.clone(),
        uid: String::new(),
        key_id: sealed.key_id.clone(),
        annotations: [("kms.example.com".to_owned(), vec![1])].into(),
    };
    assert_eq!(
        refused(client.decrypt(request).await),
        invalid(Reason::Annotations)
    );
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_28_other_plugins_ciphertexts_are_told_apart() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    let base64_of_ours = data_encoding::BASE64.encode(&sealed.ciphertext);
    let foreign: [&[u8]; 5] = [
        b"vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"2AQICAHhAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"k8s:enc:kms:v1:name:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        base64_of_ours.as_bytes(),
        &[0; 73],
    ];
    for ciphertext in foreign {
        let answer = client.open(&sealed.key_id, ciphertext).await;
        assert_eq!(refused(answer), invalid(Reason::ForeignCiphertext));
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_29_a_newer_format_asks_for_an_upgrade() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let sealed = client.seal(&[7; 32]).await;
    for format in [2, 9, 0x1f] {
        let mut newer = sealed.ciphertext.clone();
        newer[0] = format;
        let answer = client.open(&sealed.key_id, &newer).await;
        let message = answer.as_ref().unwrap_err().message().to_owned();
        assert!(
            message.contains("newer") && message.contains("upgrade"),
            "{message}"
        );
        assert_eq!(refused(answer), invalid(Reason::NewerCiphertext));
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_32_any_uid_is_served() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    for uid in [
        "",
        "\u{1b}[31m\r\n\0\u{202e}",
        "same",
        "same",
        &"u".repeat(60_000),
    ] {
        assert!(encrypt(&mut client, &[7; 32], uid).await.is_ok());
        assert_eq!(
            refused(encrypt(&mut client, b"", uid).await),
            invalid(Reason::SeedLength)
        );
    }
    drop(client);
    plugin.ends_unharmed().await;
}

#[tokio::test]
async fn row_33_the_same_seed_never_seals_alike() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        assert!(seen.insert(client.seal(&[7; 32]).await.ciphertext));
    }
    drop(client);
    plugin.ends_unharmed().await;
}

/// Nothing counts what one key sealed, since its nonces need no count: 2^22 would take a minute.
#[tokio::test]
async fn row_37_what_one_key_sealed_is_not_counted() {
    let plugin = Plugin::start().await;
    let mut client = plugin.client().await;
    let first = client.seal(&[7; 32]).await;
    let view = plugin.keystore.view().clone();
    let snapshot = view.snapshot().unwrap();
    let id = snapshot.primary().unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1 << 15 {
        assert!(seen.insert(snapshot.seal(&id, &[7; 32]).unwrap()));
    }
    let last = client.seal(&[7; 32]).await;
    assert_eq!(last.key_id, first.key_id);
    for ciphertext in [&first.ciphertext, &last.ciphertext] {
        let opened = client.open(&first.key_id, ciphertext).await;
        assert_eq!(opened.unwrap(), [7; 32]);
    }
    drop(client);
    plugin.ends_unharmed().await;
}
