//! `claviger rotate`: another primary key, step by step. Every step is a commit, so that Ctrl-C is
//! safe and running it again goes on where it stopped.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use claviger_keystore::error::{Error, StorageError};
use claviger_keystore::key::KeyId;
use claviger_keystore::member::{Member, MemberRecord};
use claviger_keystore::rotation::{Action, Idle, Request};
use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::keyring::{self, Opened, find_key, refused};
use super::member::{self, MemberRow};
use super::output::{Answer, Output, Style};
use super::policy::seconds;
use crate::app;
use crate::config::Config;
use crate::member_lock::MemberLock;

/// Between two looks at the storage while members are waited for.
const LOOK: Duration = Duration::from_millis(200);
const DOING: &str = "rotating the primary key";

/// How far to go.
#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {
    /// Make the new key known to every member, and stop before anybody writes with it
    #[arg(long, group = "what")]
    stage_only: bool,
    /// Write with the key that is staged
    #[arg(long, group = "what")]
    activate: bool,
    /// Give up the key that is staged
    #[arg(long, group = "what")]
    abort: bool,
    /// Rotate away from a key that somebody else may hold, and from what was staged beside it
    #[arg(long, group = "what", value_name = "ID")]
    compromised: Option<String>,
    /// Wait, too, until every apiserver has moved on to the new key
    #[arg(long)]
    wait: bool,
    /// How long to wait for members
    #[arg(long, value_name = "D", default_value = "10m", value_parser = timeout)]
    timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, String> {
    seconds(text).map(Duration::from_secs)
}

/// Runs `rotate`.
pub(super) async fn run(
    config: &Config,
    args: &RotateArgs,
    output: &Output,
) -> Result<Exit, Failure> {
    let opened = keyring::open(config, DOING).await?;
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Fault,
            DOING,
            e,
            "claviger check looks at files and names",
        )
    };
    let header = opened.keyring.header();
    let (from, staged) = (header.primary(), header.staged());
    let request = request(args, &opened)?;
    let rotation = Rotation {
        // Where no plugin acts for this member, we do until we are done.
        lock: MemberLock::take(app::keyring_path(config)).map_err(|e| failed(&e))?,
        opened,
        begun: Instant::now(),
        timeout: args.timeout,
        output,
    };
    let ended = rotation.steps(request).await?;
    let mut rotated = Rotated {
        from,
        staged: None,
        primary: None,
        revision: 0,
        members: Vec::new(),
        next: None,
    };
    let exit = match ended {
        Ended::Primary(id) => rotation.follow(id, args.wait, &mut rotated).await?,
        Ended::Staged(id) => {
            rotated.staged = Some(id);
            rotated.next = Some("claviger rotate --activate makes it primary".to_owned());
            Exit::Done
        }
        Ended::Aborted => {
            rotated.primary = from;
            rotated.next = staged.map(|id| format!("{} is destroyed; nothing used it", id.short()));
            Exit::Done
        }
    };
    rotated.revision = rotation.revision().await;
    output.print(&rotated)?;
    Ok(exit)
}

fn request(args: &RotateArgs, opened: &Opened) -> Result<Request, Failure> {
    let header = opened.keyring.header();
    Ok(match &args.compromised {
        Some(id) => Request::Compromised {
            id: find_key(header, id, DOING)?.id,
            distrusted: header.staged(),
        },
        None if args.stage_only => Request::StageOnly,
        None if args.activate => Request::Activate,
        None if args.abort => Request::Abort,
        None => Request::Rotate {
            from: header.primary(),
        },
    })
}

/// How the steps ended.
enum Ended {
    Primary(KeyId),
    Staged(KeyId),
    Aborted,
}

struct Rotation<'a> {
    opened: Opened,
    lock: Option<MemberLock>,
    begun: Instant,
    timeout: Duration,
    output: &'a Output,
}

