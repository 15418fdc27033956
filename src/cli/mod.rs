//! The program `aldis`: a command line over the public face. One file per command.
//!
//! [`main`] takes the workflows of whoever calls it, so a user's own program has the same command line. Parses, calls,
//! prints; decides nothing about runs. What it prints for people may change; what `--json` prints, the exit codes and the
//! error codes are kept: scripts rely on them.
//!
//! SIGKILL at any time loses nothing: what the program has told of is in the store.

#[cfg(feature = "server")]
mod access;
mod approvals;
mod approve;
mod bench;
mod cancel;
mod completions;
mod config;
#[cfg(feature = "server")]
mod connections;
mod doctor;
mod engine;
mod error;
mod export;
mod import;
mod journal;
mod keys;
mod migrate;
mod notify;
mod print;
mod progress;
mod reload;
mod remote;
mod replay;
mod run;
mod runs;
mod send;
#[cfg(feature = "server")]
mod serve;
mod show;
mod signal;
mod stop;
mod thread;
mod wait;
mod work;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::error::Error;
use crate::agent::Agent;
use crate::agent::model::{Models, Tape};
use crate::config::{self as settings, Base, Config, Environment, People};
use crate::intake;
use crate::message;
use crate::runtime::{Aldis, Client};
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
    /// Settings, models and agents [default: aldis.toml in the working directory, if it is there]
    #[arg(long, global = true, env = "ALDIS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept: sqlite://path or postgres://user@host/database [default: sqlite://aldis.db]
    #[arg(long, global = true, env = "ALDIS_STORE", hide_env_values = true, value_name = "URL")]
    store: Option<String>,
    /// Asks this server instead of a store: http://HOST:PORT; the key comes from the variable ALDIS_KEY
    #[arg(long, global = true, env = "ALDIS_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Prints for machines: one JSON object a line, errors too
    #[arg(long, global = true)]
    json: bool,
    /// Logs in JSON; how much is logged, ALDIS_LOG says (warn if it says nothing)
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a run, and waits for its outcome
    Run(run::Run),
    /// Waits for the outcome of a run that was started before
    Wait(wait::Wait),
    /// Lists runs, newest first
    Runs(runs::Runs),
    /// Says how a run stands, and why it is not moving
    Show(show::Show),
    /// Prints a run's journal
    Journal(journal::Journal),
    /// Runs the code against a run's journal, without effects
    Replay(replay::Replay),
    /// Sends a signal to a run
    Signal(signal::Signal),
    /// Sends a message to a thread, and shows the answer
    Send(send::Send),
    /// Lets a tool call run that waits for approval, or declines it
    Approve(approve::Approve),
    /// Says what calls of tools came to that run elsewhere
    Answer(approve::Answers),
    /// Lists the runs that wait for somebody, and the calls they wait with
    Approvals(approvals::Approvals),
    /// Ends the run that answers a thread
    Abort(approve::Abort),
    /// Takes back messages that no run has taken
    Unsend(approve::Unsend),
    /// Lists threads, the one that was changed last first
    Threads(thread::Threads),
    /// Prints a thread's history, as people read it or as the model does
    Thread(thread::Thread),
    /// Asks a run to cancel
    Cancel(cancel::Cancel),
    /// Serves agents and threads over HTTP, and advances their runs, until it is stopped
    #[cfg(feature = "server")]
    Serve(serve::Serve),
    /// Makes, lists and revokes the keys by which programs prove over HTTP who they are
    Keys(keys::Keys),
    /// Advances runs until it is stopped
    Work(work::Work),
    /// Brings the store's schema up to date
    Migrate,
    /// Checks the settings, and lists what can be set
    Config(config::Config),
    /// Looks for what is wrong with a store and its runs, or with a server
    Doctor,
    /// Measures what a store can do, and the engine on it
    Bench(bench::Bench),
    /// Writes a run as text, to be read or replayed elsewhere
    Export(export::Export),
    /// Brings in what `export` wrote
    Import(import::Import),
    /// Prints completions for a shell
    Completions(completions::Completions),
    /// The second process of `bench await`
    #[command(hide = true)]
    BenchResume(bench::Resume),
}

