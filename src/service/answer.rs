//! How a refusal is told: to kube-apiserver as a gRPC status, to the operator as one log line.
//!
//! kube-apiserver hands our message on to API clients, inside errors of GET and LIST, so it names
//! the key, its state, the date and what helps, and never anything that came in the call.

use claviger_keystore::envelope::MAX_SEED_LEN;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::snapshot::Refusal;
use jiff::Timestamp;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::observer::REASON_METADATA;
use crate::observer::{Method, Reason};
use crate::publication::Connection;

const OTHER_PLUGIN: &str = "another plugin encrypted this; list that plugin as a provider too";

/// How much of a call's uid is logged, in characters. kube-apiserver's have 36.
const MAX_UID: usize = 64;

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Denial {
    /// By the keyring.
    Keyring(Refusal),
    /// Decrypt came with annotations.
    Annotations,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self::Keyring(refusal)
    }
}

/// What log lines say of one call.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// As it came: any text of any length.
    pub(super) uid: &'a str,
    /// The key id of the call, if that is well-formed.
    pub(super) key_id: Option<KeyId>,
    pub(super) connection: &'a Connection,
}

impl Call<'_> {
    /// Logs the refusal and makes the answer.
    pub(super) fn refuse(&self, denial: Denial) -> Status {
        let (code, reason) = classify(&denial);
        let message = self.explain(&denial);
        tracing::warn!(
            method = self.method.as_str(),
            uid = %printable(self.uid, MAX_UID),
            key_id = self.key_id.map(tracing::field::display),
            reason = reason.as_str(),
            ?code,
            peer_uid = self.connection.peer_uid,
            message,
            "request refused"
        );
        let mut status = Status::new(code, message);
        status
            .metadata_mut()
            .insert(REASON_METADATA, MetadataValue::from_static(reason.as_str()));
        status
    }

    pub(super) fn served(&self, id: KeyId) {
        tracing::debug!(
            method = self.method.as_str(),
            uid = %printable(self.uid, MAX_UID),
            key_id = %id,
            connection = self.connection.number,
            "request served"
        );
    }

    fn explain(&self, denial: &Denial) -> String {
        match denial {
            Denial::Keyring(refusal) => explain(refusal, self.key_id),
            Denial::Annotations => {
                format!("the call has annotations, and Claviger makes none: {OTHER_PLUGIN}")
            }
        }
    }
}

/// What was wrong, and what helps. `key_id` is the call's, where it has a well-formed one.
pub(crate) fn explain(refusal: &Refusal, key_id: Option<KeyId>) -> String {
    match refusal {
        Refusal::NotOpen(why) => format!("the keyring is not open: {why}"),
        Refusal::DecryptOnly(why) => format!("only Decrypt is served: {why}"),
        Refusal::NoPrimary => "the keyring has no primary key: it was restored and waits for its \
                               activation; see claviger status"
            .to_owned(),
        Refusal::SelfCheckFailed => "a sealed seed did not open again, and this process seals no \
                                     more: check the node's memory and processor, then restart \
                                     claviger"
            .to_owned(),
        Refusal::Random => "the node's random generator failed; see the kernel's log".to_owned(),
        Refusal::UnknownKey(id) => format!(
            "key {id} is not in the keyring, which was read again just now; restore a backup \
             that has it"
        ),
        Refusal::Unread(id) => format!(
            "key {id} is not in the keyring in memory, and the storage cannot be read; claviger \
             status says why"
        ),
        Refusal::MalformedKeyId => format!(
            "the key id is not one of Claviger's, k1- and 32 lower-case hex digits: {OTHER_PLUGIN}"
        ),
        Refusal::KeyState(id, state, since) => explain_state(id, *state, *since),
        Refusal::SeedLength(len) => {
            format!("a seed has 1 to {MAX_SEED_LEN} bytes, this one has {len}")
        }
        Refusal::CiphertextLength(len) => format!(
            "none of Claviger's ciphertexts has {len} bytes: this one was changed, or \
             {OTHER_PLUGIN}"
        ),
        Refusal::ForeignCiphertext => {
            format!("the ciphertext is not Claviger's: {OTHER_PLUGIN}")
        }
        Refusal::NewerCiphertext(format) => {
            format!("the ciphertext has the newer format {format}: upgrade claviger on this node")
        }
        Refusal::Authentication => format!(
            "the ciphertext does not authenticate{}: it was changed, or belongs to another key or \
             cluster; restore the object from a backup",
            key_id
                .map(|id| format!(" under key {id}"))
                .unwrap_or_default()
        ),
    }
}

