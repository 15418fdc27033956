//! `aldis completions`: what a shell needs to complete commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::error::Error;
use super::{Cli, Exit, print};

/// Prints completions for a shell: `aldis completions bash > /etc/bash_completion.d/aldis`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(asked: &Completions) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut Cli::command(), "aldis", &mut script);
    print::text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Good)
}
