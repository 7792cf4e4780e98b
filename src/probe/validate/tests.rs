//! The tables are those of k8s.io/apiserver's own `TestValidateAnnotations`, `TestValidateKeyID`,
//! `TestValidateEncryptedDEKSource` and `TestKMSv2SameVersionFromStatus`, and what they leave out.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn answer(version: &str, healthz: &str, key_id: &str) -> StatusResponse {
    StatusResponse {
        version: version.to_owned(),
        healthz: healthz.to_owned(),
        key_id: key_id.to_owned(),
    }
}

fn annotated(key: &str, value: usize) -> Vec<AnnotationFault> {
    annotations(&BTreeMap::from([(key.to_owned(), vec![b'a'; value])]))
}

#[test]
fn a_good_status_has_no_faults() {
    for version in ["v2", "v2beta1"] {
        for first in [None, Some(version)] {
            let faults = status(&answer(version, "ok", "1"), first);
            assert_eq!(faults, StatusFaults::default(), "{version} after {first:?}");
            assert!(faults.all().is_empty());
        }
    }
}

#[test]
fn healthz_is_exactly_ok() {
    for healthz in ["", "OK", "ok ", " ok", "ok\n", "okay", "no"] {
        let faults = status(&answer("v2", healthz, "1"), None);
        assert_eq!(
            faults.all(),
            [format!("got unexpected healthz status: {healthz}")]
        );
    }
}

#[test]
fn version_is_v2_or_v2beta1() {
    for version in ["", "V2", "v2 ", "v2alpha1", "v2beta2", "v1", "v1beta1"] {
        let faults = status(&answer(version, "ok", "1"), None);
        assert_eq!(
            faults.all(),
            [format!("expected KMSv2 API version v2, got {version}")]
        );
        // The apiserver says so too where it had accepted one before.
        assert_eq!(status(&answer(version, "ok", "1"), Some("v2")), faults);
    }
}

#[test]
fn version_never_changes() {
    for (first, now) in [("v2", "v2beta1"), ("v2beta1", "v2")] {
        let faults = status(&answer(now, "ok", "1"), Some(first));
        let wanted = format!(
            "KMSv2 API version should not change after the initial status response version \
             {first}, got {now}"
        );
        assert_eq!(faults.all(), [wanted]);
    }
}

#[test]
fn key_ids_have_1_to_1024_bytes() {
    assert_eq!(key_id(""), Err(KeyIdFault::Empty));
    assert_eq!(key_id("1"), Ok(()));
    assert_eq!(key_id(&"k".repeat(1024)), Ok(()));
    assert_eq!(key_id(&"k".repeat(1025)), Err(KeyIdFault::TooLong(1025)));
    // Bytes, not characters.
    assert_eq!(key_id(&"ü".repeat(513)), Err(KeyIdFault::TooLong(1026)));
    let text = "keyID is 1025 bytes, which exceeds the max size of 1024";
    assert_eq!(KeyIdFault::TooLong(1025).to_string(), text);
}

#[test]
fn wrapped_seeds_have_1_to_1024_bytes() {
    assert_eq!(ciphertext(&[]), Err(CiphertextFault::Empty));
    assert_eq!(ciphertext(&[0]), Ok(()));
    assert_eq!(ciphertext(&[0; 1024]), Ok(()));
    assert_eq!(ciphertext(&[0; 1025]), Err(CiphertextFault::TooLong(1025)));
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = status(&answer("v1", "no", ""), None);
    assert_eq!(faults.all().len(), 3);
    let faults = encrypted(&EncryptResponse {
        ciphertext: Vec::new(),
        key_id: String::new(),
        annotations: BTreeMap::from([("a".to_owned(), vec![0; MAX_ANNOTATIONS])]),
    });
    assert_eq!(
        faults.all(),
        [
            "encrypted DEK source is empty",
            "keyID is empty",
            "annotation key \"a\" is not a lower-case domain name with at least two segments",
            "total size of annotations is 32769, which exceeds the max size of 32768",
        ]
    );
}

