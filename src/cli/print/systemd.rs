//! The systemd units.

use std::path::{Path, PathBuf};

use super::template::{fill, shell, unit, unit_argument};
use crate::config::{Config, RootKindConfig, SocketAddress, StorageConfig};

/// Which unit to print.
#[derive(Debug, clap::Args)]
pub(super) struct SystemdArgs {
    /// The socket unit, to be put beside the service.
    #[arg(long)]
    socket: bool,
}

/// Where the units expect the program.
const BINARY: &str = "/usr/local/bin/claviger";
/// The user that the service runs as.
const USER: &str = "claviger";

pub(super) fn print(config: &Config, config_path: &Path, args: &SystemdArgs) -> String {
    if args.socket {
        socket(config)
    } else {
        service(config, config_path)
    }
}

fn service(config: &Config, config_path: &Path) -> String {
    let group = config.server.group.as_deref();
    // In a namespace of its own the service knows root and itself; everybody else is 65534.
    let alone = group.is_none() && config.server.allow_uids.iter().all(|uid| *uid == 0);
    let at_home = paths(config, config_path).any(|path| {
        ["/home", "/root", "/run/user"]
            .iter()
            .any(|home| path.starts_with(home))
    });
    let yes = |directive: &str, wanted: bool| {
        if wanted {
            directive.to_owned()
        } else {
            String::new()
        }
    };
    let values = [
        ("binary", BINARY.to_owned()),
        ("user", USER.to_owned()),
        ("config", unit_argument(config_path)),
        ("install", install(config, config_path)),
        (
            "groups",
            group
                .map(|group| format!("SupplementaryGroups={group}"))
                .unwrap_or_default(),
        ),
        ("directories", directories(config)),
        ("credentials", credentials(config)),
        (
            "protectHome",
            if at_home { "read-only" } else { "yes" }.to_owned(),
        ),
        ("privateUsers", yes("PrivateUsers=yes", alone)),
        ("chown", yes("SystemCallFilter=@chown", group.is_some())),
        ("metrics", config.metrics.listen.to_string()),
        ("network", network(config)),
    ];
    fill(include_str!("claviger.service"), &values)
}

fn socket(config: &Config) -> String {
    let (address, access) = match &config.server.socket {
        SocketAddress::Path(path) => {
            let group = config.server.group.as_deref();
            let group = group
                .map(|group| format!("\nSocketGroup={group}"))
                .unwrap_or_default();
            let mode = config.server.mode;
            let access =
                format!("SocketMode={mode:04o}\nSocketUser={USER}{group}\nDirectoryMode=0755");
            (path.to_string_lossy().replace('%', "%%"), access)
        }
        SocketAddress::Abstract(name) => (format!("@{name}"), String::new()),
    };
    fill(
        include_str!("claviger.socket"),
        &[("socket", address), ("access", access)],
    )
}

/// Every path that the service touches, but for recovery keys, which it has only while in use.
fn paths<'a>(config: &'a Config, config_path: &'a Path) -> impl Iterator<Item = &'a Path> {
    let StorageConfig::File { path: keyring } = &config.storage;
    let socket = match &config.server.socket {
        SocketAddress::Path(path) => Some(path.as_path()),
        SocketAddress::Abstract(_) => None,
    };
    let tls = config
        .metrics
        .tls
        .iter()
        .flat_map(|tls| [&*tls.cert_file, &*tls.key_file]);
    [config_path, keyring.as_path()]
        .into_iter()
        .chain(socket)
        .chain(key_files(config))
        .chain(tls)
}

fn key_files(config: &Config) -> impl Iterator<Item = &Path> {
    config.roots.iter().filter_map(|root| match &root.kind {
        RootKindConfig::KeyFile { path } => Some(path.as_path()),
        RootKindConfig::Credential { .. } | RootKindConfig::Recovery { .. } => None,
    })
}

fn credential_names(config: &Config) -> impl Iterator<Item = &str> {
    config.roots.iter().filter_map(|root| match &root.kind {
        RootKindConfig::Credential { name } => Some(name.as_str()),
        RootKindConfig::KeyFile { .. } | RootKindConfig::Recovery { .. } => None,
    })
}

/// The steps between the user and the service, as comments.
fn install(config: &Config, config_path: &Path) -> String {
    let init = format!("{BINARY} --config {} init", shell(config_path));
    let StorageConfig::File { path: keyring } = &config.storage;
    let folder = shell(keyring.parent().unwrap_or(Path::new("/")));
    let mut steps = vec![format!("install -d -m 0700 -o {USER} -g {USER} {folder}")];
    let mut sealed = false;
    for name in credential_names(config) {
        sealed = true;
        steps.push("install -d -m 0700 /etc/credstore.encrypted".to_owned());
        steps.push(format!(
            "head -c 32 /dev/urandom | systemd-creds encrypt --name={name} \\"
        ));
        steps.push(format!("  - /etc/credstore.encrypted/{name}"));
    }
    if sealed {
        // Only a unit gets credentials, so the keyring is made in one.
        steps.push(format!("systemd-run --pty --wait --uid={USER} \\"));
        for name in credential_names(config) {
            steps.push(format!(
                "  -p LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name} \\"
            ));
        }
        steps.push(format!("  {init}"));
    } else {
        steps.push(init);
    }
    steps.extend(key_files(config).map(|path| format!("chown {USER} {}", shell(path))));
    steps.iter().map(|step| format!("#   {step}\n")).collect()
}

/// systemd makes what lies under /run and /var/lib; the rest is opened where it is.
fn directories(config: &Config) -> String {
    let StorageConfig::File { path: keyring } = &config.storage;
    let mut lines = Vec::new();
    let mut open = Vec::new();
    if let SocketAddress::Path(socket) = &config.server.socket {
        match below("/run", socket) {
            // A group that may use the socket must reach it; its own mode guards it.
            Some(name) => {
                let mode = if config.server.group.is_some() {
                    "0755"
                } else {
                    "0750"
                };
                lines.push(format!("RuntimeDirectory={}", unit(&name)));
                lines.push(format!("RuntimeDirectoryMode={mode}"));
                lines.push("RuntimeDirectoryPreserve=yes".to_owned());
            }
            None => open.extend(socket.parent()),
        }
    }
    match below("/var/lib", keyring) {
        Some(name) => {
            lines.push(format!("StateDirectory={}", unit(&name)));
            lines.push("StateDirectoryMode=0700".to_owned());
        }
        None => open.extend(keyring.parent()),
    }
    lines.extend(
        open.into_iter()
            .map(|path| format!("ReadWritePaths={}", unit(path))),
    );
    lines.join("\n")
}

/// The directory of a file, relative to `base`, unless it is `base` itself or elsewhere.
fn below(base: &str, file: &Path) -> Option<PathBuf> {
    let relative = file.parent()?.strip_prefix(base).ok()?;
    (relative.components().next().is_some()).then(|| relative.to_owned())
}

fn credentials(config: &Config) -> String {
    let line = |name| format!("LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name}\n");
    credential_names(config).map(line).collect()
}

/// Who may be spoken to: only the metrics listen, and on loopback only this host reaches them.
fn network(config: &Config) -> String {
    let listen = config.metrics.listen;
    let mut lines = Vec::new();
    if listen.ip().is_loopback() {
        lines.extend([
            "IPAddressDeny=any".to_owned(),
            "IPAddressAllow=localhost".to_owned(),
        ]);
    }
    // Port 0 is any free one.
    if listen.port() != 0 {
        lines.push("SocketBindDeny=any".to_owned());
        lines.push(format!("SocketBindAllow=tcp:{}", listen.port()));
    }
    lines.join("\n")
}
