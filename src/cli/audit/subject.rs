//! What `--key` asks about.

use super::EtcdArgs;
use crate::audit::scope::Scope;
pub(super) use crate::audit::subject::Subject;
use crate::audit::subject::SubjectError;
use crate::audit::tally::Tally;
use crate::cli::failure::{Exit, Failure};

/// A `--key` that may be one, before anything was read.
pub(super) struct Asked(String);

impl Asked {
    /// Refuses at once what can be no KEK.
    pub(super) fn parse(text: &str, args: &EtcdArgs) -> Result<Self, Failure> {
        if text.starts_with('/') && args.cert.is_some() && args.cert_key.is_none() {
            return Err(usage(
                format!("--key {text} is a file, and --key asks about a KEK"),
                "the client certificate's key is --cert-key here",
            ));
        }
        match text {
            "" => Err(refusal(text, &SubjectError::Empty)),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// What it means, among what was seen and what the keyring holds.
    pub(super) fn resolve(self, tally: &Tally, scope: &Scope) -> Result<Subject, Failure> {
        Subject::find(&self.0, tally, scope).map_err(|error| refusal(&self.0, &error))
    }
}

fn refusal(text: &str, error: &SubjectError) -> Failure {
    let next = match error {
        SubjectError::Empty => "give a key id, a provider's name, or plaintext",
        SubjectError::Several(_) => "give more digits",
        SubjectError::Nothing => "give the whole id to ask about a key that nothing names",
    };
    usage(format!("`{}`: {error}", text.escape_debug()), next)
}

fn usage(cause: String, next: &str) -> Failure {
    Failure::new(Exit::Usage, "reading --key", cause, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Asked, Failure> {
        let args = EtcdArgs {
            endpoints: Vec::new(),
            cacert: None,
            cert: Some("/c".into()),
            cert_key: None,
            prefix: None,
            encryption_config: None,
        };
        Asked::parse(text, &args)
    }

    #[test]
    fn a_file_is_no_key_and_neither_is_nothing() {
        let file = parse("/etc/kubernetes/pki/etcd/client.key").err().unwrap();
        assert!(file.next.contains("--cert-key"), "{file}");
        let empty = parse("").err().unwrap();
        assert_eq!(empty.exit, Exit::Usage);
        assert!(empty.next.contains("a provider's name"), "{empty}");
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_would_be_taken() {
        let tally = Tally::new("/registry");
        let asked = parse("ffff").ok().unwrap();
        let unknown = asked.resolve(&tally, &Scope::default()).unwrap_err();
        assert_eq!(unknown.exit, Exit::Usage);
        assert!(unknown.to_string().contains("`ffff`: no key"), "{unknown}");
        assert!(unknown.next.contains("the whole id"), "{unknown}");
    }
}