#[test]
fn annotation_keys_are_domain_names() {
    let labels = |last: usize| {
        [63, 63, 63, last]
            .map(|length| "a".repeat(length))
            .join(".")
            + ".k8s.io"
    };
    let good = [
        "a.com",
        "k8s.io",
        "dev.k8s.io",
        "dev.k8s.io.",
        "foo.example.com",
        "this.is.a.really.long.fqdn",
        "bbc.co.uk",
        "10.0.0.1",
        "1.2",
        "hyphens-are-good.k8s.io",
        "a--b.k8s.io",
        &("a".repeat(63) + ".k8s.io"),
        &labels(54),
        &(labels(54) + "."),
    ];
    for key in good {
        assert_eq!(annotated(key, 3), [], "{key}");
    }
    let bad = [
        "",
        ".",
        "...",
        ".io",
        "com",
        "com.",
        ".com",
        "Dev.k8s.io",
        ".foo.example.com",
        "*.example.com",
        "*.foo.bar.com",
        "underscores_are_bad.k8s.io",
        "foo@bar.example.com",
        "http://foo.example.com",
        "kms.example.io/version",
        "a..b",
        "k8s.io..",
        "-a.k8s.io",
        "a-.k8s.io",
        "-.k8s.io",
        "k8s.io\n",
        " k8s.io",
        "kü.k8s.io",
        &("a".repeat(64) + ".k8s.io"),
        &labels(55),
    ];
    for key in bad {
        assert_eq!(
            annotated(key, 3),
            [AnnotationFault::Key(key.to_owned())],
            "{key}"
        );
    }
}

#[test]
fn annotations_have_32768_bytes_keys_included() {
    assert_eq!(annotated("a.com", MAX_ANNOTATIONS - 5), []);
    assert_eq!(
        annotated("a.com", MAX_ANNOTATIONS - 4),
        [AnnotationFault::TooLong(32769)]
    );
    let two = ["a.com", "b.com"].map(|key| (key.to_owned(), vec![0; MAX_ANNOTATIONS / 2 - 4]));
    assert_eq!(
        annotations(&BTreeMap::from(two)),
        [AnnotationFault::TooLong(32770)]
    );
}

proptest! {
    /// The rule said again, by counting what may stand at each place.
    #[test]
    fn domain_names_by_another_way(
        name in "[-a-zA-Z0-9._/]{0,12}|([-a-z0-9]{0,70}[.]){1,5}[a-z]{0,4}",
    ) {
        let trimmed = name.strip_suffix('.').unwrap_or(&name);
        let legal = trimmed.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.'));
        let framed = format!(".{trimmed}.");
        let edges = ["..", ".-", "-."].iter().any(|edge| framed.contains(edge));
        let dots: Vec<_> = framed.match_indices('.').map(|(at, _)| at).collect();
        let short = dots.windows(2).all(|pair| pair[1] - pair[0] <= 64);
        let wanted = legal && !edges && short && dots.len() >= 3 && trimmed.len() <= 253;
        prop_assert_eq!(is_fully_qualified_domain_name(&name), wanted, "{}", name);
    }

    /// Nothing that a plugin answers can make a check panic, and limits are what decides.
    #[test]
    fn any_answer_is_checked(
        bytes in vec(any::<u8>(), 0..1100),
        id in "\\PC{0,1100}",
        notes in btree_map("\\PC{0,40}", vec(any::<u8>(), 0..9000), 0..5),
    ) {
        let total: usize = notes.iter().map(|(key, value)| key.len() + value.len()).sum();
        let too_long = total > MAX_ANNOTATIONS;
        let faults = encrypted(&EncryptResponse {
            ciphertext: bytes.clone(),
            key_id: id.clone(),
            annotations: notes,
        });
        prop_assert_eq!(faults.ciphertext.is_none(), (1..=1024).contains(&bytes.len()));
        prop_assert_eq!(faults.key_id.is_none(), (1..=1024).contains(&id.len()));
        prop_assert_eq!(faults.annotations.contains(&AnnotationFault::TooLong(total)), too_long);
    }
}
