//! Every interleaving of rotations, crashes, migrations, destructions and restores, in a small world:
//! the real decisions (`rotation`) and the real rule of succession, around a model of storage,
//! members and their apiservers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "model/checks.rs"]
mod checks;
#[path = "model/document.rs"]
mod document;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/world.rs"]
mod world;
