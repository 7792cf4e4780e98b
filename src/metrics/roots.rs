//! The roots, as metrics. A root that is no longer named disappears.

use jiff::Timestamp;

use super::Metrics;
use super::family::{Family, flag, seconds};
use super::names::{ROOT_LAST_SUCCESS, ROOT_STATE};

pub(super) const ROOTS: &[&Family] = &[&ROOT_STATE, &ROOT_LAST_SUCCESS];

/// How a root is (design §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootState {
    /// Not asked yet.
    Unknown,
    /// It unwrapped its slot when it was last asked.
    Fresh,
    /// It does not answer.
    Outage,
    /// It answers that we may not.
    Denied,
    /// Its own key is disabled, pending deletion or absent.
    KeyState,
}

impl RootState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Fresh,
        Self::Outage,
        Self::Denied,
        Self::KeyState,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fresh => "fresh",
            Self::Outage => "outage",
            Self::Denied => "denied",
            Self::KeyState => "key_state",
        }
    }
}

/// What is known of one root.
#[derive(Debug, Clone)]
pub struct RootFacts {
    /// Its name in the configuration.
    pub name: String,
    /// How it is.
    pub state: RootState,
    /// When it last unwrapped its slot, if ever.
    pub last_success: Option<Timestamp>,
}

impl Metrics {
    /// How all configured roots are.
    pub fn roots(&self, roots: &[RootFacts]) {
        let states = roots.iter().flat_map(|root| {
            RootState::ALL.into_iter().map(|state| {
                let labels = vec![root.name.clone(), state.as_str().to_owned()];
                (labels, flag(state == root.state))
            })
        });
        let last_success = roots.iter().filter_map(|root| {
            root.last_success
                .map(|date| (vec![root.name.clone()], seconds(date)))
        });
        self.roots.set(vec![
            ROOT_STATE.with(states),
            ROOT_LAST_SUCCESS.with(last_success),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::{metrics, value};

    #[test]
    fn roots_as_they_are() {
        let metrics = metrics();
        let root = |name: &str, state, last_success: Option<&str>| RootFacts {
            name: name.into(),
            state,
            last_success: last_success.map(|date| date.parse().unwrap()),
        };
        metrics.roots(&[
            root("local", RootState::Fresh, Some("2026-09-14T08:00:00Z")),
            root("bao", RootState::Unknown, None),
        ]);
        let last = |name: &str| {
            let series = "claviger_root_last_success_timestamp_seconds";
            value(&metrics, &format!(r#"{series}{{root="{name}"}}"#))
        };
        let state = |name: &str, state: RootState| {
            let state = state.as_str();
            value(
                &metrics,
                &format!(r#"claviger_root_state{{root="{name}",state="{state}"}}"#),
            )
        };
        assert_eq!(last("local"), Some(1_789_372_800.0));
        assert_eq!(last("bao"), None);
        for any in RootState::ALL {
            assert_eq!(state("local", any), Some(flag(any == RootState::Fresh)));
            assert_eq!(state("bao", any), Some(flag(any == RootState::Unknown)));
        }

        metrics.roots(&[root(
            "local",
            RootState::Outage,
            Some("2026-09-14T08:00:00Z"),
        )]);
        assert_eq!(state("local", RootState::Outage), Some(1.0));
        assert_eq!(state("local", RootState::Fresh), Some(0.0));
        assert_eq!(state("bao", RootState::Unknown), None);
    }
}
