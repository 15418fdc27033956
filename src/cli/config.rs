//! `aldis config`: what is set, what is wrong with it, and what can be set.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::config::{self, DEFAULT_FILE, Key, Line, Place, Problem};

/// Checks the settings, and lists what can be set.
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum What {
    /// Says what is set and where, secrets as `set`, and what is wrong; exit code 1 if something is
    Check,
    /// Lists every key, its default, and the flag and the variable that go before it
    Keys,
}

pub(super) fn run(desk: &Desk, asked: &Config) -> Result<Exit, Error> {
    match asked.what {
        What::Check => check(desk),
        What::Keys => keys(desk),
    }
}

fn check(desk: &Desk) -> Result<Exit, Error> {
    let read = super::read(desk.common.config.as_deref(), &desk.environment);
    let problems = match read {
        Ok(config) => {
            for line in config.lines() {
                set(desk, &line)?;
            }
            config.people(&desk.base, &desk.environment, None).err()
        }
        Err(problems) => Some(problems),
    };
    let problems = problems.map(|problems| problems.0).unwrap_or_default();
    for problem in &problems {
        wrong(desk, problem)?;
    }
    if !desk.json() {
        let file = desk.common.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let there = if file.exists() { "" } else { " (there is none: defaults and variables)" };
        match problems.len() {
            0 => print::line(&format!("{}{there}: nothing is wrong", file.display()))?,
            1 => print::line(&format!("{}{there}: 1 thing is wrong", file.display()))?,
            more => print::line(&format!("{}{there}: {more} things are wrong", file.display()))?,
        }
    }
    Ok(if problems.is_empty() { Exit::Good } else { Exit::Bad })
}

fn set(desk: &Desk, line: &Line) -> Result<(), Error> {
    let Line { key, value, place } = line;
    if desk.json() {
        return print::json(&json!({ "key": key, "value": value, "from": place.to_string() }));
    }
    print::line(&format!("{key} = {value}  ({place})"))
}

fn wrong(desk: &Desk, problem: &Problem) -> Result<(), Error> {
    if !desk.json() {
        return print::line(&format!("wrong: {problem}"));
    }
    let what = &problem.what;
    match &problem.place {
        Place::File { path, line, column } => {
            print::json(&json!({ "problem": what, "file": path, "line": line, "column": column }))
        }
        Place::Variable(name) => print::json(&json!({ "problem": what, "variable": name })),
        Place::Unknown => print::json(&json!({ "problem": what })),
    }
}

fn keys(desk: &Desk) -> Result<Exit, Error> {
    if !desk.json() {
        print::line(config::table().trim_end())?;
        return Ok(Exit::Good);
    }
    for Key { path, form, default, flag, variable, meaning } in config::keys() {
        let key = path.join(".");
        print::json(&json!({
            "key": key, "form": form, "default": default, "flag": flag, "variable": variable, "meaning": meaning
        }))?;
    }
    Ok(Exit::Good)
}