impl Rotation<'_> {
    /// Takes one step after the other until the request is met.
    async fn steps(&self, request: Request) -> Result<Ended, Failure> {
        let mut waits = String::new();
        loop {
            match self.step(request).await? {
                Some(Action::Stage) => self.tell("1 stage", "").await,
                Some(Action::Activate(id)) => {
                    self.tell("3 activate", "").await;
                    return Ok(Ended::Primary(id));
                }
                Some(Action::Abort(id)) => {
                    let unused = format!("{} was never used", id.short());
                    self.tell("abort", &unused).await;
                    if request == Request::Abort {
                        return Ok(Ended::Aborted);
                    }
                }
                Some(Action::Wait(awaited)) => {
                    let who: Vec<_> = awaited.iter().map(ToString::to_string).collect();
                    self.wait("2 converge", &who.join("; "), &mut waits).await?;
                }
                Some(Action::Nothing(Idle::NoMember(_))) => {
                    let nobody = "no member has a record yet";
                    self.wait("2 converge", nobody, &mut waits).await?;
                }
                Some(Action::Nothing(idle)) => return ended(idle),
                None => {}
            }
        }
    }

    /// Takes the next step; none where somebody else was first.
    async fn step(&self, request: Request) -> Result<Option<Action>, Failure> {
        let keystore = &self.opened.keystore;
        let now = Timestamp::now();
        keystore.sync(now).await.map_err(|e| refused(DOING, &e))?;
        let ourselves = self.lock.as_ref().map(|_| &self.opened.member);
        match keystore.step(request, ourselves, now).await {
            Ok(action) => Ok(Some(action)),
            Err(Error::Storage(StorageError::Conflict)) => Ok(None),
            Err(e) => Err(refused(DOING, &e)),
        }
    }

    async fn members(&self) -> Result<Vec<Member>, Failure> {
        let members = self.opened.keystore.members().await;
        members.map_err(|e| refused(DOING, &e))
    }

    /// Waits a moment, and says for whom, once.
    async fn wait(&self, step: &str, who: &str, said: &mut String) -> Result<(), Failure> {
        if said != who {
            self.output.note(&format!("{step:<14}waiting: {who}"));
            who.clone_into(said);
        }
        if self.begun.elapsed() >= self.timeout {
            return Err(Failure::new(
                Exit::Partly,
                format!("waiting for the members, step {step}"),
                who,
                "claviger rotate goes on where it stopped; a member that is gone for good: \
                 claviger member remove NAME",
            ));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Waits until every member has published the new primary and, if asked to, until all its
    /// apiservers use it.
    async fn follow(&self, id: KeyId, wait: bool, rotated: &mut Rotated) -> Result<Exit, Failure> {
        rotated.primary = Some(id);
        if self.lock.is_some() {
            rotated.next = Some("claviger serve answers it when it starts".to_owned());
            return Ok(Exit::Done);
        }
        self.until("4 publish", |record| record.published == Some(id))
            .await?;
        if wait {
            let converged = |record: &MemberRecord| {
                record.converged.is_some_and(|converged| converged.id == id)
            };
            self.until("5 apiservers", converged).await?;
        }
        rotated.members = member::rows(&self.opened, DOING, Timestamp::now()).await?;
        rotated.next = rotated.from.filter(|from| *from != id).map(|old| {
            let old = old.short();
            format!("claviger audit counts what {old} still protects, claviger migrate moves it")
        });
        Ok(Exit::Done)
    }

    /// Waits until every member's record says so.
    async fn until(&self, step: &str, so: impl Fn(&MemberRecord) -> bool) -> Result<(), Failure> {
        let mut waits = String::new();
        loop {
            let now = Timestamp::now();
            let members = self.members().await?;
            let lag =
                |member: &&Member| !member.is_removed() && !member.fresh(now).is_some_and(&so);
            let behind: Vec<_> = members
                .iter()
                .filter(lag)
                .map(|member| &member.name)
                .collect();
            if behind.is_empty() {
                self.tell(step, "").await;
                return Ok(());
            }
            let who: Vec<_> = behind.iter().map(ToString::to_string).collect();
            self.wait(step, &who.join(", "), &mut waits).await?;
        }
    }

    /// One line for one step that is done.
    async fn tell(&self, step: &str, detail: &str) {
        let took = self.begun.elapsed().as_secs_f64();
        let revision = self.revision().await;
        let detail = match detail {
            "" => format!("revision {revision}"),
            detail => detail.to_owned(),
        };
        self.output
            .note(&format!("{step:<14}{detail:<40} ok  {took:.1}s"));
    }

    async fn revision(&self) -> u64 {
        let open = self.opened.keystore.acknowledged().await;
        open.map_or(0, |open| open.revision)
    }
}

/// What there is to do where a decision says: nothing.
fn ended(idle: Idle) -> Result<Ended, Failure> {
    let refused =
        |cause: String, next: String| Err(Failure::new(Exit::Refused, DOING, cause, next));
    match idle {
        Idle::Done(id) => Ok(Ended::Primary(id)),
        Idle::AlreadyStaged(id) | Idle::ActivateByHand(id) => Ok(Ended::Staged(id)),
        Idle::NothingStaged => refused(
            "no key is staged".to_owned(),
            "claviger rotate stages one and goes on".to_owned(),
        ),
        Idle::NotPrimary { id, state } => refused(
            match state {
                Some(state) => format!("{id} is {state}: nothing is written under it any more"),
                None => format!("the keyring has no key {id}"),
            },
            format!(
                "claviger migrate --key {} moves what it still protects",
                id.short()
            ),
        ),
        // The timer's, which is not asked here.
        Idle::Off | Idle::NotDue { .. } | Idle::DueTooShortly { .. } | Idle::NoMember(_) => {
            refused(
                "nothing is due".to_owned(),
                "claviger status shows the rotation".to_owned(),
            )
        }
    }
}

/// What a rotation came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Rotated {
    /// The primary key before.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    from: Option<KeyId>,
    /// The key that waits to be activated by hand.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    staged: Option<KeyId>,
    /// The primary key now.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    primary: Option<KeyId>,
    /// The keyring's revision now.
    revision: u64,
    /// Every member, as it told of itself last.
    members: Vec<MemberRow>,
    /// What may be done next.
    next: Option<String>,
}

impl Answer for Rotated {
    const KIND: &'static str = "Rotation";

    fn text(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        match (self.staged, self.primary) {
            (Some(id), _) => writeln!(out, "{} is {}", id.short(), style.warn("staged"))?,
            (None, Some(id)) => writeln!(out, "{} is {}", id.short(), style.good("primary"))?,
            (None, None) => {}
        }
        match &self.next {
            Some(next) => writeln!(out, "Next: {next}"),
            None => Ok(()),
        }
    }
}
