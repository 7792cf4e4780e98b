//! What kube-apiserver never checks. It uses its seed from memory and opens what Encrypt made of it
//! only after a restart, or on another node: a fault here is found out when it is too late.

use claviger_proto::v2::EncryptResponse;
use tokio::task::JoinSet;

use super::call::{CallError, Calls, Seeds};
use super::report::{Check, Report, Verdict};
use super::validate::{MAX_KEY_ID, SEED};

const LOST: &str = "every object written now is unreadable once this or another apiserver starts";
const MUST_REFUSE: &str = "what etcd holds is not authenticated: a damaged or forged object is \
                           given a wrong key, which the apiserver then keeps for a day";
const NO_ANSWER: &str = "bad input must be refused; one damaged object in etcd could do this to \
                         every request";

/// Seeds whose answers were wanted, with what came.
pub(super) struct Wrapped<'a> {
    /// Each seed with what Encrypt made of it; the first pair is the apiserver's.
    pub(super) pairs: Vec<(&'a [u8; SEED], EncryptResponse)>,
}

/// Nothing that would lie in etcd beside the object may hold the seed.
pub(super) fn nothing_in_clear(calls: &Calls<'_>, report: &mut Report, wrapped: &Wrapped<'_>) {
    let mut places = Vec::new();
    for (_, sealed) in &wrapped.pairs {
        let values = sealed.annotations.iter();
        let mut noted =
            values.filter(|(k, v)| [k.as_bytes(), v].iter().any(|b| calls.holds_a_seed(b)));
        places.extend(
            calls
                .holds_a_seed(&sealed.ciphertext)
                .then(|| "the ciphertext".to_owned()),
        );
        places.extend(
            calls
                .holds_a_seed(sealed.key_id.as_bytes())
                .then(|| "the key id".to_owned()),
        );
        places.extend(noted.next().map(|(key, _)| format!("the annotation {key}")));
    }
    match places.first() {
        None => report.ok(Check::NothingInClear, ""),
        Some(place) => report.fault(
            Check::NothingInClear,
            Verdict::NotNotice,
            format!("{place} holds the seed"),
            "whoever reads etcd reads every object",
        ),
    }
}

/// Whether Decrypt gives back what Encrypt was given. Without that no other Decrypt says anything.
pub(super) async fn round_trip(
    calls: &mut Calls<'_>,
    report: &mut Report,
    wrapped: &Wrapped<'_>,
) -> bool {
    for (seed, sealed) in &wrapped.pairs {
        let found = match calls.decrypt(sealed).await {
            Ok(opened) if opened == seed[..] => continue,
            Ok(opened) if opened.len() < SEED => {
                format!(
                    "{} bytes: invalid seed length used for key generation",
                    opened.len()
                )
            }
            Ok(opened) => format!("{} other bytes", opened.len()),
            Err(error) => format!("failed to decrypt DEK, error: {}", error.text()),
        };
        report.fault(Check::RoundTrip, Verdict::NotNotice, found, LOST);
        return false;
    }
    report.ok(Check::RoundTrip, "");
    true
}

/// A restarted apiserver asks for one seed many times at once: it has no single flight.
pub(super) async fn parallel(calls: &mut Calls<'_>, report: &mut Report, wrapped: &Wrapped<'_>) {
    const AT_ONCE: usize = 8;
    let Some((seed, sealed)) = wrapped.pairs.first() else {
        return;
    };
    let mut under_way = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, request) = (calls.client().clone(), calls.decrypt_request(sealed));
        under_way.spawn(async move { client.decrypt(request).await });
    }
    let mut wrong = Vec::new();
    for answer in under_way.join_all().await {
        match answer {
            Ok(opened) if opened.plaintext == seed[..] => {}
            Ok(opened) => wrong.push(format!("{} other bytes", opened.plaintext.len())),
            Err(status) => wrong.push(calls.look_at(&status).text()),
        }
    }
    match wrong.first() {
        None => report.ok(Check::Parallel, ""),
        Some(first) => report.fault(
            Check::Parallel,
            Verdict::NotNotice,
            format!("{} of {AT_ONCE} failed: {first}", wrong.len()),
            "an apiserver that starts reads many objects at once: some lists will fail",
        ),
    }
}