/// The one place where a refusal gets its gRPC code and its reason.
fn classify(denial: &Denial) -> (Code, Reason) {
    let refusal = match denial {
        Denial::Keyring(refusal) => refusal,
        Denial::Annotations => return (Code::InvalidArgument, Reason::Annotations),
    };
    match refusal {
        Refusal::NotOpen(_) => (Code::Unavailable, Reason::NotOpen),
        Refusal::DecryptOnly(_) => (Code::FailedPrecondition, Reason::DecryptOnly),
        Refusal::NoPrimary => (Code::FailedPrecondition, Reason::NoPrimary),
        Refusal::SelfCheckFailed => (Code::Internal, Reason::SelfCheckFailed),
        Refusal::Random => (Code::Unavailable, Reason::Random),
        Refusal::UnknownKey(_) => (Code::NotFound, Reason::UnknownKey),
        Refusal::Unread(_) => (Code::Unavailable, Reason::Unread),
        Refusal::MalformedKeyId => (Code::InvalidArgument, Reason::MalformedKeyId),
        Refusal::KeyState(..) => (Code::FailedPrecondition, Reason::KeyState),
        Refusal::SeedLength(_) => (Code::InvalidArgument, Reason::SeedLength),
        Refusal::CiphertextLength(_) => (Code::InvalidArgument, Reason::CiphertextLength),
        Refusal::ForeignCiphertext => (Code::InvalidArgument, Reason::ForeignCiphertext),
        Refusal::NewerCiphertext(_) => (Code::InvalidArgument, Reason::NewerCiphertext),
        Refusal::Authentication => (Code::DataLoss, Reason::Authentication),
    }
}

fn explain_state(id: &KeyId, state: KeyState, since: Option<Timestamp>) -> String {
    let since = since
        .map(|since| format!(" since {since}"))
        .unwrap_or_default();
    let help = match state {
        KeyState::Disabled => format!("claviger key enable {id} makes it readable again"),
        KeyState::Destroyed => "its bytes are gone; restore a backup that has them".to_owned(),
        KeyState::Staged | KeyState::Primary | KeyState::Retired => {
            "see claviger key list".to_owned()
        }
    };
    format!("key {id} is {state}{since}: {help}")
}

