//! Any text as a configuration: checked or refused with places that are in it; never a panic.
#![no_main]

use claviger::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(faults) = config::parse(text) {
        assert!(!faults.is_empty());
    }
});
