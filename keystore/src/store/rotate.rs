//! One step of a rotation: look, decide, commit.

use jiff::Timestamp;

use super::Keystore;
use crate::error::{Error, StorageError};
use crate::member::MemberName;
use crate::rotation::{self, Action, Request, Situation};

impl Keystore {
    /// Takes the next step of what is asked for, and says which that was. Whoever wants the whole
    /// asks again until nothing is left, and waits in between where members are waited for.
    /// `ourselves` is the member in whose place this is done (see [`Situation::ourselves`]).
    ///
    /// # Errors
    /// As [`Keystore::commit`]: after [`StorageError::Conflict`] somebody else took a step, and the
    /// storage is to be read and the step asked for again.
    pub async fn step(
        &self,
        request: Request,
        ourselves: Option<&MemberName>,
        now: Timestamp,
    ) -> Result<Action, Error> {
        let members = self.members().await?;
        let Some((keyring, hash)) = self.opened().await else {
            return Err(StorageError::Missing(self.storage.place()).into());
        };
        let situation = Situation {
            header: keyring.header(),
            hash,
            members: &members,
            ourselves,
            now,
        };
        let action = rotation::decide(&situation, request);
        if matches!(action, Action::Nothing(_) | Action::Wait(_)) {
            return Ok(action);
        }
        let decided_on = keyring.header().revision;
        self.commit(now, |keyring| {
            if keyring.header().revision != decided_on {
                return Err(StorageError::Conflict.into());
            }
            match &action {
                Action::Activate(id) => Ok(keyring.activate(id, now)?),
                Action::Abort(id) => Ok(keyring.destroy(id, now)?),
                _ => keyring.stage(now),
            }
        })
        .await?;
        Ok(action)
    }
}
