//! Drives any KMS v2 plugin exactly as kube-apiserver 1.37 would, says what the apiserver would do
//! about each answer, and looks further than the apiserver does.
//!
//! - [`validate`]: the apiserver's own checks of one answer; pure.
//! - [`probe`]: one conversation. First what the apiserver does at its start (Status, Encrypt),
//!   then what it does later, then what it never does: `probe/beyond.rs`.
//! - [`watch`]: what the apiserver remembers of a plugin from one Status to the next.
//! - [`report`]: what was found.
//!
//! The seeds are random and encrypt nothing. A plugin is not changed by being probed, but its log
//! will speak of damaged input.

mod beyond;
mod call;
mod leak;
pub mod report;
pub mod validate;
pub mod watch;

use std::time::Duration;

use claviger_proto::v2::{EncryptResponse, StatusResponse};

use self::beyond::Wrapped;
pub use self::call::Seeds;
use self::call::{Calls, Method};
use self::report::{Check, Report, Verdict};
use self::watch::{Apiserver, View};
use crate::client::Client;

/// What the documentation of KMS v2 asks of Encrypt.
const ENCRYPT_GOAL: Duration = Duration::from_millis(100);
/// And of Decrypt.
const DECRYPT_GOAL: Duration = Duration::from_millis(10);

const NOTHING_WORKS: &str = "an apiserver that starts now neither reads nor writes; a running one \
                             writes for up to 3 minutes more";
const NEVER_READY: &str = "the apiserver is never ready, and keeps its old configuration at a \
                           reload; once started it reads and writes nevertheless";
const UNREADY: &str = "every running apiserver is not ready until it restarts";
const COASTS: &str = "the apiserver tries again every few seconds; when nothing is good for 3 \
                      minutes, writes stop, and an apiserver that starts meanwhile reads nothing";
const FLAPS: &str = "with every change all objects are stale, and the apiserver takes a new seed";

/// Talks to a plugin and reports. `version` is the one that Status must answer, where the apiserver
/// is so old that it knows one only.
pub async fn probe(
    socket: String,
    client: &Client,
    seeds: &Seeds,
    version: Option<&str>,
) -> Report {
    let mut report = Report::new(socket);
    let mut calls = Calls::new(client, seeds);
    if let Some((status, sealed)) = start(&mut calls, &mut report, seeds, version).await {
        stable(&mut calls, &mut report, &status).await;
        let wrapped = more_seeds(&mut calls, &mut report, seeds, sealed).await;
        beyond::nothing_in_clear(&calls, &mut report, &wrapped);
        if beyond::round_trip(&mut calls, &mut report, &wrapped).await {
            beyond::parallel(&mut calls, &mut report, &wrapped).await;
            beyond::bad_input(&mut calls, &mut report, &wrapped).await;
            beyond::other_lengths(&mut calls, &mut report, seeds).await;
            still_well(&mut calls, &mut report, &wrapped).await;
        } else {
            report.note("damaged input was not tried: Decrypt does not work");
        }
        size_note(&mut report, &wrapped);
    } else {
        report.note("nothing else was tried: an apiserver would get no further");
    }
    messages(&calls, &mut report);
    latency(&calls, &mut report);
    report
}

/// Asks as a running apiserver does, once: Status, and Encrypt if the key id is new to it. `now` is
/// of any clock that never goes back.
pub async fn look(
    client: &Client,
    seeds: &Seeds,
    apiserver: &mut Apiserver,
    now: Duration,
) -> View {
    let mut calls = Calls::new(client, seeds);
    let status = calls.status().await.map_err(|error| error.text());
    if apiserver.status(now, status.as_ref().map_err(String::as_str)) {
        let sealed = calls
            .encrypt(&seeds.first)
            .await
            .map_err(|error| error.text());
        apiserver.encrypted(sealed.as_ref().map_err(String::as_str));
    }
    apiserver.view(now)
}

/// What kube-apiserver does at its start: Status, then Encrypt. `None` where there is nothing to go
/// on with.
async fn start(
    calls: &mut Calls<'_>,
    report: &mut Report,
    seeds: &Seeds,
    version: Option<&str>,
) -> Option<(StatusResponse, EncryptResponse)> {
    let status = match calls.status().await {
        Ok(status) => status,
        Err(error) => {
            report.fault(
                Check::StatusAnswers,
                Verdict::Refuse,
                error.text(),
                NOTHING_WORKS,
            );
            return None;
        }
    };
    report.ok(Check::StatusAnswers, "");
    first_status(report, &status, version);
    let sealed = match calls.encrypt(&seeds.first).await {
        Ok(sealed) => sealed,
        Err(error) => {
            let found = format!("failed to encrypt DEK, error: {}", error.text());
            report.fault(Check::EncryptAnswers, Verdict::Refuse, found, NOTHING_WORKS);
            return None;
        }
    };
    report.ok(Check::EncryptAnswers, "");
    let (status, sealed) = same_key_id(calls, seeds, status, sealed).await;
    first_encrypt(report, &status, &sealed);
    (!sealed.ciphertext.is_empty()).then_some((status, sealed))
}

