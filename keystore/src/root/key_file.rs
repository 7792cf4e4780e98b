//! A key file: 32 random bytes on other media than etcd's backups, or handed over by systemd as a
//! credential.
//!
//! ```text
//! payload = nonce, 24 ‖ XAES-256-GCM under D(the file's bytes, "claviger/v1/root/key-file") ‖ tag, 16
//! AAD     = S of the slot
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::{Binding, Payload, Root, Wrapped};
use crate::error::{Error, RootError};
use crate::header::SlotKind;
use crate::secret::{SECRET_LEN, Secret, random_bytes, with_clean_stack};
use crate::xaes::{NONCE_LEN, TAG_LEN, Xaes256Gcm};

/// The directory in which systemd puts a service's credentials (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a key file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFileConfig {
    /// A file: 32 bytes, mode 0400 or 0600, owned by root or by the user of the process.
    Path(PathBuf),
    /// A systemd credential of this name: 32 bytes.
    Credential(String),
}

/// A root whose key is 32 bytes in a file.
#[derive(Debug, Clone)]
pub struct KeyFile {
    name: String,
    config: KeyFileConfig,
}

impl KeyFile {
    /// A root of this name; the file is read when it is needed.
    pub fn new(name: impl Into<String>, config: KeyFileConfig) -> Self {
        Self {
            name: name.into(),
            config,
        }
    }

    /// Makes a key file of 32 random bytes, mode 0400, where none exists.
    ///
    /// # Errors
    /// [`Error::Storage`] where it exists already or cannot be made.
    pub fn create(path: &Path) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        random_bytes(&mut *bytes)?;
        Ok(crate::durable::create(path, &*bytes, Mode::RUSR)?)
    }

    /// The file's path; a credential lies where systemd says.
    fn path(&self) -> Result<PathBuf, RootError> {
        match &self.config {
            KeyFileConfig::Path(path) => Ok(path.clone()),
            KeyFileConfig::Credential(name) => {
                credential_path(name, std::env::var_os(CREDENTIALS_DIRECTORY))
            }
        }
    }

    async fn key(&self) -> Result<FileKey, RootError> {
        let (path, credential) = (self.path()?, self.is_credential());
        // A disk that hangs must not stop requests.
        tokio::task::spawn_blocking(move || read_key(&path, credential))
            .await
            .map_err(|e| RootError::Outage(e.to_string()))?
    }

    fn is_credential(&self) -> bool {
        matches!(self.config, KeyFileConfig::Credential(_))
    }
}

#[async_trait]
impl Root for KeyFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SlotKind {
        SlotKind::KeyFile
    }

    async fn wrap(&self, binding: &Binding, payload: &Payload) -> Result<Wrapped, RootError> {
        self.key().await?.wrap(binding, payload)
    }

    async fn unwrap(&self, binding: &Binding, wrapped: &Wrapped) -> Result<Payload, RootError> {
        self.key().await?.unwrap(binding, wrapped)
    }

    async fn check(&self) -> Result<(), RootError> {
        self.key().await.map(drop)
    }
}

/// The key that a file's (or a recovery key's) 32 bytes give.
pub(crate) struct FileKey(Secret);

impl FileKey {
    pub(crate) fn new(bytes: &Secret) -> Result<Self, Error> {
        bytes.derive("claviger/v1/root/key-file").map(Self)
    }

    pub(crate) fn wrap(&self, binding: &Binding, payload: &Payload) -> Result<Wrapped, RootError> {
        let unusable = |_| RootError::Outage(Error::Random.to_string());
        let mut nonce = [0; NONCE_LEN];
        random_bytes(&mut nonce).map_err(unusable)?;
        let mut wrapped = Zeroizing::new(Vec::with_capacity(NONCE_LEN + 64 + TAG_LEN));
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(payload.as_bytes());
        let buffer = &mut wrapped[NONCE_LEN..];
        let tag = with_clean_stack(|| self.cipher().seal(&nonce, binding.as_bytes(), buffer))
            .map_err(|_| RootError::Unusable("the payload is too long".to_owned()))?;
        wrapped.extend_from_slice(&tag);
        Ok(Wrapped {
            payload: std::mem::take(&mut *wrapped),
            kdf: None,
        })
    }

    pub(crate) fn unwrap(
        &self,
        binding: &Binding,
        wrapped: &Wrapped,
    ) -> Result<Payload, RootError> {
        let not_mine = || {
            RootError::NotMine(
                "its key does not open the slot: another key file, or a changed slot".to_owned(),
            )
        };
        let (nonce, rest) = wrapped.payload.split_first_chunk().ok_or_else(not_mine)?;
        let (sealed, tag) = rest.split_last_chunk().ok_or_else(not_mine)?;
        let mut payload = Zeroizing::new(sealed.to_vec());
        with_clean_stack(|| {
            self.cipher()
                .open(nonce, binding.as_bytes(), &mut payload, tag)
        })
        .map_err(|_| not_mine())?;
        Payload::from_bytes(payload)
    }
}

