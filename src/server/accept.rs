//! The accept loop: who may speak HTTP/2 to us, and how many at a time.
//!
//! ```text
//! accept ─▶ uid allowed? ─▶ a slot left? ─▶ HTTP/2 preface in time? ─▶ served
//! ```
//!
//! A loop without these spins on an error such as EMFILE, and waits for a silent peer for ever.

mod frames;
mod peer;
mod preface;
mod slots;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

use super::limits::Limits;
use super::socket::Socket;
use crate::observer::{AcceptError, Observer, Rejection};
use peer::{Admission, Patience};
pub(super) use peer::{Caller, Peer};
use slots::{Slot, Slots};

/// The uid that stands for all that have no mapping in our user namespace (kernel.overflowuid).
const OVERFLOW_UID: u32 = 65534;

/// Accepts connections and admits those that may be served.
pub(super) struct Acceptor {
    socket: Socket,
    listener: UnixListener,
    socket_check: Interval,
    /// The last reason why the socket file could not be made again, so that it is logged once.
    not_restored: Option<String>,
    backoff: Backoff,
    allowed_uids: Vec<u32>,
    slots: Arc<Slots>,
    admissions: JoinSet<Option<Peer>>,
    accepted: u64,
    limits: Limits,
    observer: Arc<dyn Observer>,
}

impl Acceptor {
    pub(super) fn new(
        socket: Socket,
        allowed_uids: Vec<u32>,
        limits: &Limits,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Self> {
        let mut socket_check = tokio::time::interval(limits.socket_check);
        socket_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            listener: UnixListener::from_std(socket.listener()?)?,
            socket,
            socket_check,
            not_restored: None,
            backoff: Backoff::default(),
            slots: Slots::new(limits.connections, &allowed_uids),
            allowed_uids,
            admissions: JoinSet::new(),
            accepted: 0,
            limits: limits.clone(),
            observer,
        })
    }

    /// The next connection to be served. Nothing is lost where the wait is given up.
    pub(super) async fn next(&mut self) -> Peer {
        loop {
            tokio::select! {
                Some(admitted) = self.admissions.join_next() => {
                    if let Ok(Some(peer)) = admitted {
                        return peer;
                    }
                }
                _ = self.socket_check.tick() => self.restore_socket(),
                stream = accept(&self.listener, &mut self.backoff, &*self.observer) => {
                    self.admit(stream);
                }
            }
        }
    }

    /// Starts to wait for the peer's preface, or drops the connection.
    fn admit(&mut self, stream: UnixStream) {
        self.accepted += 1;
        let uid = stream.peer_cred().map(|peer| peer.uid());
        let (uid, slot) = match self.check(uid) {
            Ok(checked) => checked,
            Err(rejection) => return self.observer.peer_rejected(rejection),
        };
        let observer = self.observer.clone();
        let admission = Admission {
            caller: Caller::new(self.accepted, uid, self.limits.calls_per_connection),
            slot,
            observer: observer.clone(),
            patience: Patience {
                write: self.limits.write_stall,
                frame: self.limits.frame,
            },
        };
        let limit = self.limits.preface;
        self.admissions.spawn(async move {
            match tokio::time::timeout(limit, preface::arrival(&stream)).await {
                Ok(Ok(())) => Some(Peer::new(stream, admission)),
                late_or_noise => {
                    let rejection = late_or_noise.map_or(Rejection::Silence, |_| Rejection::Noise);
                    tracing::debug!(
                        peer_uid = uid,
                        rejection = rejection.as_str(),
                        "peer closed"
                    );
                    observer.peer_rejected(rejection);
                    None
                }
            }
        });
    }

    fn check(&self, uid: io::Result<u32>) -> Result<(u32, Slot), Rejection> {
        let uid = allowed(uid, &self.allowed_uids)?;
        let slot = self.slots.take(uid).ok_or_else(|| {
            tracing::warn!(peer_uid = uid, "peer rejected: too many connections");
            Rejection::Capacity
        })?;
        Ok((uid, slot))
    }

    fn restore_socket(&mut self) {
        let restored = self.socket.restore().map_err(|error| error.to_string());
        let listener = match restored {
            Ok(false) => return self.not_restored = None,
            Ok(true) => self
                .socket
                .listener()
                .and_then(UnixListener::from_std)
                .map_err(|error| error.to_string()),
            Err(cause) => Err(cause),
        };
        match listener {
            Ok(listener) => {
                self.listener = listener;
                self.not_restored = None;
                tracing::warn!("the socket file was gone and was made again");
                self.observer.socket_restored();
            }
            Err(cause) if self.not_restored.as_ref() == Some(&cause) => {}
            Err(cause) => {
                tracing::error!(%cause, "the socket file is gone and cannot be made again yet");
                self.not_restored = Some(cause);
            }
        }
    }
}

/// The next connection, however often accepting fails before.
async fn accept(
    listener: &UnixListener,
    backoff: &mut Backoff,
    observer: &dyn Observer,
) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                *backoff = Backoff::default();
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                observer.accept_error(AcceptError::from(&error));
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// Whether this peer may be served. A uid without a mapping is nobody we know, whatever is allowed.
fn allowed(uid: io::Result<u32>, allowed_uids: &[u32]) -> Result<u32, Rejection> {
    match uid {
        Err(error) => {
            tracing::warn!(%error, "peer rejected: the kernel does not say who it is");
            Err(Rejection::UnknownUid)
        }
        Ok(OVERFLOW_UID) => {
            tracing::warn!(
                peer_uid = OVERFLOW_UID,
                "peer rejected: its uid has no mapping here; claviger and kube-apiserver must run \
                 in one user namespace (see PrivateUsers= and hostUsers)"
            );
            Err(Rejection::UnknownUid)
        }
        Ok(uid) if allowed_uids.contains(&uid) => Ok(uid),
        Ok(uid) => {
            tracing::warn!(
                peer_uid = uid,
                "peer rejected: its uid is not in server.allowUIDs"
            );
            Err(Rejection::Uid)
        }
    }
}

/// The pause after a failed accept: 5 ms, doubled each time, at most 1 s.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_51_only_listed_uids_are_allowed() {
        assert_eq!(allowed(Ok(0), &[0, 970]), Ok(0));
        assert_eq!(allowed(Ok(970), &[0, 970]), Ok(970));
        assert_eq!(allowed(Ok(971), &[0, 970]), Err(Rejection::Uid));
        assert_eq!(allowed(Ok(0), &[]), Err(Rejection::Uid));
    }

    #[test]
    fn row_52_a_peer_without_a_known_uid_is_denied_whatever_is_allowed() {
        let unknown = Err(io::Error::other("no credentials"));
        assert_eq!(allowed(unknown, &[0]), Err(Rejection::UnknownUid));
        assert_eq!(allowed(Ok(65534), &[0, 65534]), Err(Rejection::UnknownUid));
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = std::iter::repeat_with(|| backoff.next().as_millis())
            .take(10)
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
