//! The agents of a program over time: they may be renewed while it runs, and what has begun goes on with what it began with.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::Agents;
use crate::clock::Instant;

/// How many renewals are remembered for turns from before them.
pub const RENEWALS_KEPT: usize = 8;

/// The agents of a program, as they are now and as they were. Clones are the same roster.
///
/// A turn goes by the agents as they were when it began, as often as it is replayed in this process. The last
/// [`RENEWALS_KEPT`] renewals are remembered; a turn from before them goes by the oldest that is. A turn from before this
/// process goes on as it does after a deploy: by the agents as they are when its code is run again.
#[derive(Clone)]
pub struct Roster {
    begun: Instant,
    known: Arc<RwLock<Vec<(Instant, Agents)>>>,
}

impl Roster {
    /// These agents, in a process that begins now.
    #[must_use]
    pub fn new(agents: Agents, now: Instant) -> Self {
        Self { begun: now, known: Arc::new(RwLock::new(vec![(now, agents)])) }
    }

    /// The agents for a turn that began at this time.
    #[must_use]
    pub fn as_of(&self, at: Instant) -> Agents {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let here = known.iter().rev().find(|(since, _)| *since <= at).or(known.first());
        let found = if at < self.begun { known.last() } else { here };
        found.map(|(_, agents)| agents.clone()).unwrap_or_default()
    }

    /// The agents as they are now.
    #[must_use]
    pub fn now(&self) -> Agents {
        self.as_of(Instant(i64::MAX))
    }

    /// From now on these agents and models are asked. An agent that is not among them any more stays as it was: turns may
    /// begin on it until this process ends. Gives the names of those.
    ///
    /// What began in the millisecond that is `now` keeps to what was.
    pub(crate) fn renew(&self, agents: &Agents, now: Instant) -> Vec<String> {
        let before = self.now();
        let gone: Vec<String> = before.agents.keys().filter(|name| agents.get(name).is_none()).cloned().collect();
        let mut all = (*agents.agents).clone();
        all.extend(gone.iter().filter_map(|name| Some((name.clone(), Arc::clone(before.get(name)?)))));
        let renewed = Agents { agents: Arc::new(all), models: Arc::clone(&agents.models), ..before };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.push((Instant(now.0.saturating_add(1)), renewed));
        if known.len() > RENEWALS_KEPT {
            known.remove(0);
        }
        gone
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roster").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Agent;
    use crate::agent::model::Models;

    fn agents(instructions: &str, names: &[&str]) -> Agents {
        Agents::new(names.iter().map(|name| Agent::new(*name).instructions(instructions)), Models::new())
    }

    fn told(roster: &Roster, at: i64, name: &str) -> String {
        roster.as_of(Instant(at)).get(name).expect(name).instructions.clone()
    }

    #[test]
    fn what_began_before_goes_by_what_was() {
        let roster = Roster::new(agents("one", &["a"]), Instant(0));
        assert_eq!(roster.renew(&agents("two", &["a", "b"]), Instant(100)), Vec::<String>::new());
        assert_eq!(
            (told(&roster, 99, "a"), told(&roster, 100, "a"), told(&roster, 101, "a")),
            ("one".into(), "one".into(), "two".into())
        );
        assert!(roster.as_of(Instant(100)).get("b").is_none() && roster.now().get("b").is_some());
    }

    #[test]
    fn what_began_before_the_process_goes_by_what_is_now() {
        let roster = Roster::new(agents("one", &["a"]), Instant(50));
        assert_eq!(told(&roster, 10, "a"), "one");
        roster.renew(&agents("two", &["a"]), Instant(100));
        assert_eq!((told(&roster, 10, "a"), told(&roster, 50, "a")), ("two".into(), "one".into()));
    }

    #[test]
    fn an_agent_that_is_gone_stays_and_is_named() {
        let roster = Roster::new(agents("one", &["a", "b"]), Instant(0));
        assert_eq!(roster.renew(&agents("two", &["b"]), Instant(100)), ["a"]);
        assert_eq!((told(&roster, 200, "a"), told(&roster, 200, "b")), ("one".into(), "two".into()));
    }

    #[test]
    fn the_oldest_renewal_that_is_kept_stands_for_those_before() {
        let roster = Roster::new(agents("0", &["a"]), Instant(0));
        for number in 1..=RENEWALS_KEPT {
            roster.renew(&agents(&number.to_string(), &["a"]), Instant(i64::try_from(number).expect("few") * 100));
        }
        assert_eq!((told(&roster, 0, "a"), told(&roster, 250, "a")), ("1".into(), "2".into()));
    }
}
