//! Attempts to come in that have failed, by the address they came from: after so many in a minute, none is looked at from
//! there until the minute is over. Of what is remembered there is a bound; where it is reached, the oldest is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// How long failures count, from the first of them.
const SPAN: Duration = Duration::from_secs(60);

/// The most addresses that are remembered.
const ADDRESSES_MAX: usize = 10_000;

/// Who has failed, how often, since when.
#[derive(Debug)]
pub(super) struct Failures {
    max: u32,
    kept: Mutex<HashMap<IpAddr, Failed>>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    times: u32,
    since: Instant,
}

impl Failed {
    fn counts(&self, now: Instant) -> bool {
        now.since(self.since) < SPAN
    }
}

impl Failures {
    /// So many in a minute are looked at from one address.
    pub(super) fn new(max: u32) -> Self {
        Self { max, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<IpAddr, Failed>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long nothing is looked at from there, if there were too many.
    pub(super) fn refused_for(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let kept = self.kept();
        let failed = kept.get(&network(from)).filter(|failed| failed.counts(now) && failed.times >= self.max)?;
        Some((failed.since + SPAN).since(now))
    }

    /// One more from there.
    pub(super) fn add(&self, from: IpAddr, now: Instant) {
        let (mut kept, from) = (self.kept(), network(from));
        if kept.len() >= ADDRESSES_MAX && !kept.contains_key(&from) {
            make_room(&mut kept, now);
        }
        let failed = kept.entry(from).or_insert(Failed { times: 0, since: now });
        if !failed.counts(now) {
            *failed = Failed { times: 0, since: now };
        }
        failed.times = failed.times.saturating_add(1);
    }
}

fn make_room(kept: &mut HashMap<IpAddr, Failed>, now: Instant) {
    kept.retain(|_, failed| failed.counts(now));
    if kept.len() >= ADDRESSES_MAX
        && let Some(oldest) = kept.iter().min_by_key(|(_, failed)| failed.since).map(|(from, _)| *from)
    {
        kept.remove(&oldest);
    }
}

/// Whoever has an IPv6 address has all of its /64.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn too_many_from_one_address_are_refused_until_the_minute_is_over() {
        let failures = Failures::new(3);
        let (here, there, begun) = (address("192.0.2.1"), address("192.0.2.2"), Instant(1_000));
        for n in 0..3 {
            assert_eq!(failures.refused_for(here, begun), None);
            failures.add(here, begun + Duration::from_secs(n));
        }
        let later = begun + Duration::from_secs(20);
        assert_eq!(failures.refused_for(here, later), Some(Duration::from_secs(40)));
        assert_eq!(failures.refused_for(there, later), None);
        assert_eq!(failures.refused_for(here, begun + SPAN), None);
        failures.add(here, begun + SPAN);
        assert_eq!(failures.refused_for(here, begun + SPAN), None, "it begins anew");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_ipv4_is_written_in_two_ways() {
        let failures = Failures::new(1);
        for (failed, refused) in [("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"), ("192.0.2.1", "::ffff:192.0.2.1")] {
            failures.add(address(failed), Instant(0));
            assert!(failures.refused_for(address(refused), Instant(0)).is_some(), "{refused}");
        }
        assert_eq!(failures.refused_for(address("2001:db8:0:2::1"), Instant(0)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten_first() {
        let failures = Failures::new(1);
        let nth = |n: usize| IpAddr::V4(std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap()));
        for n in 0..2 * ADDRESSES_MAX {
            failures.add(nth(n), Instant(i64::try_from(n).unwrap()));
        }
        let now = Instant(i64::try_from(2 * ADDRESSES_MAX).unwrap());
        assert_eq!(failures.kept().len(), ADDRESSES_MAX);
        assert_eq!(failures.refused_for(nth(ADDRESSES_MAX - 1), now), None);
        assert!(failures.refused_for(nth(ADDRESSES_MAX), now).is_some());
        // Once their minute is over, they go all at once.
        failures.add(nth(0), now + SPAN);
        assert_eq!(failures.kept().len(), 1);
    }
}
