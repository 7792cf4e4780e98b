//! The EncryptionConfiguration of each phase.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::template::yaml;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::config::{Config, ReadError, SocketAddress};
use crate::encryption_config::{self, Level, Phase, judge};

/// Which EncryptionConfiguration to print.
#[derive(Debug, clap::Args)]
pub(super) struct EncryptionArgs {
    /// The step of the way in or out.
    #[arg(long, value_enum, default_value = "write")]
    phase: Phase,
    /// The provider's name. It stands in the prefix of every object and can never change.
    #[arg(long, default_value = NAME)]
    name: String,
    /// What to encrypt, separated by commas: `secrets`, `deployments.apps`, `*.`, `*.*`.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = RESOURCES)]
    resources: Vec<String>,
}

const NAME: &str = "claviger";
const RESOURCES: [&str; 2] = ["secrets", "configmaps"];

impl Default for EncryptionArgs {
    fn default() -> Self {
        Self {
            phase: Phase::Write,
            name: NAME.to_owned(),
            resources: RESOURCES.map(str::to_owned).to_vec(),
        }
    }
}

/// The file and, as comments, where it goes and what comes before and after it.
pub(super) fn print(
    config: &Config,
    args: &EncryptionArgs,
    output: &Output,
) -> Result<String, Failure> {
    let document = document(config, args);
    let refused = |cause: String| {
        Failure::new(
            Exit::Usage,
            "writing an EncryptionConfiguration",
            cause,
            "mend --name or --resources: kube-apiserver would refuse the file",
        )
    };
    let read = encryption_config::parse(&document)
        .map_err(|faults| refused(ReadError::Faults(faults).to_string()))?;
    for finding in judge(&read, Some(args.phase), Some(&config.server.socket)) {
        match finding.level {
            Level::Ok => {}
            Level::Warn => output.note(&format!("note: {}", finding.text)),
            Level::Bad => return Err(refused(finding.text)),
        }
    }
    Ok(format!("{}{document}", comments(config, args.phase)))
}

/// The file without comments.
pub(super) fn document(config: &Config, args: &EncryptionArgs) -> String {
    let kms = format!(
        "  - kms:\n      apiVersion: v2\n      name: {}\n      endpoint: {}\n      timeout: 3s\n",
        yaml(&args.name),
        yaml(&endpoint(&config.server.socket)),
    );
    let identity = "  - identity: {}\n";
    let providers = match args.phase {
        Phase::Write => format!("{kms}{identity}"),
        Phase::Final => kms,
        Phase::Prepare | Phase::Leave => format!("{identity}{kms}"),
    };
    let resources: String = args
        .resources
        .iter()
        .map(|resource| format!("  - {}\n", yaml(resource)))
        .collect();
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources:\n{resources}  providers:\n{providers}"
    )
}

/// What stays as it is in the path of a URL (RFC 3986 §3.3), besides letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn endpoint(socket: &SocketAddress) -> String {
    match socket {
        SocketAddress::Path(path) => {
            format!(
                "unix://{}",
                utf8_percent_encode(&path.to_string_lossy(), ESCAPED)
            )
        }
        SocketAddress::Abstract(name) => format!("unix:///@{name}"),
    }
}

fn comments(config: &Config, phase: Phase) -> String {
    let default = Path::new("/etc/kubernetes/encryption.yaml");
    let file = config
        .kubernetes
        .encryption_config
        .as_deref()
        .unwrap_or(default)
        .display();
    let (before, after) = match phase {
        Phase::Prepare => (
            "the plugin answers on this node (claviger probe).",
            "every node has this file and has loaded it: phase write.",
        ),
        Phase::Write => (
            "every node has loaded the file of phase prepare (one node: skip it).",
            "every object was rewritten, so that none is plaintext: phase final.",
        ),
        Phase::Final => (
            "no object is plaintext any more, on a cluster in phase write.",
            "nothing reads or writes plaintext any more.",
        ),
        Phase::Leave => (
            "every node is in phase write or final.",
            "every object was rewritten, so that none needs our keys: take kms out.",
        ),
    };
    format!(
        "# EncryptionConfiguration, phase {phase}:\n\
         # {order}.\n\
         # The same on every control-plane node: {file}\n\
         # (root, 0600).\n\
         # kube-apiserver loads it within 60 s of a change, with these flags:\n\
         #   --encryption-provider-config={file}\n\
         #   --encryption-provider-config-automatic-reload=true\n\
         # Before: {before}\n\
         # After:  {after}\n",
        phase = phase.name(),
        order = phase.order(),
    )
}
