//! The probe's calls: each with a fresh uid as kube-apiserver's, timed, and every error looked at,
//! because its message would reach users of the API.

use std::time::Duration;

use claviger_proto::v2::{DecryptRequest, EncryptRequest, EncryptResponse, StatusResponse};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::leak::Needles;
use super::validate::SEED;
use crate::client::Client;

/// How tonic says that a message was not UTF-8; the message itself is lost.
const NOT_UTF8: &str = "Error deserializing status message header";

/// Random bytes for one probe: seeds that will never encrypt anything, and names for calls.
pub struct Seeds {
    /// What kube-apiserver would generate at its start.
    pub(super) first: [u8; SEED],
    /// What it would generate at the next change of the key id.
    pub(super) second: [u8; SEED],
    /// Cut to seeds of other lengths.
    pub(super) long: [u8; 512],
    uid: [u8; 10],
}

impl Seeds {
    /// From the operating system's generator.
    ///
    /// # Errors
    /// Where it fails.
    pub fn generate() -> Result<Self, Unspecified> {
        let random = SystemRandom::new();
        let mut seeds = Self {
            first: [0; _],
            second: [0; _],
            long: [0; _],
            uid: [0; _],
        };
        random.fill(&mut seeds.first)?;
        random.fill(&mut seeds.second)?;
        random.fill(&mut seeds.long)?;
        random.fill(&mut seeds.uid)?;
        Ok(seeds)
    }
}

/// A call that had no answer, or an error for one.
#[derive(Debug, Clone)]
pub(super) struct CallError {
    code: Code,
    message: String,
    answered: bool,
}

impl CallError {
    fn from(status: &Status) -> Self {
        // What the plugin said has no source; what tonic made of a broken connection has one. A
        // handler that panics resets its stream, which reads CANCELLED.
        let came_from_it = std::error::Error::source(status).is_none();
        let in_time = !matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
        let answered = came_from_it && in_time;
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            answered,
        }
    }

    /// Whether the plugin itself said no, rather than hang or end the connection.
    pub(super) fn is_refusal(&self) -> bool {
        self.answered
    }

    /// The code, without the message.
    pub(super) fn code(&self) -> String {
        format!("{:?}", self.code)
    }

    /// Code and message.
    pub(super) fn text(&self) -> String {
        format!("{:?}: {}", self.code, self.message)
    }
}

/// Calls to one plugin.
pub(super) struct Calls<'a> {
    client: &'a Client,
    uid: [u8; 10],
    count: u16,
    needles: Vec<Needles>,
    /// What is wrong with messages, one text for each fault found.
    pub(super) bad_messages: Vec<String>,
    /// How long answers took, by method: Status, Encrypt, Decrypt.
    took: [Vec<Duration>; 3],
}

/// Index of a method in [`Calls::took`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Status,
    Encrypt,
    Decrypt,
}

impl<'a> Calls<'a> {
    pub(super) fn new(client: &'a Client, seeds: &Seeds) -> Self {
        let needles = [&seeds.first[..], &seeds.second, &seeds.long]
            .map(Needles::of)
            .to_vec();
        let took = [const { Vec::new() }; 3];
        Self {
            client,
            uid: seeds.uid,
            count: 0,
            needles,
            bad_messages: Vec::new(),
            took,
        }
    }

    pub(super) fn client(&self) -> &Client {
        self.client
    }

    /// Whether bytes that would lie in etcd, in clear, hold a seed of this probe.
    pub(super) fn holds_a_seed(&self, bytes: &[u8]) -> bool {
        self.needles.iter().any(|seed| seed.in_bytes(bytes))
    }

    pub(super) async fn status(&mut self) -> Result<StatusResponse, CallError> {
        let started = Instant::now();
        let answer = self.client.status().await;
        self.heard(Method::Status, started, answer)
    }

