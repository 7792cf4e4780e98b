//! The three calls of KMS v2: translated, handed to the keyring's snapshot, translated back.
//!
//! No call waits for anything but, once, a fresh read of the storage where Decrypt names a key that
//! the keyring does not have.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use claviger_keystore::Keystore;
use claviger_keystore::key::{KeyId, KeyState};
use claviger_keystore::snapshot::Refusal;
use claviger_proto::v2::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use claviger_proto::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use jiff::Timestamp;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::config::StatusVersion;
use crate::convergence::{Convergence, Told};
use crate::observer::{Method, Observer};
use crate::publication::{Connection, LastStatus, sealing_key};
use answer::{Call, Denial};
pub(crate) use answer::{explain, printable};

/// The largest message that is read, in bytes. kube-apiserver's largest legal one has about 34 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// CLOCK_BOOTTIME: goes on while the host sleeps, and nobody can set it.
    pub boottime: fn() -> Duration,
    /// The wall clock, for dates in the keyring and its mark.
    pub wall: fn() -> Timestamp,
}

/// The three calls.
pub struct Kms {
    keystore: Arc<Keystore>,
    version: StatusVersion,
    observer: Arc<dyn Observer>,
    clock: Clock,
    convergence: Arc<Convergence>,
    /// The last Status answer on any connection.
    last_status: LastStatus,
}

impl Kms {
    /// The calls on this keystore; what they show of the apiservers goes into `convergence`.
    pub fn new(
        keystore: Arc<Keystore>,
        version: StatusVersion,
        observer: Arc<dyn Observer>,
        convergence: Arc<Convergence>,
        clock: Clock,
    ) -> Self {
        Self {
            keystore,
            version,
            observer,
            convergence,
            clock,
            last_status: LastStatus::default(),
        }
    }

    /// The gRPC service of each connection, for [`crate::server::run`].
    pub fn into_services(self) -> impl Fn(Arc<Connection>) -> KeyManagementServiceServer<Calls> {
        let kms = Arc::new(self);
        move |connection| {
            let calls = Calls {
                told: kms.opened(),
                kms: kms.clone(),
                connection,
            };
            KeyManagementServiceServer::new(calls).max_decoding_message_size(MAX_MESSAGE)
        }
    }

    fn opened(&self) -> Told {
        let view = self.keystore.view();
        let (mut primary, mut disabled) = (None, Vec::new());
        if let Ok(snapshot) = view.snapshot() {
            primary = snapshot.primary().ok();
            let states = snapshot.states();
            disabled.extend(
                states.filter_map(|(id, state)| (state == KeyState::Disabled).then_some(id)),
            );
        }
        self.convergence
            .opened(primary, disabled, self.clock.boottime)
    }

    fn primary(&self) -> Result<KeyId, Denial> {
        Ok(self.keystore.view().snapshot()?.primary()?)
    }

    fn seal(&self, connection: &Connection, seed: &[u8]) -> Result<(KeyId, Vec<u8>), Denial> {
        let view = self.keystore.view();
        let snapshot = view.snapshot()?;
        let now = (self.clock.boottime)();
        let id = sealing_key(
            snapshot.primary()?,
            connection.last_status.recent(now),
            self.last_status.recent(now),
            |id| snapshot.may_seal(id),
        );
        Ok((id, snapshot.seal(&id, seed)?))
    }

    async fn open(&self, request: &DecryptRequest) -> Result<Zeroizing<Vec<u8>>, Denial> {
        if !request.annotations.is_empty() {
            return Err(Denial::Annotations);
        }
        let id: KeyId = request
            .key_id
            .parse()
            .map_err(|_| Refusal::MalformedKeyId)?;
        let open = || {
            self.keystore
                .view()
                .snapshot()?
                .open(&id, &request.ciphertext)
        };
        match open() {
            // Another member may have made the key a moment ago.
            Err(Refusal::UnknownKey(_)) => {
                let read = self.keystore.refresh((self.clock.wall)()).await;
                match open() {
                    Err(Refusal::UnknownKey(id)) if !read => Err(Refusal::Unread(id).into()),
                    opened => Ok(opened?),
                }
            }
            opened => Ok(opened?),
        }
    }
}

/// Whether `claviger status` or `probe` asks, through which nothing is written: rotations do not wait
/// for it. Whoever may connect at all gains nothing by saying so.
fn is_ours(metadata: &MetadataMap) -> bool {
    let agent = metadata.get("user-agent");
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"claviger/"))
}

/// The three calls over one connection.
pub struct Calls {
    kms: Arc<Kms>,
    connection: Arc<Connection>,
    told: Told,
}

#[tonic::async_trait]
impl KeyManagementService for Calls {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let Self {
            kms,
            connection,
            told,
        } = self;
        let call = Call {
            method: Method::Status,
            uid: "",
            key_id: None,
            connection,
        };
        let id = kms.primary().map_err(|denial| call.refuse(denial))?;
        let now = (kms.clock.boottime)();
        connection.last_status.record(id, now);
        kms.last_status.record(id, now);
        if !is_ours(request.metadata()) {
            told.status(id, now);
        }
        kms.observer.status_answered(&id);
        call.served(id);
        Ok(Response::new(StatusResponse {
            version: kms.version.as_str().to_owned(),
            healthz: "ok".to_owned(),
            key_id: id.to_string(),
        }))
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let Self {
            kms,
            connection,
            told,
        } = self;
        // The message wipes its seed when it is dropped, here and in an error.
        let EncryptRequest { plaintext, uid } = request.get_ref();
        let call = Call {
            method: Method::Encrypt,
            uid,
            key_id: None,
            connection,
        };
        let (id, ciphertext) = kms
            .seal(connection, plaintext)
            .map_err(|denial| call.refuse(denial))?;
        told.encrypt(id);
        call.served(id);
        Ok(Response::new(EncryptResponse {
            ciphertext,
            key_id: id.to_string(),
            annotations: Default::default(),
        }))
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let Self {
            kms, connection, ..
        } = self;
        let message = request.get_ref();
        let key_id = message.key_id.parse().ok();
        let call = Call {
            method: Method::Decrypt,
            uid: &message.uid,
            key_id,
            connection,
        };
        let mut seed = kms
            .open(message)
            .await
            .map_err(|denial| call.refuse(denial))?;
        key_id.into_iter().for_each(|id| call.served(id));
        Ok(Response::new(DecryptResponse {
            plaintext: std::mem::take(&mut *seed),
        }))
    }
}
