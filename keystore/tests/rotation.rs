//! What happens next to the keys, and what may: every request, every reason.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "rotation/decide.rs"]
mod decide;
#[path = "rotation/guards.rs"]
mod guards;
#[path = "rotation/progress.rs"]
mod progress;
#[path = "rotation/scene.rs"]
mod scene;
