//! Why a value was refused, said without repeating it: it may be a key.

use std::fmt;

use serde::de::{Expected, Unexpected};

/// Why a value was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not noted yet.
    Because(String),
    /// Noted where it was found.
    Noted,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Because(message) => f.write_str(message),
            Self::Noted => f.write_str("already noted"),
        }
    }
}

impl std::error::Error for Refusal {}

impl serde::de::Error for Refusal {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Because(message.to_string())
    }

    // Serde's own messages repeat the value, which may be a key.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = plainly(&expected.to_string());
        let found = kind_of_unexpected(found);
        // `mode: 0600` and `name: yes` are what people write.
        let meant_as_text = expected == "text" && matches!(found, "a number" | "true or false");
        let hint = if meant_as_text {
            "; put it in quotes"
        } else {
            ""
        };
        Self::Because(format!("expected {expected}, found {found}{hint}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Because(format!(
            "out of range for {}",
            plainly(&expected.to_string())
        ))
    }
}

/// Serde's names of types, as people say them.
fn plainly(expected: &str) -> String {
    match expected {
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "u16" => "a whole number from 0 to 65535",
        "i32" => "a whole number of 32 bits",
        "u32" => "a whole number from 0 to 4294967295",
        other => other,
    }
    .to_owned()
}

fn kind_of_unexpected(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "a list",
        Unexpected::Map => "fields",
        _ => "text",
    }
}
