//! The socket load driver: Claviger, a tonic server that does nothing and the tiny Go plugin, under
//! the same loads in the same run, as ratios, and held against what is required of Claviger.
//!
//! ```console
//! $ tests/components/install go-plugin
//! $ cargo bench --bench socket                      # five rounds, four minutes
//! $ cargo bench --bench socket -- --quick           # one minute, to see that it works
//! $ cargo bench --bench socket -- --decrypt --rounds 9 --load 1x1 --load 16x1
//! $ cargo bench --bench socket -- --also ../before/target/release/claviger
//! ```
//!
//! Within a round every load is applied to each server in short slices that take turns in random
//! order, so whatever else the machine does meets all of them, and so does the scheduler's mood: a
//! lone caller is answered in half the time while both ends happen to share a processor. Ratios are
//! taken within a round, and everything that is printed is the median of the rounds. It ends with
//! exit code 0 whatever it measured, and with 1 if it could not measure.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is its purpose"
)]

mod contender;
mod driver;
mod host;
mod nothing;
mod report;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::runtime::Runtime;

use contender::{Contender, Kind, Server};
use driver::{Load, Prepared, Slice, Timing};
use report::Measured;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// After so many calls the resident memory is read.
const CALLS: f64 = 1e6;
/// A server that is not well after this time will never be.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Compares Claviger with a tonic server that does nothing and with the tiny Go plugin.
#[derive(Parser)]
struct Args {
    /// Short rounds, few starts, less than a million calls: only shows that it works
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; requirements want at least five
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// CALLERSxCONNECTIONS; may be repeated
    #[arg(long = "load", default_values = ["1x1", "4x1", "16x1", "64x1", "4x4", "16x4", "64x4"])]
    loads: Vec<Load>,
    /// Drive Decrypt instead of Encrypt
    #[arg(long)]
    decrypt: bool,
    /// The claviger to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_claviger"))]
    claviger: PathBuf,
    /// Another claviger to compare with; may be repeated
    #[arg(long, value_name = "PROGRAM")]
    also: Vec<PathBuf>,
    /// Be the server that does nothing
    #[arg(long, value_name = "SOCKET", hide = true)]
    serve_nothing: Option<PathBuf>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn slices(&self) -> usize {
        if self.quick { 4 } else { 10 }
    }

    fn slice(&self) -> Timing {
        Timing {
            warm_up: Duration::from_millis(20),
            length: Duration::from_millis(if self.quick { 50 } else { 100 }),
        }
    }