/// Damaged and foreign input must be refused, in words.
pub(super) async fn bad_input(calls: &mut Calls<'_>, report: &mut Report, wrapped: &Wrapped<'_>) {
    let Some((seed, sealed)) = wrapped.pairs.first() else {
        return;
    };
    let length = sealed.ciphertext.len();
    let flipped = [0, length / 4, length / 2, length * 3 / 4, length - 1].map(|at| {
        let mut changed = sealed.clone();
        changed.ciphertext[at] ^= 1;
        changed
    });
    refused(calls, report, Check::FlippedBit, &flipped, MUST_REFUSE).await;

    let cut = [length - 1, length / 2, 1, 0].map(|length| {
        let ciphertext = sealed.ciphertext[..length].to_vec();
        EncryptResponse {
            ciphertext,
            ..sealed.clone()
        }
    });
    // A ciphertext of one byte cannot be cut to one.
    let cut: Vec<_> = cut
        .into_iter()
        .filter(|cut| cut.ciphertext.len() < length)
        .collect();
    refused(calls, report, Check::Truncated, &cut, MUST_REFUSE).await;

    let unknown = [
        "unknown-to-every-plugin".to_owned(),
        like(&sealed.key_id),
        longer(&sealed.key_id),
    ]
    .map(|key_id| EncryptResponse {
        key_id,
        ..sealed.clone()
    });
    let means = "an object's key id proves nothing: who counts what a key still protects, before \
                 it is destroyed, may count wrong";
    refused(calls, report, Check::UnknownKeyId, &unknown, means).await;

    other_annotations(calls, report, &seed[..], sealed).await;
}

/// Another key id, probably as well-formed.
fn like(key_id: &str) -> String {
    let mut other = key_id.to_owned();
    let last = other.pop();
    other.push(if last == Some('0') { '1' } else { '0' });
    other
}

/// A longer key id, but not too long.
fn longer(key_id: &str) -> String {
    if key_id.len() == MAX_KEY_ID {
        like(key_id)
    } else {
        format!("{key_id}0")
    }
}

async fn refused(
    calls: &mut Calls<'_>,
    report: &mut Report,
    check: Check,
    inputs: &[EncryptResponse],
    means: &'static str,
) {
    let mut codes: Vec<String> = Vec::new();
    for input in inputs {
        match calls.decrypt(input).await {
            Ok(opened) => {
                let found = format!("taken, and {} bytes given for it", opened.len());
                return report.fault(check, Verdict::NotNotice, found, means);
            }
            Err(error) if error.is_refusal() => codes.push(error.code()),
            Err(error) => return no_answer(report, check, &error),
        }
    }
    codes.dedup();
    report.ok(check, codes.join(", "));
}

fn no_answer(report: &mut Report, check: Check, error: &CallError) {
    let found = format!("no answer: {}", error.text());
    report.fault(check, Verdict::NotNotice, found, NO_ANSWER);
}

/// Annotations that Encrypt gave are part of the wrapped seed. Where it gives none, ignoring some
/// is harmless, and only worth a note.
async fn other_annotations(
    calls: &mut Calls<'_>,
    report: &mut Report,
    seed: &[u8],
    sealed: &EncryptResponse,
) {
    let mut other = sealed.clone();
    match other.annotations.values_mut().next() {
        Some(value) => value.push(b'0'),
        None => drop(
            other
                .annotations
                .insert("unknown.example".to_owned(), b"0".to_vec()),
        ),
    }
    match calls.decrypt(&other).await {
        Err(error) if error.is_refusal() => report.ok(Check::OtherAnnotations, error.code()),
        Err(error) => no_answer(report, Check::OtherAnnotations, &error),
        Ok(opened) if opened == seed && sealed.annotations.is_empty() => {
            report.ok(Check::OtherAnnotations, "ignored");
            report.note("Decrypt ignores annotations that Encrypt never gave");
        }
        Ok(opened) => report.fault(
            Check::OtherAnnotations,
            Verdict::NotNotice,
            format!("taken, and {} bytes given for it", opened.len()),
            "annotations are not authenticated: what they say of the key may be forged",
        ),
    }
}

/// Seeds have 32 bytes today. Others are refused, or kept; nothing in between.
pub(super) async fn other_lengths(calls: &mut Calls<'_>, report: &mut Report, seeds: &Seeds) {
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for length in [0, 1, 31, 33, 512] {
        let seed = &seeds.long[..length];
        let sealed = match calls.encrypt(seed).await {
            Ok(sealed) => sealed,
            Err(error) if error.is_refusal() => {
                refused.push(length.to_string());
                continue;
            }
            Err(error) => return no_answer(report, Check::OtherLengths, &error),
        };
        let found = match calls.decrypt(&sealed).await {
            Ok(opened) if opened == seed => {
                kept.push(length.to_string());
                continue;
            }
            Ok(opened) => format!("of {length} bytes, {} came back", opened.len()),
            Err(error) => format!("{length} bytes taken, never given back: {}", error.text()),
        };
        let means = "a newer apiserver with other seeds would lose what it writes";
        return report.fault(Check::OtherLengths, Verdict::NotNotice, found, means);
    }
    let found = match (kept.is_empty(), refused.is_empty()) {
        (_, true) => "kept".to_owned(),
        (true, _) => "refused".to_owned(),
        _ => format!("{} refused", refused.join(", ")),
    };
    report.ok(Check::OtherLengths, found);
}