    pub(super) async fn encrypt(&mut self, seed: &[u8]) -> Result<EncryptResponse, CallError> {
        let request = EncryptRequest {
            plaintext: seed.to_vec(),
            uid: self.uid(),
        };
        let started = Instant::now();
        let answer = self.client.encrypt(request).await;
        self.heard(Method::Encrypt, started, answer)
    }

    /// Has an answer of Encrypt opened, or what was made of one.
    pub(super) async fn decrypt(&mut self, sealed: &EncryptResponse) -> Result<Vec<u8>, CallError> {
        let request = self.decrypt_request(sealed);
        let started = Instant::now();
        let answer = self.client.decrypt(request).await;
        let mut answer = self.heard(Method::Decrypt, started, answer)?;
        Ok(std::mem::take(&mut answer.plaintext))
    }

    /// What kube-apiserver would send to have this opened.
    pub(super) fn decrypt_request(&mut self, sealed: &EncryptResponse) -> DecryptRequest {
        DecryptRequest {
            ciphertext: sealed.ciphertext.clone(),
            uid: self.uid(),
            key_id: sealed.key_id.clone(),
            annotations: sealed.annotations.clone(),
        }
    }

    /// Looks at an error's message, as [`Calls`] does with its own calls.
    pub(super) fn look_at(&mut self, status: &Status) -> CallError {
        let error = CallError::from(status);
        let fault = if error.message.starts_with(NOT_UTF8) {
            "a message is not UTF-8"
        } else if self.holds_a_seed(error.message.as_bytes()) {
            "a message holds the seed"
        } else {
            return error;
        };
        if !self.bad_messages.iter().any(|known| known == fault) {
            self.bad_messages.push(fault.to_owned());
        }
        error
    }

    /// The median time of a method's answers, in microseconds.
    pub(super) fn median(&self, method: Method) -> Option<u64> {
        let mut took = self.took[method as usize].clone();
        took.sort_unstable();
        let median = took.get(took.len() / 2)?;
        u64::try_from(median.as_micros()).ok()
    }

    fn heard<A>(
        &mut self,
        method: Method,
        started: Instant,
        answer: Result<A, Status>,
    ) -> Result<A, CallError> {
        match answer {
            Ok(answer) => {
                self.took[method as usize].push(started.elapsed());
                Ok(answer)
            }
            Err(status) => Err(self.look_at(&status)),
        }
    }

    /// A version 4 UUID, as kube-apiserver makes one for each call (RFC 9562 §5.4).
    fn uid(&mut self) -> String {
        self.count = self.count.wrapping_add(1);
        let [a, b, c, d, e, f, g, h, i, j] = self.uid;
        let count = self.count;
        format!(
            "{a:02x}{b:02x}{c:02x}{d:02x}-{e:02x}{f:02x}-4{g:03x}-{:02x}{h:02x}-\
             {i:02x}{j:02x}0000{count:04x}",
            0x80 | (g & 0x3f),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::client::{Endpoint, TIMEOUT};

    #[tokio::test]
    async fn uids_are_uuids_and_no_two_are_equal() {
        let client = Client::new(Endpoint::Abstract("nobody".to_owned()), TIMEOUT);
        let seeds = Seeds::generate().unwrap();
        let mut calls = Calls::new(&client, &seeds);
        let uids: BTreeSet<_> = (0..100).map(|_| calls.uid()).collect();
        assert_eq!(uids.len(), 100);
        for uid in uids {
            let lengths: Vec<_> = uid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uid}");
            assert_eq!(&uid[14..15], "4", "{uid}");
            assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"), "{uid}");
        }
    }

    #[test]
    fn a_broken_connection_is_no_refusal() {
        assert!(CallError::from(&Status::invalid_argument("no")).is_refusal());
        assert!(CallError::from(&Status::unavailable("not yet")).is_refusal());
        assert!(!CallError::from(&Status::deadline_exceeded("late")).is_refusal());
        assert!(!CallError::from(&Status::cancelled("panic")).is_refusal());
        let broken = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
        assert!(!CallError::from(&broken).is_refusal());
    }
}
