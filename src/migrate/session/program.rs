//! Credential programs: what a cloud's command line prints is who we are, for a while.
//!
//! Source: `client.authentication.k8s.io/v1`, as `plugin/pkg/client/auth/exec` of
//! `k8s.io/client-go` carries it out. What a program prints on stdout is never repeated; its stderr
//! is ours, since it may tell a person what to do.

use std::io;
use std::process::Stdio;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::process::Command;

use super::SessionError;
use super::tls::Identity;

/// The variable in which a program is told what is wanted.
const INFO: &str = "KUBERNETES_EXEC_INFO";

/// A program, and how it is run.
pub(crate) struct Program {
    /// A path, or a name to be looked for in `$PATH`.
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    /// What is added to our own environment.
    pub(crate) env: Vec<(String, String)>,
    /// The version of `client.authentication.k8s.io` that it must answer in.
    pub(crate) api_version: String,
    /// What a person is told where there is no such program.
    pub(crate) install_hint: Option<String>,
    /// An ExecCredential in JSON that says what is wanted.
    pub(crate) info: String,
}

/// What a program printed: a token, a certificate with its key, or both.
pub(super) struct Credential {
    pub(super) token: Option<String>,
    pub(super) identity: Option<Identity>,
    /// When the program has to be run again.
    pub(super) expires: Option<Timestamp>,
}

impl Program {
    /// Runs it, and reads what it prints. It ends when nobody waits for it any more.
    pub(super) async fn run(&self) -> Result<Credential, SessionError> {
        let failed = |why: &str| {
            let command = self.command.escape_debug();
            let why = format!("the kubeconfig's credential program `{command}` {why}");
            SessionError(why)
        };
        let child = Command::new(&self.command)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(INFO, &self.info)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| failed(&self.not_started(&error)))?;
        let output = child.wait_with_output().await;
        let output = output.map_err(|error| failed(&format!("was lost: {error}")))?;
        if !output.status.success() {
            return Err(failed(&format!("failed ({})", output.status)));
        }
        read(&output.stdout, &self.api_version).map_err(failed)
    }

    fn not_started(&self, error: &io::Error) -> String {
        match &self.install_hint {
            Some(hint) if error.kind() == io::ErrorKind::NotFound => {
                let hint = hint.split_whitespace().collect::<Vec<_>>().join(" ");
                format!("was not found: {}", hint.replace(char::is_control, ""))
            }
            _ => format!("does not start: {error}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    api_version: String,
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Timestamp>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

fn read(printed: &[u8], api_version: &str) -> Result<Credential, &'static str> {
    let printed: Printed =
        serde_json::from_slice(printed).map_err(|_| "printed no ExecCredential in JSON")?;
    if printed.kind != "ExecCredential" {
        return Err("printed JSON that is no ExecCredential");
    }
    if printed.api_version != api_version {
        return Err("printed another apiVersion than the kubeconfig says");
    }
    let status = printed.status.ok_or("printed no status")?;
    let full = |text: Option<String>| text.filter(|text| !text.is_empty());
    let token = full(status.token);
    let certificate = full(status.client_certificate_data);
    let identity = match (certificate, full(status.client_key_data)) {
        (Some(certificate), Some(key)) => Some(Identity {
            certificate: certificate.into_bytes(),
            key: key.into_bytes(),
        }),
        (None, None) => None,
        _ => return Err("printed a certificate or a key, and not both"),
    };
    if token.is_none() && identity.is_none() {
        return Err("printed neither a token nor a certificate");
    }
    Ok(Credential {
        token,
        identity,
        expires: status.expiration_timestamp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn answer(status: &str) -> String {
        format!(r#"{{"apiVersion":"{V1}","kind":"ExecCredential","status":{status}}}"#)
    }

    #[test]
    fn what_a_program_printed_is_read() {
        let printed = answer(
            r#"{"token":"t","clientCertificateData":"c","clientKeyData":"k","unknown":1,
                "expirationTimestamp":"2026-01-02T03:04:05Z"}"#,
        );
        let credential = read(printed.as_bytes(), V1).ok().unwrap();
        assert_eq!(credential.token.as_deref(), Some("t"));
        let identity = credential.identity.unwrap();
        assert_eq!(
            (&*identity.certificate, &*identity.key),
            (&b"c"[..], &b"k"[..])
        );
        let expires = credential.expires.unwrap().to_string();
        assert_eq!(expires, "2026-01-02T03:04:05Z");
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        for (printed, why) in [
            ("token-17", "printed no ExecCredential in JSON"),
            (
                &answer(r#"{"token":17}"#),
                "printed no ExecCredential in JSON",
            ),
            (&answer("{}"), "printed neither a token nor a certificate"),
            (
                &answer(r#"{"token":""}"#),
                "printed neither a token nor a certificate",
            ),
            (&answer("null"), "printed no status"),
            (
                &answer(r#"{"clientKeyData":"17"}"#),
                "printed a certificate or a key, and not both",
            ),
            (
                &answer("{}").replace("io/v1", "io/v1beta1"),
                "printed another apiVersion than the kubeconfig says",
            ),
            (
                &answer("{}").replace("ExecC", "C"),
                "printed JSON that is no ExecCredential",
            ),
        ] {
            assert_eq!(read(printed.as_bytes(), V1).err(), Some(why), "{printed}");
        }
    }
}
