//! What is wrong with a configuration.

use std::fmt;

use super::place::Place;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to write instead. It holds no secret.
    pub what: String,
}

/// All that is wrong; at least one thing. Nothing of the configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

impl Problems {
    /// An error, if there is something wrong.
    pub(super) fn or<T>(mut problems: Vec<Problem>, good: T) -> Result<T, Self> {
        if problems.is_empty() {
            return Ok(good);
        }
        problems.sort();
        problems.dedup();
        Err(Self(problems))
    }
}
