//! The static pod.

use std::path::{Path, PathBuf};

use super::template::{fill, shell, yaml};
use crate::cli::failure::{Exit, Failure};
use crate::config::{Config, RootKindConfig, SocketAddress, StorageConfig};

/// What the configuration does not say about a pod.
#[derive(Debug, clap::Args)]
pub(super) struct StaticPodArgs {
    /// The image.
    #[arg(long, default_value = concat!("claviger:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The user and group that the pod runs as, and that own its files on the node.
    #[arg(long, default_value_t = 65_532)]
    uid: u32,
}

/// A directory of the node that the pod sees under the same path.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    name: String,
    path: PathBuf,
    writable: bool,
}

pub(super) fn print(
    config: &Config,
    config_path: &Path,
    args: &StaticPodArgs,
) -> Result<String, Failure> {
    let group = supplementary_group(config)?;
    let mounts = mounts(config, config_path)?;
    let values = [
        ("install", install(config, config_path, args, &mounts)),
        ("mount", apiserver_mount(config)),
        ("uid", args.uid.to_string()),
        ("gid", args.uid.to_string()),
        (
            "groups",
            group
                .map(|gid| format!("supplementalGroups: [{gid}]"))
                .unwrap_or_default(),
        ),
        ("image", yaml(&args.image)),
        ("config", yaml(&config_path.to_string_lossy())),
        ("mounts", mounts.iter().map(volume_mount).collect()),
        ("volumes", mounts.iter().map(volume).collect()),
    ];
    Ok(fill(include_str!("static-pod.yaml"), &values))
}

/// The directories that the pod needs, each once.
fn mounts(config: &Config, config_path: &Path) -> Result<Vec<Mount>, Failure> {
    let mut mounts = Vec::new();
    add(&mut mounts, "config", config_path, false);
    if let SocketAddress::Path(socket) = &config.server.socket {
        add(&mut mounts, "socket", socket, true);
    }
    let StorageConfig::File { path: keyring } = &config.storage;
    add(&mut mounts, "keyring", keyring, true);
    for root in &config.roots {
        match &root.kind {
            RootKindConfig::KeyFile { path } => add(&mut mounts, "root", path, false),
            RootKindConfig::Credential { .. } => {
                return Err(Failure::new(
                    Exit::Usage,
                    "writing a static pod",
                    format!(
                        "root {} is a systemd credential, and a pod gets none",
                        root.name
                    ),
                    "use keyFile: {path: …} for that root, or claviger print systemd",
                ));
            }
            // It is there only while it is used, and by the command line.
            RootKindConfig::Recovery { .. } => {}
        }
    }
    if let Some(tls) = &config.metrics.tls {
        add(&mut mounts, "certificate", &tls.cert_file, false);
        add(&mut mounts, "certificate-key", &tls.key_file, false);
    }
    Ok(mounts)
}

/// Adds the directory of `file`; one that is there keeps its name. Roots may lie in several, so that
/// a name may need a number.
fn add(mounts: &mut Vec<Mount>, name: &str, file: &Path, writable: bool) {
    let path = file.parent().unwrap_or(Path::new("/")).to_owned();
    if let Some(mount) = mounts.iter_mut().find(|mount| mount.path == path) {
        mount.writable |= writable;
        return;
    }
    let namesakes = mounts
        .iter()
        .filter(|mount| mount.name.starts_with(name))
        .count();
    let name = if namesakes == 0 {
        name.to_owned()
    } else {
        format!("{name}-{}", namesakes + 1)
    };
    mounts.push(Mount {
        name,
        path,
        writable,
    });
}

/// A container does not know the names of the host's groups.
fn supplementary_group(config: &Config) -> Result<Option<u32>, Failure> {
    let Some(group) = config.server.group.as_deref() else {
        return Ok(None);
    };
    group.parse().map(Some).map_err(|_| {
        Failure::new(
            Exit::Usage,
            "writing a static pod",
            format!("server.group is the name {group}, which a container cannot look up"),
            format!("write its number into server.group: getent group {group}"),
        )
    })
}

/// What must be there before the pod starts, as comments.
fn install(config: &Config, config_path: &Path, args: &StaticPodArgs, mounts: &[Mount]) -> String {
    let uid = args.uid;
    let mut steps = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.writable) {
        let path = shell(&mount.path);
        // What lies under /run is gone after a restart of the node.
        if mount.path.starts_with("/run") {
            steps.push(format!(
                "echo 'd {path} 0750 {uid} {uid}' >/etc/tmpfiles.d/claviger.conf"
            ));
            steps.push("systemd-tmpfiles --create claviger.conf".to_owned());
        } else {
            steps.push(format!("install -d -m 0700 -o {uid} -g {uid} {path}"));
        }
    }
    steps.push(format!("claviger --config {} init", shell(config_path)));
    for root in &config.roots {
        if let RootKindConfig::KeyFile { path } = &root.kind {
            steps.push(format!("chown {uid} {}", shell(path)));
        }
    }
    steps.iter().map(|step| format!("#   {step}\n")).collect()
}

/// What kube-apiserver's own manifest needs, as comments.
fn apiserver_mount(config: &Config) -> String {
    let SocketAddress::Path(socket) = &config.server.socket else {
        return String::new();
    };
    let path = yaml(&socket.parent().unwrap_or(Path::new("/")).to_string_lossy());
    format!(
        "# In kube-apiserver's own manifest, mount the socket's directory and not the\n\
         # socket, or a socket that was replaced would stay unseen:\n\
         #   volumeMounts:\n\
         #   - {{name: claviger, mountPath: {path}, readOnly: true}}\n\
         #   volumes:\n\
         #   - {{name: claviger, hostPath: {{path: {path}, type: Directory}}}}\n"
    )
}

fn volume_mount(mount: &Mount) -> String {
    let read_only = if mount.writable {
        ""
    } else {
        "\n  readOnly: true"
    };
    let path = yaml(&mount.path.to_string_lossy());
    format!("- name: {}\n  mountPath: {path}{read_only}\n", mount.name)
}

fn volume(mount: &Mount) -> String {
    let path = yaml(&mount.path.to_string_lossy());
    format!(
        "- name: {}\n  hostPath:\n    path: {path}\n    type: Directory\n",
        mount.name
    )
}