/// How a command ended. The numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// It was done; a run completed.
    Good,
    /// A run failed, a replay diverged, the doctor has found something.
    Bad,
    /// A run is blocked, or was cancelled.
    Stopped,
    /// A person or the system asked this process to stop before the run had ended.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::Bad => 1,
            Exit::Stopped => 3,
            Exit::Interrupted => 130,
        })
    }
}

/// The exit code for what was refused: wrong usage, or an error.
const REFUSED: u8 = 2;

/// A command line with one's own workflows.
#[derive(Debug)]
#[must_use = "nothing happens before it is run"]
pub struct Program {
    workflows: Vec<Workflow>,
    base: Base,
    build: Option<String>,
}

impl Program {
    /// With these workflows.
    pub fn new(workflows: impl IntoIterator<Item = Workflow>) -> Self {
        let workflows: Vec<Workflow> = workflows.into_iter().collect();
        let definitions = workflows.iter().cloned().map(Into::into).collect();
        Self { workflows, base: Base { workflows: definitions, ..Base::default() }, build: None }
    }

    /// And with this agent.
    pub fn agent(mut self, agent: Agent) -> Self {
        self.base.agents.push(agent);
        self
    }

    /// And with this agent as long as neither the program nor its settings declare another.
    pub fn otherwise(mut self, agent: Agent) -> Self {
        self.base.otherwise.push(agent);
        self
    }

    /// The models that agents may ask, beside those of the settings; the offline model alone if nothing is said.
    pub fn models(mut self, models: Models) -> Self {
        self.base.models = models;
        self
    }

    /// Names what the workflows were built from, where the file of the program does not tell: runs that another build
    /// could not go on with are tried again.
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.build = Some(build.into());
        self
    }

    /// Runs the command line of this process.
    pub fn main(self) -> ExitCode {
        let args: Vec<OsString> = std::env::args_os().collect();
        let cli = match parse(&args) {
            Ok(cli) => cli,
            Err(refused) => return usage(&refused, &args),
        };
        log(cli.common.log_json);
        let json = cli.common.json;
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(source) => return Error::Io { what: "the threads could not be started".into(), source }.told(json),
        };
        let build = self.build.clone().unwrap_or_else(build_of_this_file);
        let Self { workflows, base, .. } = self;
        let environment = Environment::of_process();
        let config = match &cli.command {
            // It tells by itself what is wrong.
            Command::Config(_) | Command::Completions(_) => Ok(Config::default()),
            _ => read(cli.common.config.as_deref(), &environment),
        };
        let config = match config {
            Ok(config) => config,
            Err(problems) => return Error::from(problems).told(json),
        };
        let desk = Desk { common: cli.common, config, environment, workflows, base, build };
        match runtime.block_on(run(&desk, cli.command)) {
            Ok(exit) => exit.into(),
            Err(error) => error.told(json),
        }
    }
}

/// Runs the command line with these workflows: `fn main() -> ExitCode { aldis::cli::main([my_workflow()]) }`.
pub fn main(workflows: impl IntoIterator<Item = Workflow>) -> ExitCode {
    Program::new(workflows).main()
}

/// What a command has in hand.
#[derive(Clone)]
struct Desk {
    common: Common,
    config: Config,
    environment: Environment,
    workflows: Vec<Workflow>,
    base: Base,
    build: String,
}

/// The settings of a file that is named, or of the default one if it is there, and of the environment.
fn read(file: Option<&std::path::Path>, environment: &Environment) -> Result<Config, settings::Problems> {
    file.map_or_else(|| Config::find(environment), |file| Config::read(file, environment))
}

impl Desk {
    fn store(&self) -> &str {
        self.common.store.as_deref().unwrap_or(&self.config.settings.store)
    }

    fn json(&self) -> bool {
        self.common.json
    }

    /// The agents and models of the program and of the settings.
    fn people(&self) -> Result<People, Error> {
        Ok(self.config.people(&self.base, &self.environment, None)?)
    }