impl FileKey {
    /// Made anew for each use, so that its key schedule stays nowhere.
    fn cipher(&self) -> Xaes256Gcm {
        Xaes256Gcm::new(&self.0)
    }
}

fn credential_path(name: &str, directory: Option<OsString>) -> Result<PathBuf, RootError> {
    let unusable = |cause: &str| Err(RootError::Unusable(cause.to_owned()));
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return unusable("a credential's name is one file name, without a slash");
    }
    match directory {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => unusable(
            "$CREDENTIALS_DIRECTORY is not set; start Claviger as a systemd unit with LoadCredential=",
        ),
    }
}

/// Reads the 32 bytes straight into locked memory, after every check on the open file itself.
fn read_key(path: &Path, credential: bool) -> Result<FileKey, RootError> {
    let unusable = |cause: String| RootError::Unusable(format!("{}: {cause}", path.display()));
    let outage = |e: std::io::Error| RootError::Outage(format!("{}: {e}", path.display()));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::LOOP) => {
            return Err(unusable(
                "it is a symbolic link; name the file itself".to_owned(),
            ));
        }
        Err(e) => return Err(outage(e.into())),
    };
    let metadata = file.metadata().map_err(outage)?;
    check_file(&metadata, credential).map_err(unusable)?;
    let secret = Secret::fill_with(|bytes| -> Result<(), Error> {
        file.read_exact(bytes).map_err(|source| {
            crate::error::StorageError::Io {
                doing: "reading",
                path: path.to_owned(),
                source,
            }
            .into()
        })
    });
    let secret = secret.map_err(|e| RootError::Outage(e.to_string()))?;
    FileKey::new(&secret).map_err(|e| RootError::Outage(e.to_string()))
}

/// What a file that holds a key must be like.
fn check_file(metadata: &std::fs::Metadata, credential: bool) -> Result<(), String> {
    let ours = rustix::process::geteuid().as_raw();
    // systemd gives a credential to the service's user by an ACL, whose mask shows as group bits.
    let forbidden = if credential { 0o037 } else { 0o077 };
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.mode() & forbidden != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(format!(
            "its mode is {mode:04o}, so others may read it; run chmod 0400 on it"
        ));
    }
    if ![0, ours].contains(&metadata.uid()) {
        return Err(format!(
            "it belongs to uid {}; give it to root or to the user that runs Claviger (uid {ours})",
            metadata.uid()
        ));
    }
    if metadata.nlink() != 1 {
        return Err("it has other names (hard links); remove them or copy it afresh".to_owned());
    }
    if metadata.len() != SECRET_LEN as u64 {
        return Err(format!(
            "it has {} bytes; a key file has {SECRET_LEN}",
            metadata.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn key_file(dir: &Path) -> PathBuf {
        let path = dir.join("root.key");
        KeyFile::create(&path).unwrap();
        path
    }

    fn refusal(path: &Path) -> String {
        match read_key(path, false) {
            Ok(_) => panic!("{} was accepted", path.display()),
            Err(e) => e.to_string(),
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path());
        let root = |name: &str| KeyFile::new(name, KeyFileConfig::Path(path.clone()));
        let other_dir = tempfile::tempdir().unwrap();
        let other = KeyFile::new("local", KeyFileConfig::Path(key_file(other_dir.path())));
        crate::testing::root_contract(&root("local"), &other).await;
    }

    #[test]
    fn a_key_file_is_made_once_and_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);
        let before = std::fs::read(&path).unwrap();
        assert!(KeyFile::create(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn unsafe_files_are_refused_with_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path());
        let chmod =
            |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        for mode in [0o440, 0o404, 0o644, 0o420] {
            chmod(mode);
            assert!(refusal(&path).contains("chmod 0400"), "{mode:o}");
        }
        chmod(0o600);
        assert!(read_key(&path, false).is_ok());
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(refusal(&link).contains("symbolic link"));
        std::fs::hard_link(&path, dir.path().join("second")).unwrap();
        assert!(refusal(&path).contains("hard links"));
        assert!(refusal(dir.path()).contains("not a regular file"));
        assert!(refusal(&dir.path().join("none")).contains("No such file"));
        let short = dir.path().join("short");
        std::fs::write(&short, [0; 31]).unwrap();
        std::fs::set_permissions(&short, PermissionsExt::from_mode(0o400)).unwrap();
        assert!(refusal(&short).contains("31 bytes"));
    }

    #[test]
    fn credentials_lie_where_systemd_says() {
        let there = credential_path("root-key", Some("/run/credentials/x".into())).unwrap();
        assert_eq!(there, Path::new("/run/credentials/x/root-key"));
        assert!(credential_path("root-key", None).is_err());
        for name in ["", "../etc/passwd", ".", "a/b"] {
            assert!(
                credential_path(name, Some("/run".into())).is_err(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_credential_may_carry_an_acl_for_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o440)).unwrap();
        assert!(read_key(&path, true).is_ok());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
        assert!(read_key(&path, true).is_err());
    }
}
