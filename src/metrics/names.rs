//! Every metric that Claviger exports. `deploy/METRICS.md` is the same list for people; a test
//! compares the two and `/metrics`.

use prometheus::proto::MetricType::{self, COUNTER, GAUGE, HISTOGRAM};

use super::family::Family;

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Family = Family {
            name: $name, kind: $kind, labels: &[$($label),*], help: $help,
        };)*

        /// All of them.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    // Requests.
    REQUESTS = COUNTER "claviger_requests_total" ["method", "code"]
        "Calls that ended, by method and gRPC code.";
    REQUEST_DURATION = HISTOGRAM "claviger_request_duration_seconds" ["method"]
        "Time from a call's arrival to its end, by method.";
    REFUSALS = COUNTER "claviger_refusals_total" ["reason"]
        "Calls that were refused, by reason.";
    STATUS_LAST = GAUGE "claviger_status_last_timestamp_seconds" []
        "When a Status call was last answered with a key id.";
    PANICS = COUNTER "claviger_panics_total" []
        "Calls that met a fault of Claviger's own and were answered INTERNAL.";

    // Connections.
    CONNECTIONS = GAUGE "claviger_connections" []
        "Open connections on the KMS socket.";
    PEER_REJECTED = COUNTER "claviger_peer_rejected_total" ["reason"]
        "Peers that were turned away before any call, by reason.";
    ACCEPT_ERRORS = COUNTER "claviger_accept_errors_total" ["error"]
        "Connections that could not be accepted, by the operating system's error.";
    SOCKET_RESTORED = COUNTER "claviger_socket_restored_total" []
        "How often the socket file was gone and was made again.";

    // The keyring.
    KEYRING_OPEN = GAUGE "claviger_keyring_open" []
        "1 while the keyring is open, else 0.";
    KEYRING_CONDITION = GAUGE "claviger_keyring_condition" ["condition"]
        "1 for the keyring's present condition, 0 for all others.";
    KEYRING_REVISION = GAUGE "claviger_keyring_revision" []
        "Revision of the open keyring.";
    KEY_INFO = GAUGE "claviger_key_info" ["key_id", "key_id_hash", "state"]
        "Always 1: a key, its hash as in kube-apiserver's metrics, and its state.";
    KEY_CREATED = GAUGE "claviger_key_created_timestamp_seconds" ["key_id"]
        "When a key was made.";

    ROTATION_STEP = GAUGE "claviger_rotation_step" []
        "What a rotation does: 2 converge, 3 activate, 4 publish, 5 migrate, 6 prove, 7 destroy; 0 while none is under way.";
    ROTATION_WAITING = GAUGE "claviger_rotation_waiting_members" []
        "Members that a rotation waits for.";
    BACKUP_REVISION = GAUGE "claviger_backup_revision" []
        "Revision of the keyring that the last backup holds.";

    // Roots.
    ROOT_STATE = GAUGE "claviger_root_state" ["root", "state"]
        "1 for a root's present state, 0 for all others.";
    ROOT_LAST_SUCCESS = GAUGE "claviger_root_last_success_timestamp_seconds" ["root"]
        "When a root last unwrapped its slot.";
    RECOVERY_TESTED = GAUGE "claviger_recovery_tested_timestamp_seconds" []
        "When a recovery key was last shown to open its slot.";

    // The process.
    BUILD = GAUGE "claviger_build_info" ["version"]
        "Always 1: the version that runs.";
    LOG_LINES_DROPPED = COUNTER "claviger_log_lines_dropped_total" []
        "Log lines that were lost because stderr was blocked or failed.";
    PROCESS_START = GAUGE "process_start_time_seconds" []
        "When the process started, in seconds since the Unix epoch.";
    PROCESS_CPU = COUNTER "process_cpu_seconds_total" []
        "User and system CPU time that the process used, in seconds.";
    PROCESS_RESIDENT = GAUGE "process_resident_memory_bytes" []
        "Resident memory of the process.";
    PROCESS_THREADS = GAUGE "process_threads" []
        "Threads of the process.";
    PROCESS_OPEN_FDS = GAUGE "process_open_fds" []
        "Open file descriptors of the process.";
    PROCESS_MAX_FDS = GAUGE "process_max_fds" []
        "How many file descriptors the process may have open.";
}

/// The word of a type in the text format.
pub fn kind_word(kind: MetricType) -> &'static str {
    match kind {
        COUNTER => "counter",
        GAUGE => "gauge",
        HISTOGRAM => "histogram",
        _ => "untyped",
    }
}