    fn starts(&self) -> usize {
        if self.quick { 5 } else { 40 }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.serve_nothing {
        Some(socket) => nothing::serve(socket),
        None if cfg!(debug_assertions) => {
            println!("Nothing is measured without optimisation: cargo bench --bench socket");
            return ExitCode::SUCCESS;
        }
        None => measure(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("measuring failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let contenders = contenders(args, folder.path())?;
    // The driver has one thread, as each server has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut measured = Vec::new();
    for (program, contender) in &contenders {
        measured.push(Measured {
            kind: contender.kind,
            name: contender.name.clone(),
            samples: Vec::new(),
            starts: Vec::new(),
            calls: 0.0,
            resident_kib: 0,
            program_len: program.metadata()?.len(),
        });
    }
    let contenders: Vec<Contender> = contenders
        .into_iter()
        .map(|(_, contender)| contender)
        .collect();
    let load_before = host::load()?;
    measure_starts(&runtime, args, &contenders, &mut measured)?;
    measure_loads(&runtime, args, &contenders, &mut measured)?;

    println!("{}", report::loads(&measured, &args.loads)?);
    println!("{}", report::processes(&measured)?);
    println!("{}", report::verdicts(&measured)?);
    println!("{}", report::others(&measured));
    println!(
        "Load of the machine: {load_before} before, {} after.",
        host::load()?
    );
    if args.quick {
        println!("This was --quick: too short for the requirements.");
    }
    Ok(())
}

fn contenders(args: &Args, folder: &Path) -> Result<Vec<(PathBuf, Contender)>> {
    let mut programs = vec![
        (Kind::Claviger, "claviger".to_owned(), args.claviger.clone()),
        (
            Kind::Nothing,
            "nothing".to_owned(),
            std::env::current_exe()?,
        ),
        (Kind::Go, "go".to_owned(), go_plugin()?),
    ];
    let also = args.also.iter().zip(1..);
    programs.extend(also.map(|(path, i)| (Kind::Claviger, format!("claviger-{i}"), path.clone())));
    let contender = |(kind, name, program): (Kind, String, PathBuf)| {
        let contender = Contender::new(kind, &name, &program, folder.join(&name))?;
        Ok((program, contender))
    };
    programs.into_iter().map(contender).collect()
}

fn go_plugin() -> Result<PathBuf> {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/components/install");
    let found = Command::new(install)
        .args(["--where", "go-plugin"])
        .output()?;
    if !found.status.success() {
        return Err(String::from_utf8(found.stderr)?.into());
    }
    Ok(PathBuf::from(String::from_utf8(found.stdout)?.trim_end()))
}

fn measure_starts(
    runtime: &Runtime,
    args: &Args,
    contenders: &[Contender],
    measured: &mut [Measured],
) -> Result<()> {
    eprintln!("starting each server {} times", args.starts());
    for _ in 0..args.starts() {
        for i in shuffled(0..contenders.len()) {
            let (server, took) = start(runtime, &contenders[i])?;
            measured[i].starts.push(took);
            server.stop()?;
        }
    }
    Ok(())
}

/// Starts a server, and waits for its first good Status.
fn start(runtime: &Runtime, contender: &Contender) -> Result<(Server, Duration)> {
    let socket = contender.socket();
    // What a process before it left there must not be taken for it.
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let began = Instant::now();
    let mut server = contender.start()?;
    let mut not_yet = || {
        server.still_runs()?;
        if began.elapsed() > STARTS_WITHIN {
            return Err(format!("{} is not well after {STARTS_WITHIN:?}", contender.name).into());
        }
        std::thread::sleep(Duration::from_micros(50));
        Result::Ok(())
    };
    let took = runtime.block_on(async {
        let mut connection = loop {
            match driver::connect(&socket).await {
                Ok(connection) => break connection,
                Err(_nobody_listens) => not_yet()?,
            }
        };
        while !driver::is_well(&mut connection).await? {
            not_yet()?;
        }
        Result::Ok(began.elapsed())
    })?;
    Ok((server, took))
}

fn measure_loads(
    runtime: &Runtime,
    args: &Args,
    contenders: &[Contender],
    measured: &mut [Measured],
) -> Result<()> {
    let (mut servers, mut requests) = (Vec::new(), Vec::new());
    for contender in contenders {
        let (server, _) = start(runtime, contender)?;
        servers.push(server);
        requests.push(match args.decrypt {
            false => Prepared::encrypt()?,
            true => runtime.block_on(Prepared::decrypt(&contender.socket()))?,
        });
    }
    let apply = |i: usize, load: Load, timing: &Timing| {
        let (socket, pid) = (contenders[i].socket(), servers[i].pid());
        driver::run(runtime, &socket, &requests[i], load, timing, pid)
            .map_err(|failure| format!("{} under {load}: {failure}", contenders[i].name))
    };
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        for load in shuffled(args.loads.iter().copied()) {
            let mut slices: Vec<Option<Slice>> = contenders.iter().map(|_| None).collect();
            for _ in 0..args.slices() {
                for i in shuffled(0..contenders.len()) {
                    let slice = apply(i, load, &args.slice())?;
                    match &mut slices[i] {
                        Some(slices) => slices.add(&slice)?,
                        none => *none = Some(slice),
                    }
                }
            }
            for (measured, slice) in measured.iter_mut().zip(slices.iter().flatten()) {
                measured.calls += slice.calls();
                measured.samples.push((load, slice.sample()?));
            }
        }
    }
    for i in 0..contenders.len() {
        // The rest of the calls after which memory is read; these are not timed.
        let long = Timing {
            warm_up: Duration::ZERO,
            length: Duration::from_secs(2),
        };
        while measured[i].calls < CALLS && !args.quick {
            let load = Load {
                callers: 16,
                connections: 1,
            };
            measured[i].calls += apply(i, load, &long)?.calls();
        }
        measured[i].resident_kib = host::resident_kib(servers[i].pid())?;
    }
    servers.into_iter().try_for_each(Server::stop)
}

/// In random order.
fn shuffled<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<(u64, T)> = items
        .map(|item| (RandomState::new().build_hasher().finish(), item))
        .collect();
    items.sort_by_key(|(place, _)| *place);
    items.into_iter().map(|(_, item)| item).collect()
}
