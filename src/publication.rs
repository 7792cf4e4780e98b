//! Which key id Encrypt uses, when the primary may have changed since the last Status.
//!
//! kube-apiserver asks Status first and Encrypt next, and throws an Encrypt answer away whose key
//! id is not the one that Status gave. So Encrypt follows the last Status for a while:
//!
//! 1. the last Status of this connection, if it is younger than [`RECENT`];
//! 2. else the last Status of any connection, if it is (the one between the two calls may break,
//!    and Encrypt then comes over a new one);
//! 3. else the primary.
//!
//! The key's state beats all three. So a primary that was swapped out is no longer published
//! [`RECENT`] after the swap, with calls or without.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_keystore::key::KeyId;

/// How long Encrypt follows a Status answer. kube-apiserver sends the one right after the other and
/// gives each 3 s by default.
pub const RECENT: Duration = Duration::from_secs(10);

/// The last Status answer of one connection, or of all.
#[derive(Debug, Default)]
pub struct LastStatus(ArcSwapOption<Answer>);

#[derive(Debug)]
struct Answer {
    id: KeyId,
    /// CLOCK_BOOTTIME.
    at: Duration,
}

impl LastStatus {
    /// A Status call is answered with `id` at `now` (CLOCK_BOOTTIME).
    pub fn record(&self, id: KeyId, now: Duration) {
        self.0.store(Some(Answer { id, at: now }.into()));
    }

    /// The id of the last answer, if that is younger than [`RECENT`] at `now` (CLOCK_BOOTTIME).
    pub fn recent(&self, now: Duration) -> Option<KeyId> {
        let last = self.0.load();
        let last = last.as_ref()?;
        (now.saturating_sub(last.at) < RECENT).then_some(last.id)
    }
}

/// What the server knows of one connection, for as long as it lives.
#[derive(Debug)]
pub struct Connection {
    /// Counts up from 1 in each process; names the connection in logs.
    pub number: u64,
    /// Who the kernel says is at the other end.
    pub peer_uid: u32,
    /// Its last Status answer.
    pub last_status: LastStatus,
}

impl Connection {
    /// A connection that has seen no call yet.
    pub fn new(number: u64, peer_uid: u32) -> Self {
        Self {
            number,
            peer_uid,
            last_status: LastStatus::default(),
        }
    }
}

/// The key id for one Encrypt call: the recent id of its connection or of the process, as long as
/// that key may seal, and the primary otherwise.
pub fn sealing_key(
    primary: KeyId,
    connection: Option<KeyId>,
    process: Option<KeyId>,
    may_seal: impl FnOnce(&KeyId) -> bool,
) -> KeyId {
    connection.or(process).filter(may_seal).unwrap_or(primary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(digit: u8) -> KeyId {
        format!("k1-{digit:032x}").parse().unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn the_connection_goes_before_the_process_and_both_before_the_primary() {
        let [primary, process, connection] = [id(1), id(2), id(3)];
        let yes = |_: &KeyId| true;
        assert_eq!(
            sealing_key(primary, Some(connection), Some(process), yes),
            connection
        );
        assert_eq!(sealing_key(primary, None, Some(process), yes), process);
        assert_eq!(sealing_key(primary, None, None, yes), primary);
    }

    #[test]
    fn a_key_that_may_not_seal_gives_way_to_the_primary() {
        let [primary, process, connection] = [id(1), id(2), id(3)];
        let not_connection = |key: &KeyId| *key != connection;
        assert_eq!(
            sealing_key(primary, Some(connection), Some(process), not_connection),
            primary
        );
    }

    #[test]
    fn a_status_is_followed_for_less_than_ten_seconds() {
        let last = LastStatus::default();
        assert_eq!(last.recent(at(0)), None);
        last.record(id(1), at(0));
        assert_eq!(last.recent(at(0)), Some(id(1)));
        assert_eq!(last.recent(at(10) - Duration::from_nanos(1)), Some(id(1)));
        assert_eq!(last.recent(at(10)), None);
        last.record(id(2), at(10));
        assert_eq!(last.recent(at(19)), Some(id(2)));
    }

    #[test]
    fn a_status_that_raced_ahead_of_the_clock_read_is_recent() {
        let last = LastStatus::default();
        last.record(id(1), at(5));
        assert_eq!(last.recent(at(4)), Some(id(1)));
    }

    /// What may happen to a plugin, in any order, with pauses between.
    #[derive(Debug, Clone)]
    enum Event {
        Status {
            connection: usize,
        },
        Encrypt {
            connection: usize,
        },
        Rotate,
        /// The key before the primary is disabled: it may seal no more.
        Disable,
        Reconnect {
            connection: usize,
        },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..3usize).prop_map(|connection| Event::Status { connection }),
            4 => (0..3usize).prop_map(|connection| Event::Encrypt { connection }),
            2 => Just(Event::Rotate),
            1 => Just(Event::Disable),
            1 => (0..3usize).prop_map(|connection| Event::Reconnect { connection }),
        ]
    }

    proptest! {
        #[test]
        fn encrypt_follows_status_and_forgets_the_old_key_in_ten_seconds(
            events in prop::collection::vec((event(), 0..6u64), 1..200),
        ) {
            let process = LastStatus::default();
            let mut connections: [Connection; 3] = std::array::from_fn(|_| Connection::new(0, 0));
            let mut promised: [Option<(u8, u64)>; 3] = [None; 3];
            let (mut primary, mut oldest_usable, mut swapped, mut now) = (1u8, 1u8, 0, 0);
            for (event, pause) in events {
                now += pause;
                match event {
                    Event::Rotate => (primary, swapped) = (primary.saturating_add(1), now),
                    Event::Disable => oldest_usable = primary,
                    Event::Reconnect { connection } => {
                        connections[connection] = Connection::new(0, 0);
                        promised[connection] = None;
                    }
                    Event::Status { connection } => {
                        connections[connection].last_status.record(id(primary), at(now));
                        process.record(id(primary), at(now));
                        promised[connection] = Some((primary, now));
                    }
                    Event::Encrypt { connection } => {
                        let may_seal = |key: &KeyId| (oldest_usable..=primary).any(|n| id(n) == *key);
                        let used = sealing_key(
                            id(primary),
                            connections[connection].last_status.recent(at(now)),
                            process.recent(at(now)),
                            may_seal,
                        );
                        prop_assert!(may_seal(&used));
                        if now - swapped >= 10 {
                            prop_assert_eq!(used, id(primary));
                        }
                        if let Some((key, when)) = promised[connection]
                            && now - when < 10
                            && key >= oldest_usable
                        {
                            prop_assert_eq!(used, id(key));
                        }
                    }
                }
            }
        }
    }
}