/// The beginning of a text that came from outside, safe for one line of a log: at most `max`
/// characters, with anything but printable ASCII escaped.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for escaped in text.chars().take(max).map(char::escape_default) {
        if shown.len() + escaped.len() > max {
            break;
        }
        shown.extend(escaped);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn id() -> KeyId {
        "k1-ed41dddad06fa5a51ae4b71183601342".parse().unwrap()
    }

    static CONNECTION: LazyLock<Connection> = LazyLock::new(|| Connection::new(7, 1001));

    fn call() -> Call<'static> {
        Call {
            method: Method::Decrypt,
            uid: "a\nuid",
            key_id: Some(id()),
            connection: &CONNECTION,
        }
    }

    fn every_refusal() -> Vec<(Refusal, Code)> {
        let since = Some(Timestamp::from_second(1_790_000_000).unwrap());
        vec![
            (Refusal::NotOpen("no root".into()), Code::Unavailable),
            (
                Refusal::DecryptOnly("an older copy".into()),
                Code::FailedPrecondition,
            ),
            (Refusal::NoPrimary, Code::FailedPrecondition),
            (Refusal::SelfCheckFailed, Code::Internal),
            (Refusal::Random, Code::Unavailable),
            (Refusal::UnknownKey(id()), Code::NotFound),
            (Refusal::Unread(id()), Code::Unavailable),
            (Refusal::MalformedKeyId, Code::InvalidArgument),
            (
                Refusal::KeyState(id(), KeyState::Disabled, since),
                Code::FailedPrecondition,
            ),
            (
                Refusal::KeyState(id(), KeyState::Destroyed, since),
                Code::FailedPrecondition,
            ),
            (Refusal::SeedLength(513), Code::InvalidArgument),
            (Refusal::CiphertextLength(3), Code::InvalidArgument),
            (Refusal::ForeignCiphertext, Code::InvalidArgument),
            (Refusal::NewerCiphertext(2), Code::InvalidArgument),
            (Refusal::Authentication, Code::DataLoss),
        ]
    }

    #[test]
    fn every_refusal_has_its_code_and_a_reason_of_its_own() {
        let mut reasons = std::collections::HashSet::new();
        for (refusal, code) in every_refusal() {
            let keyed = matches!(refusal, Refusal::KeyState(..));
            let status = call().refuse(refusal.into());
            assert_eq!(status.code(), code, "{status:?}");
            let reason = status
                .metadata()
                .get(REASON_METADATA)
                .unwrap()
                .to_str()
                .unwrap();
            assert!(reasons.insert(reason.to_owned()) || keyed, "{reason} twice");
        }
        let status = call().refuse(Denial::Annotations);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(!reasons.contains(Reason::Fault.as_str()));
    }

    #[test]
    fn a_message_says_what_is_wrong_and_what_helps() {
        let said = |refusal: Refusal| call().refuse(refusal.into()).message().to_owned();
        let since = Some(Timestamp::from_second(1_790_000_000).unwrap());
        assert_eq!(
            said(Refusal::KeyState(id(), KeyState::Disabled, since)),
            "key k1-ed41dddad06fa5a51ae4b71183601342 is disabled since 2026-09-21T14:13:20Z: \
             claviger key enable k1-ed41dddad06fa5a51ae4b71183601342 makes it readable again"
        );
        assert!(said(Refusal::NotOpen("no slot opens".into())).ends_with("no slot opens"));
        assert!(said(Refusal::Authentication).contains("under key k1-ed41dddad06f"));
        assert!(said(Refusal::UnknownKey(id())).contains("k1-ed41dddad06f"));
    }

    #[test]
    fn no_message_has_two_lines_or_the_callers_text() {
        for (refusal, _) in every_refusal() {
            let message = call().refuse(refusal.into()).message().to_owned();
            assert!(
                !message.contains(['\n', '\r']) && !message.contains("uid"),
                "{message}"
            );
        }
    }

    /// What is logged meanwhile, as text.
    fn logged(action: impl FnOnce()) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(std::sync::Mutex::new(writer))
            .finish();
        tracing::subscriber::with_default(subscriber, action);
        std::io::read_to_string(&mut reader).unwrap()
    }

    #[test]
    fn a_refused_call_is_one_line_at_warn() {
        let call = Call {
            connection: &CONNECTION,
            ..call()
        };
        let lines = logged(|| drop(call.refuse(Refusal::Authentication.into())));
        assert_eq!(lines.matches('\n').count(), 1, "{lines}");
        assert!(lines.contains(" WARN "), "{lines}");
        for said in [
            "request refused",
            "Decrypt",
            "a\\nuid",
            "k1-ed41dddad06fa5a51ae4b71183601342",
            "authentication",
            "DataLoss",
            "peer_uid=1001",
        ] {
            assert!(lines.contains(said), "{said} is not in {lines}");
        }
    }

    #[test]
    fn a_served_call_is_one_line_at_debug() {
        let lines = logged(|| call().served(id()));
        assert_eq!(lines.matches('\n').count(), 1, "{lines}");
        assert!(lines.contains("DEBUG"), "{lines}");
    }

    #[test]
    fn row_32_a_uid_is_shown_in_64_safe_characters() {
        assert_eq!(printable("7b3c-11", MAX_UID), "7b3c-11");
        assert_eq!(
            printable("a\nb\u{1b}[31m\u{202e}", MAX_UID),
            "a\\nb\\u{1b}[31m\\u{202e}"
        );
        assert_eq!(printable(&"x".repeat(65_536), MAX_UID).len(), 64);
        assert_eq!(printable("", MAX_UID), "");
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_short_and_printable(text in ".{0,200}|[\\x00-\\x1f]{0,100}") {
            let shown = printable(&text, MAX_UID);
            prop_assert!(shown.len() <= 64);
            prop_assert!(shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
    }
}
