//! What the server tells whoever counts: closed sets of names, so that labels stay bounded.

use std::time::Duration;

use claviger_keystore::key::KeyId;
use tonic::Code;

/// The metadata of a refused call's answer that holds the reason's name ([`Reason::as_str`]).
pub const REASON_METADATA: &str = "claviger-reason";

/// Hears of everything that happens on the socket. Calls come from request tasks and must be
/// quick: no lock that is held for long, no I/O.
pub trait Observer: Send + Sync {
    /// One call ended, however it ended: a call whose client went away counts as
    /// [`Code::Cancelled`].
    fn request(&self, method: Method, code: Code, elapsed: Duration);
    /// One call was refused. Follows the call's own [`Observer::request`] or precedes it.
    fn refused(&self, reason: Reason);
    /// A Status call was answered with this key id.
    fn status_answered(&self, id: &KeyId);
    /// A connection passed the checks and is being served.
    fn connection_opened(&self);
    /// A connection that was opened is closed.
    fn connection_closed(&self);
    /// A peer was turned away before any HTTP/2.
    fn peer_rejected(&self, rejection: Rejection);
    /// Accepting a connection failed.
    fn accept_error(&self, error: AcceptError);
    /// A request panicked and was answered INTERNAL.
    fn panic_caught(&self);
    /// The socket file was gone and was made again.
    fn socket_restored(&self);
}

/// Makes an enum whose variants have names for labels and a list of all of them.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value, for metrics that start at zero.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

labels! {
    /// The called method.
    Method {
        /// `/v2.KeyManagementService/Status`.
        Status = "Status",
        /// `/v2.KeyManagementService/Encrypt`.
        Encrypt = "Encrypt",
        /// `/v2.KeyManagementService/Decrypt`.
        Decrypt = "Decrypt",
        /// Any other path.
        Unknown = "unknown",
    }
}

labels! {
    /// Why a call was refused: the label of `refusals_total` and the answer's metadata
    /// `claviger-reason`.
    Reason {
        /// The keyring is not open.
        NotOpen = "not_open",
        /// The keyring is older than one seen before, or was not read for too long.
        DecryptOnly = "decrypt_only",
        /// The keyring has no primary key.
        NoPrimary = "no_primary",
        /// A sealed seed did not open again; this process seals no more.
        SelfCheckFailed = "self_check_failed",
        /// The operating system's random generator failed.
        Random = "random",
        /// A well-formed key id that the keyring does not have.
        UnknownKey = "unknown_key",
        /// A key id that may be in the storage, which could not be read.
        Unread = "unread",
        /// A key id that Claviger cannot have made.
        MalformedKeyId = "malformed_key_id",
        /// The key's state forbids it.
        KeyState = "key_state",
        /// An empty or oversized seed.
        SeedLength = "seed_length",
        /// A ciphertext that is too short or too long.
        CiphertextLength = "ciphertext_length",
        /// Another program's ciphertext.
        ForeignCiphertext = "foreign_ciphertext",
        /// A newer Claviger's ciphertext.
        NewerCiphertext = "newer_ciphertext",
        /// The ciphertext's tag did not verify.
        Authentication = "authentication",
        /// Annotations on a Decrypt call; Claviger returns none.
        Annotations = "annotations",
        /// Not a call of the KMS v2 contract: unknown method, broken protobuf, too large.
        Protocol = "protocol",
        /// The call did not arrive or finish in time.
        Deadline = "deadline",
        /// Too many calls at once on one connection.
        Overload = "overload",
        /// A fault of Claviger's own: a panic, or a refusal without a name.
        Fault = "fault",
    }
}

labels! {
    /// Why a peer was turned away before any HTTP/2.
    Rejection {
        /// Its uid is not allowed.
        Uid = "uid",
        /// The kernel did not say who it is, or only that its uid has no mapping here.
        UnknownUid = "unknown_uid",
        /// Too many connections.
        Capacity = "capacity",
        /// It did not speak HTTP/2.
        Noise = "noise",
        /// It did not say anything in time.
        Silence = "silence",
    }
}

labels! {
    /// Why a connection could not be accepted.
    AcceptError {
        /// The process has no descriptor left.
        Emfile = "EMFILE",
        /// The host has no descriptor left.
        Enfile = "ENFILE",
        /// No memory for a socket buffer.
        Enobufs = "ENOBUFS",
        /// No memory.
        Enomem = "ENOMEM",
        /// The peer went away first.
        Econnaborted = "ECONNABORTED",
        /// Anything else.
        Other = "other",
    }
}

impl From<&std::io::Error> for AcceptError {
    fn from(error: &std::io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(error) {
            Some(Errno::MFILE) => Self::Emfile,
            Some(Errno::NFILE) => Self::Enfile,
            Some(Errno::NOBUFS) => Self::Enobufs,
            Some(Errno::NOMEM) => Self::Enomem,
            Some(Errno::CONNABORTED) => Self::Econnaborted,
            _ => Self::Other,
        }
    }
}
