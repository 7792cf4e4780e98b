use claviger_proto::stored::{EncryptedDekSourceType, EncryptedObject};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn name<'a>(kind: &'a str, namespace: Option<&'a str>, name: &'a str) -> Option<Name<'a>> {
    Some(Name {
        kind,
        namespace,
        name,
    })
}

#[test]
fn a_key_names_an_object() {
    let cases = [
        (
            "/registry/secrets/prod/db",
            name("secrets", Some("prod"), "db"),
        ),
        (
            "/registry/namespaces/prod",
            name("namespaces", None, "prod"),
        ),
        (
            "/registry/services/specs/prod/web",
            name("services/specs", Some("prod"), "web"),
        ),
        (
            "/registry/example.com/widgets/prod/w",
            name("example.com/widgets", Some("prod"), "w"),
        ),
        (
            "/registry/apiregistration.k8s.io/apiservices/v1.apps",
            name("apiregistration.k8s.io/apiservices", None, "v1.apps"),
        ),
        ("/registry/health", name("health", None, "")),
        ("/registry", None),
        ("/registryx/secrets/prod/db", None),
        ("compact_rev_key", None),
    ];
    for (key, expected) in cases {
        assert_eq!(Name::parse(key.as_bytes(), "/registry"), expected, "{key}");
    }
    assert_eq!(Name::parse(b"/registry/secrets/\xff/x", "/registry"), None);
}

#[test]
fn resources_are_called_as_the_api_calls_them() {
    let cases = [
        ("secrets", "secrets"),
        ("minions", "nodes"),
        ("leases", "leases.coordination.k8s.io"),
        ("services/endpoints", "endpoints"),
        ("ingress", "ingresses.networking.k8s.io"),
        ("example.com/widgets", "widgets.example.com"),
        ("unheard", "unheard"),
    ];
    for (kind, expected) in cases {
        assert_eq!(Resource::stored_under(kind).to_string(), expected);
    }
    assert!(Resource::stored_under("masterleases").is_internal());
    assert!(!Resource::stored_under("secrets").is_internal());
}

fn envelope(object: &EncryptedObject) -> Vec<u8> {
    [b"k8s:enc:kms:v2:ours:", &object.encode_to_vec()[..]].concat()
}

fn object() -> EncryptedObject {
    EncryptedObject {
        encrypted_data: vec![7; 100],
        key_id: "k1-00".to_owned(),
        encrypted_dek_source: vec![8; 73],
        annotations: [("a.b".to_owned(), vec![1])].into(),
        encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed as i32,
    }
}

#[test]
fn a_header_says_what_protects() {
    let other = |scheme, name| Ok(Header::Other { scheme, name });
    let cases: [(&[u8], _); 9] = [
        (b"k8s\0secret", Ok(Header::Plaintext)),
        (b"{}", Ok(Header::Plaintext)),
        (b"", Ok(Header::Plaintext)),
        (b"k8s:enc:aescbc:v1:key1:\0\0", other("aescbc:v1", "key1")),
        (b"k8s:enc:secretbox:v1:k:\0", other("secretbox:v1", "k")),
        (b"k8s:enc:kms:v1:old:\0\x01kx", other("kms:v1", "old")),
        (b"k8s:enc:kms:v1:old:\0\x02k", Err(Malformed::Envelope)),
        (b"k8s:enc:rot13:v9:key:x", other("rot13:v9", "key")),
        (b"k8s:enc:kms", Err(Malformed::Header)),
    ];
    for (value, expected) in cases {
        assert_eq!(Header::parse(value), expected, "{value:?}");
    }
    let expected = Header::KmsV2 {
        provider: "ours",
        key_id: "k1-00",
    };
    assert_eq!(Header::parse(&envelope(&object())), Ok(expected));
}

#[test]
fn what_kube_apiserver_refuses_is_malformed() {
    let spoilt = |spoil: fn(&mut EncryptedObject)| {
        let mut object = object();
        spoil(&mut object);
        envelope(&object)
    };
    let cases = [
        (spoilt(|o| o.key_id.clear()), Malformed::KeyId),
        (spoilt(|o| o.key_id = "k".repeat(1025)), Malformed::KeyId),
        (spoilt(|o| o.encrypted_data.clear()), Malformed::Data),
        (spoilt(|o| o.encrypted_dek_source.clear()), Malformed::Seed),
        (
            spoilt(|o| o.encrypted_dek_source = vec![0; 1025]),
            Malformed::Seed,
        ),
        (
            spoilt(|o| o.encrypted_dek_source_type = 2),
            Malformed::SeedKind,
        ),
        (b"k8s:enc:kms:v2:ours:".to_vec(), Malformed::Data),
        (b"k8s:enc:kms:v2::x".to_vec(), Malformed::Name),
        (b"k8s:enc:kms:v2:\xff:x".to_vec(), Malformed::Name),
        (b"k8s:enc:kms:v2:a\nb:x".to_vec(), Malformed::Name),
        (b"k8s:enc:aescbc:v1:key1:".to_vec(), Malformed::Data),
        (b"k8s:enc:kms:v2:ours:\x03".to_vec(), Malformed::Envelope),
    ];
    for (value, expected) in cases {
        assert_eq!(Header::parse(&value), Err(expected), "{value:?}");
    }
}

#[test]
fn protections_read_as_people_write_them() {
    let shown = |value: &[u8]| Header::parse(value).unwrap().to_protection().to_string();
    assert_eq!(shown(b"{}"), "plaintext");
    assert_eq!(shown(b"k8s:enc:aescbc:v1:key1:x"), "aescbc:key1");
    assert_eq!(shown(b"k8s:enc:kms:v1:old:\0\x00x"), "kms:v1:old");
    assert_eq!(shown(&envelope(&object())), "ours/k1-00");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, known in 0..4_usize) {
        let start: [&[u8]; 4] = [b"", b"k8s:enc:", b"k8s:enc:kms:v2:p:", b"k8s:enc:kms:v1:p:"];
        let _ = Header::parse(&[start[known], &bytes].concat());
        let _ = Name::parse(&[b"/registry/", &bytes[..]].concat(), "/registry");
    }

    /// A library's decoder is the judge of which bytes are a message, and of what is in it.
    #[test]
    fn envelopes_are_read_as_a_library_reads_them(
        mut bytes in prop::collection::vec(any::<u8>(), 0..60),
        wellformed: bool,
        key_id in "[a-z0-9]{0,12}",
        cut in 0..200_usize,
    ) {
        if wellformed {
            let object = EncryptedObject { key_id, ..object() };
            bytes = object.encode_to_vec();
            bytes.truncate(cut);
        }
        let value = [b"k8s:enc:kms:v2:ours:", &bytes[..]].concat();
        let library = EncryptedObject::decode(&bytes[..]).ok().filter(|object| {
            !object.key_id.is_empty()
                && !object.encrypted_data.is_empty()
                && !object.encrypted_dek_source.is_empty()
                && matches!(object.encrypted_dek_source_type, 0 | 1)
        });
        let ours = match Header::parse(&value) {
            Ok(Header::KmsV2 { key_id, .. }) => Some(key_id.to_owned()),
            _ => None,
        };
        prop_assert_eq!(ours, library.map(|object| object.key_id.clone()));
    }

    #[test]
    fn every_cut_envelope_is_malformed_or_the_same(cut in 0..400_usize) {
        let whole = envelope(&object());
        let cut = cut.min(whole.len() - 1);
        if let Ok(Header::KmsV2 { key_id, .. }) = Header::parse(&whole[..cut]) {
            prop_assert_eq!(key_id, "k1-00");
        }
    }
}