    /// With all that the settings say, agents and their secrets included.
    fn aldis(&self) -> Result<Aldis, Error> {
        Ok(self.aldis_with(&self.people()?))
    }

    fn aldis_with(&self, people: &People) -> Aldis {
        let settings::Settings { work, retention, .. } = &self.config.settings;
        self.bare()
            .agents(people.agents.clone())
            .models(people.models.clone())
            .store_options(|options| options.writers = work.writers)
            .engine_options(|options| {
                options.lease = work.lease.0;
                options.poll = work.poll.0;
                options.in_flight_max = work.in_flight_max;
                options.live_max = work.live_max;
                options.chunks_kept_for = retention.chunks_kept_for.0;
                options.chunks_kept = retention.chunks_kept;
            })
    }

    /// With agents by their names only: for commands that leave the work to others, and so need no secret of a provider.
    fn bare(&self) -> Aldis {
        let declared = self.config.settings.agents.keys().map(Agent::new);
        let own =
            if self.base.agents.is_empty() && declared.len() == 0 { &self.base.otherwise } else { &self.base.agents };
        Aldis::open(self.store())
            .workflows(self.workflows.clone())
            .agents(own.iter().cloned().chain(declared))
            .limits(self.limits())
            .build(self.build())
    }

    /// What runs are advanced by: this program with these settings. Runs that were blocked by another are tried again.
    fn build(&self) -> String {
        self.config.digest().map_or_else(|| self.build.clone(), |digest| format!("{}+{digest}", self.build))
    }

    fn limits(&self) -> intake::Limits {
        let limits = &self.config.settings.limits;
        intake::Limits {
            payload_bytes_max: limits.payload_bytes_max,
            pending_max: limits.pending_max,
            follow_ups_max: limits.follow_ups_max,
            signals: message::Limits {
                contents_bytes_max: limits.contents_bytes_max,
                attributes_max: limits.attributes_max,
                attribute_bytes_max: limits.attribute_bytes_max,
                metadata_bytes_max: limits.metadata_bytes_max,
            },
        }
    }

    /// The same, with its models on a tape.
    fn recorded(&self, tape: Tape) -> Self {
        let secrets = std::env::vars().filter(|(name, value)| is_secret(name) && value.len() >= SECRET_BYTES_MIN);
        let tape = secrets.fold(tape, |tape, (name, value)| tape.hiding(value, format!("[{name}]")));
        let base = Base { models: self.base.models.clone().recorded(tape), ..self.base.clone() };
        Self { base, ..self.clone() }
    }

    /// For commands that want a store that is there: looking must not make one.
    async fn client(&self) -> Result<Client, Error> {
        Ok(self.bare().store_options(|options| options.migrate = false).connect().await?)
    }
}

/// Shorter values of variables are no secrets.
const SECRET_BYTES_MIN: usize = 8;

/// Whether a variable of the environment holds a secret, by its name.
fn is_secret(name: &str) -> bool {
    ["KEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|end| name.to_ascii_uppercase().ends_with(end))
}

async fn run(desk: &Desk, command: Command) -> Result<Exit, Error> {
    if let Some(server) = &desk.common.server
        && let Some(exit) = remote::run(desk, server, &command).await?
    {
        return Ok(exit);
    }
    match command {
        Command::Run(asked) => run::run(desk, asked).await,
        Command::Wait(asked) => wait::run(desk, asked).await,
        Command::Runs(asked) => runs::run(desk, asked).await,
        Command::Show(asked) => show::run(desk, asked).await,
        Command::Journal(asked) => journal::run(desk, asked).await,
        Command::Replay(asked) => replay::run(desk, asked).await,
        Command::Signal(asked) => signal::run(desk, asked).await,
        Command::Send(asked) => send::run(desk, asked).await,
        Command::Approve(asked) => approve::run(desk, asked).await,
        Command::Answer(asked) => approve::answer(desk, asked).await,
        Command::Approvals(asked) => approvals::run(desk, asked).await,
        Command::Abort(asked) => approve::abort(desk, asked).await,
        Command::Unsend(asked) => approve::unsend(desk, asked).await,
        Command::Threads(asked) => thread::list(desk, asked).await,
        Command::Thread(asked) => thread::run(desk, asked).await,
        Command::Cancel(asked) => cancel::run(desk, asked).await,
        #[cfg(feature = "server")]
        Command::Serve(asked) => serve::run(desk, asked).await,
        Command::Keys(asked) => keys::run(desk, asked).await,
        Command::Work(asked) => work::run(desk, asked).await,
        Command::Migrate => migrate::run(desk).await,
        Command::Config(asked) => config::run(desk, &asked),
        Command::Doctor => doctor::run(desk).await,
        Command::Bench(asked) => bench::run(desk, asked).await,
        Command::Export(asked) => export::run(desk, asked).await,
        Command::Import(asked) => import::run(desk, asked).await,
        Command::Completions(asked) => completions::run(&asked),
        Command::BenchResume(asked) => bench::resume(desk, asked).await,
    }
}

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&Cli::command().try_get_matches_from(args)?)
}

