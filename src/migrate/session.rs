//! Who we are to one kube-apiserver, and the connections on which we say so.
//!
//! Ours, and made of what gRPC and the metrics listener bring anyway: kube-client reads kubeconfigs
//! by way of JSONPath, a parser generator and regular expressions, more than a megabyte of program
//! that would lie in a plugin's memory for the two calls of `migrate`.
//!
//! Tokens and certificates expire while a run lasts hours. What a credential program or a token's
//! file gave is asked for again when its time is over, and once when kube-apiserver answers 401.

mod connector;
pub(crate) mod program;
pub(crate) mod tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;

use connector::Http;
use program::Program;
use tls::{Identity, Trust};

/// How old what stood in a token's file may become: as with kubectl, since kubelets exchange tokens
/// that are bound to Pods well before they expire.
const TOKEN_FILE: Duration = Duration::from_secs(60);

/// Why there is nobody that we could be, or no way to the server. It repeats no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SessionError(pub(crate) String);

/// How we prove who we are, beside or instead of a certificate.
pub(crate) enum Login {
    /// Not at all.
    None,
    /// By the same header always.
    Header(HeaderValue),
    /// By what stands in a file, and by a token as long as it cannot be read.
    TokenFile(PathBuf, Option<String>),
    /// By what a program says.
    Program(Program),
}

/// All that a session is opened with.
pub(crate) struct Settings {
    /// The server's URL, without a slash at its end.
    pub(crate) server: String,
    /// Whom we expect there, and by which name; `None` without TLS.
    pub(crate) trust: Option<(Trust, ServerName<'static>)>,
    /// The certificate that we show.
    pub(crate) identity: Option<Identity>,
    pub(crate) login: Login,
    /// What every request says besides: as whom we act.
    pub(crate) headers: HeaderMap,
}

/// Who we are, renewed as it expires.
pub(crate) struct Session {
    settings: Settings,
    state: Mutex<State>,
}

/// What one call is made with.
pub(super) struct Pass {
    pub(super) http: Http,
    pub(super) authorization: Option<HeaderValue>,
    /// How often it was renewed.
    generation: u64,
}

struct State {
    http: Http,
    known_as: KnownAs,
    /// When we found out.
    asked: Instant,
    generation: u64,
}

/// What a login brought.
struct KnownAs {
    authorization: Option<HeaderValue>,
    identity: Option<Identity>,
    expires: Option<Timestamp>,
}

impl Session {
    /// Finds out who we are. Nothing is connected yet, but a credential program has run.
    pub(crate) async fn open(settings: Settings) -> Result<Self, SessionError> {
        let known_as = settings.log_in().await?;
        let state = Mutex::new(State {
            http: settings.client(known_as.identity.as_ref())?,
            known_as,
            asked: Instant::now(),
            generation: 0,
        });
        Ok(Self { settings, state })
    }

    /// The server's URL.
    pub(super) fn server(&self) -> &str {
        &self.settings.server
    }

    /// What every request says besides.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.settings.headers
    }

    /// When the certificate that we show now expires.
    pub(super) async fn expires(&self) -> Option<Timestamp> {
        let state = self.state.lock().await;
        state.known_as.identity.as_ref()?.expires()
    }

    /// What a call is made with now.
    pub(super) async fn pass(&self, now: Timestamp) -> Result<Pass, SessionError> {
        let mut state = self.state.lock().await;
        let is_over = match self.settings.login {
            Login::None | Login::Header(_) => false,
            Login::TokenFile(..) => state.asked.elapsed() >= TOKEN_FILE,
            Login::Program(_) => state.known_as.expires.is_some_and(|end| end <= now),
        };
        if is_over {
            self.renew(&mut state).await?;
        }
        Ok(state.pass())
    }

    /// What a call may be made with once more after kube-apiserver refused this pass; `None` where
    /// nothing newer is to be had. Of many that were refused at once, the first renews it for all.
    pub(super) async fn after_refusal(&self, refused: &Pass) -> Result<Option<Pass>, SessionError> {
        let mut state = self.state.lock().await;
        if state.generation == refused.generation {
            match self.settings.login {
                Login::None | Login::Header(_) => return Ok(None),
                Login::TokenFile(..) | Login::Program(_) => self.renew(&mut state).await?,
            }
        }
        let is_newer = state.generation != refused.generation;
        Ok(is_newer.then(|| state.pass()))
    }

    async fn renew(&self, state: &mut State) -> Result<(), SessionError> {
        let fresh = match (self.settings.log_in().await, &self.settings.login) {
            (Ok(fresh), _) => fresh,
            // The last token that could be read may still be good.
            (Err(_), Login::TokenFile(..)) => {
                state.asked = Instant::now();
                return Ok(());
            }
            (Err(error), _) => return Err(error),
        };
        if fresh.identity != state.known_as.identity {
            // Connections stay what they were opened as.
            state.http = self.settings.client(fresh.identity.as_ref())?;
        }
        state.known_as = fresh;
        state.asked = Instant::now();
        state.generation += 1;
        Ok(())
    }
}

impl State {
    fn pass(&self) -> Pass {
        Pass {
            http: self.http.clone(),
            authorization: self.known_as.authorization.clone(),
            generation: self.generation,
        }
    }
}

impl Settings {
    async fn log_in(&self) -> Result<KnownAs, SessionError> {
        let mut known_as = KnownAs {
            authorization: None,
            identity: self.identity.clone(),
            expires: None,
        };
        match &self.login {
            Login::None => {}
            Login::Header(header) => known_as.authorization = Some(header.clone()),
            Login::TokenFile(path, instead) => {
                known_as.authorization = Some(read_token(path, instead.as_deref())?);
            }
            Login::Program(program) => {
                let credential = program.run().await?;
                let token = credential.token.as_deref();
                known_as.authorization = token.map(bearer).transpose()?;
                known_as.identity = credential.identity;
                known_as.expires = credential.expires;
            }
        }
        Ok(known_as)
    }

    fn client(&self, identity: Option<&Identity>) -> Result<Http, SessionError> {
        let tls = match &self.trust {
            None => None,
            Some((trust, name)) => Some((trust.config(identity)?, name.clone())),
        };
        Ok(connector::client(tls))
    }
}

fn read_token(path: &Path, instead: Option<&str>) -> Result<HeaderValue, SessionError> {
    let failed = |why: &dyn std::fmt::Display| {
        let path = path.display();
        SessionError(format!("the kubeconfig's tokenFile {path}: {why}"))
    };
    match (fs::read_to_string(path), instead) {
        (Ok(text), _) if !text.trim().is_empty() => bearer(text.trim()),
        (_, Some(token)) => bearer(token),
        (Ok(_), None) => Err(failed(&"it is empty")),
        (Err(error), None) => Err(failed(&error)),
    }
}

/// The header of a token.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, SessionError> {
    secret(&format!("Bearer {token}"), "token")
}

/// The header of a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> Result<HeaderValue, SessionError> {
    let pair = BASE64.encode(format!("{username}:{password}").as_bytes());
    secret(&format!("Basic {pair}"), "password")
}

fn secret(header: &str, what: &str) -> Result<HeaderValue, SessionError> {
    let value = HeaderValue::from_str(header);
    let mut value = value.map_err(|_| {
        SessionError(format!(
            "the kubeconfig's {what} has characters that no HTTP header may have"
        ))
    })?;
    // So that nothing prints it.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