fn first_status(report: &mut Report, status: &StatusResponse, wanted: Option<&str>) {
    report.version = report::printable(&status.version);
    report.key_id = report::printable(&status.key_id);
    let faults = validate::status(status, wanted);
    match faults.healthz {
        None => report.ok(Check::Healthz, ""),
        Some(fault) => {
            report.fault(
                Check::Healthz,
                Verdict::Refuse,
                fault.to_string(),
                NEVER_READY,
            );
        }
    }
    match (faults.version, wanted) {
        (None, _) => report.ok(Check::Version, status.version.as_str()),
        (Some(fault), None) => {
            report.fault(
                Check::Version,
                Verdict::Refuse,
                fault.to_string(),
                NEVER_READY,
            );
        }
        (Some(_), Some(wanted)) => {
            let found = format!("got {}, wanted {wanted}", status.version);
            report.fault(Check::Version, Verdict::Refuse, found, NEVER_READY);
        }
    }
    if status.version == "v2beta1" && wanted.is_none() {
        report.note(
            "version v2beta1 is for Kubernetes 1.27 and 1.28; when it becomes v2 later, every \
             running apiserver is not ready until it restarts",
        );
    }
    match faults.key_id {
        None => report.ok(Check::StatusKeyId, format!("{} bytes", status.key_id.len())),
        Some(fault) => {
            let found = format!("got invalid KMSv2 KeyID: {fault}");
            report.fault(Check::StatusKeyId, Verdict::Refuse, found, NOTHING_WORKS);
        }
    }
}

/// Where the key changed between the two calls, the apiserver drops the answer and asks again; so
/// does this, once.
async fn same_key_id(
    calls: &mut Calls<'_>,
    seeds: &Seeds,
    status: StatusResponse,
    sealed: EncryptResponse,
) -> (StatusResponse, EncryptResponse) {
    if status.key_id != sealed.key_id
        && let Ok(again) = calls.status().await
        && let Ok(sealed_again) = calls.encrypt(&seeds.first).await
        && again.key_id == sealed_again.key_id
    {
        return (again, sealed_again);
    }
    (status, sealed)
}

fn first_encrypt(report: &mut Report, status: &StatusResponse, sealed: &EncryptResponse) {
    let faults = validate::encrypted(sealed);
    match faults.ciphertext {
        None => report.ok(
            Check::Ciphertext,
            format!("{} bytes", sealed.ciphertext.len()),
        ),
        Some(fault) => {
            let found = format!("failed to validate encrypted DEK source: {fault}");
            report.fault(Check::Ciphertext, Verdict::Refuse, found, NOTHING_WORKS);
        }
    }
    let key_id = match faults.key_id {
        Some(fault) => Some(format!("failed to validate key id: {fault}")),
        None if sealed.key_id != status.key_id => Some(format!(
            "failed to rotate DEK: Encrypt uses {}, Status says {}",
            sealed.key_id, status.key_id
        )),
        None => None,
    };
    match key_id {
        None => report.ok(Check::EncryptKeyId, ""),
        Some(found) => report.fault(Check::EncryptKeyId, Verdict::Refuse, found, NOTHING_WORKS),
    }
    match faults.annotations.first() {
        None => report.ok(
            Check::Annotations,
            format!("{} of them", sealed.annotations.len()),
        ),
        Some(fault) => {
            let found = format!("failed to validate annotations: {fault}");
            report.fault(Check::Annotations, Verdict::Refuse, found, NOTHING_WORKS);
        }
    }
}

/// Status is asked every 20 s for as long as the apiserver lives.
async fn stable(calls: &mut Calls<'_>, report: &mut Report, first: &StatusResponse) {
    const AGAIN: usize = 4;
    let mut key_ids = vec![first.key_id.clone()];
    for _ in 0..AGAIN {
        let now = match calls.status().await {
            Ok(now) => now,
            Err(error) => {
                return report.fault(Check::StatusStable, Verdict::Coast, error.text(), COASTS);
            }
        };
        if now.version != first.version {
            let found = format!("version {}, then {}", first.version, now.version);
            return report.fault(Check::StatusStable, Verdict::Refuse, found, UNREADY);
        }
        if now.healthz != first.healthz {
            let found = format!("healthz {}, then {}", first.healthz, now.healthz);
            return report.fault(Check::StatusStable, Verdict::Refuse, found, NEVER_READY);
        }
        key_ids.push(now.key_id);
    }
    key_ids.dedup();
    match &key_ids[..] {
        [_] => report.ok(Check::StatusStable, ""),
        [old, new] => {
            report.ok(Check::StatusStable, "but for the key id");
            report.note(format!(
                "the key id changed from {old} to {new}: is a rotation under way?"
            ));
        }
        many => {
            let found = format!("key ids {}", many.join(", then "));
            report.fault(Check::StatusStable, Verdict::NotNotice, found, FLAPS);
        }
    }
}