/// Help and version go to standard output; what cannot be understood goes where errors go.
fn usage(refused: &clap::Error, args: &[OsString]) -> ExitCode {
    let asked = matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked && args.iter().any(|arg| arg == "--json") {
        return Error::Usage(in_one_line(refused)).told(true);
    }
    // Nobody is left to be told if that fails.
    let _ = refused.print();
    if asked { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

/// What is wrong and what may help, without the usage.
fn in_one_line(refused: &clap::Error) -> String {
    let text = refused.to_string();
    let said = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> = said.filter(|line| !line.is_empty()).collect();
    said.join("; ").trim_start_matches("error: ").to_owned()
}

fn log(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .with_env_var("ALDIS_LOG")
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A program that has set up its own log keeps it.
    let _ = if json { log.json().try_init() } else { log.try_init() };
}

/// Another file is another build: its code may go on with what the last one could not.
fn build_of_this_file() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let file = std::env::current_exe().and_then(std::fs::metadata);
    let made = file.and_then(|file| Ok((file.len(), file.modified()?)));
    match made.map(|(size, at)| (size, at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())) {
        Ok((size, at)) => format!("{version}+{:x}.{:x}", at.as_millis(), size),
        Err(_) => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_arguments_get_in_each_others_way() {
        Cli::command().debug_assert();
        let names: Vec<_> = Cli::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
        for name in names {
            // Arguments of all commands and of this one meet only once a command is parsed.
            let refused = parse(&["aldis".into(), name.clone().into(), "--no-such".into()]).map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::UnknownArgument, "{name}");
        }
    }

    /// The flags and the variables of the settings are those of the commands, and the reverse.
    #[test]
    fn a_flag_and_a_variable_of_a_setting_are_those_of_the_commands() {
        // A file may say where a secret is in a form of its own: `serve.jwt.secret`.
        let not_settings = ["ALDIS_CONFIG", "ALDIS_STORE", "ALDIS_SERVER", "ALDIS_JWT_SECRET_FILE"];
        let mut command = Cli::command();
        command.build();
        let of_commands = ["serve", "work"].map(|name| command.find_subcommand(name).expect(name));
        let mut here: Vec<(String, String)> = of_commands
            .iter()
            .flat_map(|command| command.get_arguments())
            .filter_map(|it| Some((format!("--{}", it.get_long()?), it.get_env()?.to_string_lossy().into_owned())))
            .filter(|(_, variable)| !not_settings.contains(&variable.as_str()))
            .collect();
        let documented = settings::keys().iter().filter_map(|key| Some((key.flag.clone()?, key.variable.clone()?)));
        let documented = documented.filter(|(_, variable)| variable != "ALDIS_STORE");
        let mut documented: Vec<(String, String)> = documented.collect();
        here.sort();
        here.dedup();
        documented.sort();
        assert_eq!(here, documented);
    }

    #[test]
    fn a_mistyped_command_is_told_in_one_line() {
        let refused = parse(&["aldis".into(), "shwo".into()]).map(drop).unwrap_err();
        insta::assert_snapshot!(in_one_line(&refused), @"unrecognized subcommand 'shwo'; tip: a similar subcommand exists: 'show'");
    }
}
