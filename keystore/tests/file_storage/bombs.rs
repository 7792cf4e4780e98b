//! Rows 77 and 78: a keyring as large as it gets, and documents that only look like one.

use claviger_keystore::document::{Document, MAX_LEN};
use claviger_keystore::error::{ChangeError, DocumentError, Error};
use claviger_keystore::header::{Header, MAX_KEYS};
use claviger_keystore::keyring::Keyring;
use claviger_keystore::testing::NOW;
use jiff::Timestamp;

use crate::files::Files;
use crate::node::{SEED, open, seal};

/// The keyring filled up by rotations, each retired key with as many dates as keys can have.
fn full(keyring: &Keyring) -> Result<Keyring, Error> {
    // As long as dates get.
    let now = Timestamp::MAX;
    let mut keyring = keyring.clone();
    while keyring.header().keys.len() < MAX_KEYS {
        let old = keyring.header().keys[keyring.header().keys.len() - 1].id;
        keyring = keyring.stage(now)?;
        let staged = keyring.header().keys[keyring.header().keys.len() - 1].id;
        keyring = keyring
            .activate(&staged, now)?
            .disable(&old, now)?
            .enable(&old, now)?;
    }
    Ok(keyring)
}

#[tokio::test]
async fn row_77_a_thousand_keys_fit_and_one_more_is_refused() {
    let files = Files::new().await;
    let member = files.member().await;
    let first = seal(&member);
    member.commit(NOW, full).await.unwrap();
    let keys = &member.keyring().await.unwrap().header().keys.clone();
    assert_eq!(keys.len(), MAX_KEYS);
    let dates = [keys[1].activated, keys[1].retired, keys[1].disabled];
    assert!(
        dates.iter().all(Option::is_some),
        "the keys could be longer"
    );
    assert!(
        files.bytes().len() < MAX_LEN,
        "{} bytes",
        files.bytes().len()
    );

    let refused = member.commit(NOW, |keyring| keyring.stage(NOW)).await;
    assert!(
        matches!(refused, Err(Error::Change(ChangeError::Full))),
        "{refused:?}"
    );
    // The first and the last key alike open after a restart.
    let last = seal(&member);
    let member = files.member().await;
    for sealed in [first, last] {
        assert_eq!(open(&member, &sealed).unwrap(), SEED);
    }
    let mark = std::fs::metadata(files.path("keyring.mark")).unwrap().len();
    assert!(
        mark < 256 * 1024,
        "a mark of {mark} bytes could not be read"
    );
}

async fn document() -> (Document, String) {
    let document = Files::empty().init().await;
    let text = String::from_utf8(document.as_bytes().to_vec()).unwrap();
    (document, text)
}

fn refusal(text: impl Into<Vec<u8>>) -> DocumentError {
    Document::parse(text.into()).unwrap_err()
}

/// A document of this header, with a body of the length that its keys need.
fn written(header: &Header) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(header).unwrap();
    bytes.push(b'\n');
    let body = vec![0; 24 + 32 * header.keys.len() + 16];
    bytes.extend(data_encoding::BASE64.encode(&body).into_bytes());
    bytes.push(b'\n');
    bytes
}

#[tokio::test]
async fn row_78_what_is_listed_twice_or_too_often_is_refused() {
    let (document, _) = document().await;
    let header = document.header();
    assert!(
        Document::parse(written(header)).is_ok(),
        "the form is right"
    );

    let mut twice = header.clone();
    twice.keys.push(twice.keys[0].clone());
    assert!(matches!(
        refusal(written(&twice)),
        DocumentError::DuplicateKey(_)
    ));
    let mut twice = header.clone();
    twice.slots.push(twice.slots[0].clone());
    assert!(matches!(
        refusal(written(&twice)),
        DocumentError::DuplicateSlot(_)
    ));

    let mut two = header.clone();
    let mut other = two.keys[0].clone();
    other.id = "k1-00000000000000000000000000000000".parse().unwrap();
    two.keys.push(other);
    assert_eq!(refusal(written(&two)), DocumentError::TwoPrimaries);

    let mut many = header.clone();
    many.keys = (0..=MAX_KEYS)
        .map(|i| {
            let mut key = header.keys[0].clone();
            key.id = format!("k1-{i:032x}").parse().unwrap();
            key
        })
        .collect();
    assert_eq!(
        refusal(written(&many)),
        DocumentError::TooManyKeys(MAX_KEYS + 1)
    );
}

#[tokio::test]
async fn row_78_huge_counts_and_deep_nesting_are_refused() {
    let (_, text) = document().await;
    let deep = "[".repeat(200_000);
    let wide = "{},".repeat(150_000);
    let bombs = [
        text.replacen(r#""revision":1"#, r#""revision":18446744073709551616"#, 1),
        text.replacen(r#""revision":1"#, r#""revision":1e999"#, 1),
        text.replacen(
            r#""disabledFor":604800"#,
            r#""disabledFor":99999999999999999999"#,
            1,
        ),
        text.replacen(r#""keys":["#, &format!(r#""keys":{deep}"#), 1),
        text.replacen(r#""keys":["#, &format!(r#""keys":[{wide}"#), 1),
        text.replacen(r#""merged":["#, &format!(r#""merged":[{wide}"#), 1),
        text.replacen(r#"{"format""#, &format!(r#"{{"x":{deep},"format""#), 1),
        text.replacen(
            r#""rekeyProofs":[]"#,
            &format!(r#""rekeyProofs":{{{deep}"#),
            1,
        ),
        deep.clone(),
        format!("{deep}\n{deep}\n"),
        format!("{}\n{}\n", "0".repeat(200_000), "A".repeat(200_000)),
    ];
    let before = peak_memory();
    for bomb in &bombs {
        assert_ne!(*bomb, text, "a bomb that was not laid");
        assert!(
            bomb.len() < MAX_LEN,
            "{} bytes would be refused for their number",
            bomb.len()
        );
        refusal(bomb.as_bytes());
    }
    let grown = peak_memory() - before;
    assert!(grown < 256 * 1024, "{grown} KiB for half a megabyte");
}

#[tokio::test]
async fn row_78_no_byte_more_than_the_limit_is_read() {
    let (_, text) = document().await;
    // As long as allowed: refused for what it says, not for its length.
    let padded = |len: usize| {
        let name = "n".repeat(len - text.len() + "test".len());
        text.replacen(
            r#""clusterName":"test""#,
            &format!(r#""clusterName":"{name}""#),
            1,
        )
    };
    assert_eq!(padded(MAX_LEN).len(), MAX_LEN);
    assert!(
        Document::parse(padded(MAX_LEN).into_bytes()).is_ok(),
        "its form is right"
    );
    assert_eq!(
        refusal(padded(MAX_LEN + 1)),
        DocumentError::TooLarge(MAX_LEN + 1)
    );

    // A file of terabytes costs no more than the limit.
    let files = Files::new().await;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(files.keyring())
        .unwrap();
    file.set_len(1 << 40).unwrap();
    let refused = files.start().sync(NOW).await.unwrap_err();
    let too_large = DocumentError::TooLarge(MAX_LEN + 1);
    assert!(
        matches!(&refused, Error::Document(found) if *found == too_large),
        "{refused}"
    );
}

/// The most memory that this process ever held, in KiB (proc(5)).
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