/// Has a second seed wrapped, and the first once more, each after a Status as the apiserver does
/// when the key id has changed.
async fn more_seeds<'a>(
    calls: &mut Calls<'_>,
    report: &mut Report,
    seeds: &'a Seeds,
    first: EncryptResponse,
) -> Wrapped<'a> {
    let sound = report.lines.iter().all(|line| line.verdict == Verdict::Ok);
    let mut wrapped = Wrapped { pairs: Vec::new() };
    match wrap_again(calls, &seeds.second, sound).await {
        Err(found) => report.fault(Check::TwoSeeds, Verdict::Coast, found, COASTS),
        Ok(second) if second == first => report.fault(
            Check::TwoSeeds,
            Verdict::NotNotice,
            "one answer for both",
            "the apiserver's cache takes one seed for the other; objects under it are lost",
        ),
        Ok(second) => {
            report.ok(Check::TwoSeeds, "");
            wrapped.pairs.push((&seeds.second, second));
        }
    }
    match wrap_again(calls, &seeds.first, sound).await {
        Err(found) => report.fault(Check::OneSeedTwice, Verdict::Coast, found, COASTS),
        Ok(again) if again == first => {
            report.ok(Check::OneSeedTwice, "same answer");
        }
        Ok(again) => {
            report.ok(Check::OneSeedTwice, "");
            wrapped.pairs.push((&seeds.first, again));
        }
    }
    wrapped.pairs.insert(0, (&seeds.first, first));
    wrapped
}

/// Status, then Encrypt. Where the first answers were `sound`, these must be, too.
async fn wrap_again(
    calls: &mut Calls<'_>,
    seed: &[u8],
    sound: bool,
) -> Result<EncryptResponse, String> {
    let status = calls
        .status()
        .await
        .map_err(|error| format!("Status: {}", error.text()))?;
    let sealed = calls.encrypt(seed).await.map_err(|error| error.text())?;
    if !sound {
        return Ok(sealed);
    }
    if let Some(fault) = validate::encrypted(&sealed).all().first() {
        return Err(format!("only the first was good: {fault}"));
    }
    if sealed.key_id != status.key_id {
        return Err(format!(
            "Encrypt uses {}, Status says {}",
            sealed.key_id, status.key_id
        ));
    }
    Ok(sealed)
}

/// Bad input must not have harmed the plugin.
async fn still_well(calls: &mut Calls<'_>, report: &mut Report, wrapped: &Wrapped<'_>) {
    let Some((seed, sealed)) = wrapped.pairs.first() else {
        return;
    };
    let found = match (calls.status().await, calls.decrypt(sealed).await) {
        (Err(error), _) => format!("Status: {}", error.text()),
        (_, Err(error)) => format!("Decrypt: {}", error.text()),
        (_, Ok(opened)) if opened != seed[..] => "Decrypt gives other bytes".to_owned(),
        _ => return report.ok(Check::StillWell, ""),
    };
    let means = "one damaged object in etcd could take the plugin down";
    report.fault(Check::StillWell, Verdict::Coast, found, means);
}

/// Messages of errors reach users of the API, logs and health pages.
fn messages(calls: &Calls<'_>, report: &mut Report) {
    match calls.bad_messages.first() {
        None => report.ok(Check::Messages, ""),
        Some(found) => report.fault(
            Check::Messages,
            Verdict::NotNotice,
            found.as_str(),
            "gRPC messages are shown to users of the API and stand in logs",
        ),
    }
}

fn size_note(report: &mut Report, wrapped: &Wrapped<'_>) {
    let Some((_, sealed)) = wrapped.pairs.first() else {
        return;
    };
    let noted: usize = sealed
        .annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let (seed, key_id) = (sealed.ciphertext.len(), sealed.key_id.len());
    report.note(format!(
        "{} bytes are copied into every object: ciphertext {seed}, key id {key_id}, \
         annotations {noted}",
        seed + key_id + noted
    ));
}

/// Goals of the documentation; never a fault.
fn latency(calls: &Calls<'_>, report: &mut Report) {
    report.latency_us.status = calls.median(Method::Status);
    report.latency_us.encrypt = calls.median(Method::Encrypt);
    report.latency_us.decrypt = calls.median(Method::Decrypt);
    let goals = [
        ("Encrypt", report.latency_us.encrypt, ENCRYPT_GOAL),
        ("Decrypt", report.latency_us.decrypt, DECRYPT_GOAL),
    ];
    for (method, median, goal) in goals {
        let Some(median) = median.map(Duration::from_micros) else {
            continue;
        };
        let verdict = if median < goal { "within" } else { "over" };
        let (median, goal) = (median.as_secs_f64() * 1e3, goal.as_millis());
        report.note(format!(
            "{method} takes {median:.1} ms (median), {verdict} the goal of {goal} ms"
        ));
    }
}
