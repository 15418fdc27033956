//! The program `aldis`: a command line over the public face. One file per command.
//!
//! [`main`] takes the workflows of whoever calls it, so a user's own program has the same command line. Parses, calls,
//! prints; decides nothing about runs. What it prints for people may change; what `--json` prints, the exit codes and the
//! error codes are kept: scripts rely on them.
//!
//! SIGKILL at any time loses nothing: what the program has told of is in the store.

mod bench;
mod error;
mod progress;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::error::Error;
use crate::runtime::Aldis;
use crate::workflow::Workflow;

/// A durable runtime for AI agents that wait: every step journaled, in SQLite or Postgres, with replay.
#[derive(Debug, Parser)]
#[command(name = "aldis", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Where everything is kept: sqlite://path or postgres://user@host/database [default: sqlite://aldis.db]
    #[arg(long, global = true, env = "ALDIS_STORE", hide_env_values = true, value_name = "URL")]
    store: Option<String>,
    /// Prints for machines: one JSON object a line, errors too
    #[arg(long, global = true)]
    json: bool,
    /// Logs in JSON
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures what a store can do, and the engine on it
    Bench(bench::Bench),
    /// The second process of `bench await`
    #[command(hide = true)]
    BenchResume(bench::Resume),
}

/// How a command ended. The numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Good,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Good => Self::from(0),
        }
    }
}

/// The exit code for what was refused: wrong usage, or an error.
const REFUSED: u8 = 2;

/// What a command has in hand.
struct Desk {
    common: Common,
    #[expect(dead_code, reason = "the commands on runs follow")]
    workflows: Vec<Workflow>,
}

impl Desk {
    #[expect(dead_code, reason = "the commands on runs follow")]
    fn store(&self) -> &str {
        self.common.store.as_deref().unwrap_or("sqlite://aldis.db")
    }

    #[expect(dead_code, reason = "the commands on runs follow")]
    fn aldis(&self) -> Aldis {
        Aldis::open(self.store()).workflows(self.workflows.clone())
    }
}

/// Runs the command line with these workflows: `fn main() -> ExitCode { aldis::cli::main([my_workflow()]) }`.
pub fn main(workflows: impl IntoIterator<Item = Workflow>) -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(refused) => return usage(&refused, &args),
    };
    log(cli.common.log_json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return Error::Io { what: "the threads could not be started".into(), source }.told(false),
    };
    let json = cli.common.json;
    let desk = Desk { common: cli.common, workflows: workflows.into_iter().collect() };
    match runtime.block_on(run(&desk, cli.command)) {
        Ok(exit) => exit.into(),
        Err(error) => error.told(json),
    }
}

async fn run(desk: &Desk, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Bench(bench) => bench::run(desk, bench).await,
        Command::BenchResume(resume) => bench::resume(desk, resume).await,
    }
}

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&Cli::command().try_get_matches_from(args)?)
}

/// Help and version go to standard output; what cannot be understood goes where errors go.
fn usage(refused: &clap::Error, args: &[OsString]) -> ExitCode {
    let asked = matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked && args.iter().any(|arg| arg == "--json") {
        return Error::Usage(refused.to_string().trim_end().to_owned()).told(true);
    }
    // Nobody is left to be told if that fails.
    let _ = refused.print();
    if asked { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

fn log(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .with_env_var("ALDIS_LOG")
        .from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A program that has set up its own log keeps it.
    let _ = if json { log.json().try_init() } else { log.try_init() };
}
