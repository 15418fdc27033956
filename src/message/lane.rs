//! The tracking of a lane: what its current state signal is, and how clients read that (T14.3 to T14.7).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::Instant;
use crate::message::state::{Mode, StateMark};

/// How a lane of a thread stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lane {
    /// The lane.
    pub id: String,
    /// The producer's name for what was accepted last.
    pub current_cache_key: String,
    /// Whether that was the whole truth or a change.
    pub current_mode: Mode,
    /// How many states there have been.
    pub version: u64,
    /// The signal that was accepted last.
    pub last_signal_id: String,
    /// The last one that was the whole truth; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot_signal_id: Option<String>,
    /// When the last one was accepted.
    #[serde(with = "crate::message::iso")]
    pub updated_at: Instant,
    /// The lane's signals that the model could see when the last one was accepted, and that one.
    pub active_copies: Vec<LaneCopy>,
}

/// A state signal, as the tracking of its lane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneCopy {
    /// The signal.
    pub id: String,
    /// The producer's name for its content.
    pub cache_key: String,
    /// Whole truth or change.
    pub mode: Mode,
    /// Its version.
    pub version: u64,
}

impl LaneCopy {
    /// A signal in its lane.
    #[must_use]
    pub fn of(signal: impl Into<String>, mark: &StateMark) -> Self {
        Self { id: signal.into(), cache_key: mark.cache_key.clone(), mode: mark.mode, version: mark.version }
    }
}

impl Lane {
    /// Whether a lane says this already (T14.4). Only what is current counts: A, B, A is three states.
    #[must_use]
    pub fn says(&self, cache_key: &str, mode: Mode) -> bool {
        self.current_cache_key == cache_key && self.current_mode == mode
    }

    /// The version of what comes after this; 1 for the first (T14.5).
    #[must_use]
    pub fn next_version(lane: Option<&Self>) -> u64 {
        lane.map_or(0, |lane| lane.version) + 1
    }

    /// How a lane stands once a signal was accepted. `window`: its signals that the model can see; an outside producer
    /// knows of none (T14.7).
    #[must_use]
    pub fn after(before: Option<&Self>, lane: &str, copy: LaneCopy, window: &[LaneCopy], at: Instant) -> Self {
        let snapshot = match copy.mode {
            Mode::Snapshot => Some(copy.id.clone()),
            Mode::Delta => before.and_then(|before| before.last_snapshot_signal_id.clone()),
        };
        let mut copies: Vec<LaneCopy> = window.iter().filter(|other| other.id != copy.id).cloned().collect();
        copies.push(copy.clone());
        Self {
            id: lane.to_owned(),
            current_cache_key: copy.cache_key,
            current_mode: copy.mode,
            version: copy.version,
            last_signal_id: copy.id,
            last_snapshot_signal_id: snapshot,
            updated_at: at,
            active_copies: copies,
        }
    }

    /// A thread's metadata as clients read it: its own, with the tracking of its lanes in it (T14.7).
    #[must_use]
    pub fn project(metadata: &Value, lanes: &[Self]) -> Value {
        if lanes.is_empty() {
            return metadata.clone();
        }
        let mut projected = metadata.as_object().cloned().unwrap_or_default();
        let tracked: Map<String, Value> = lanes
            .iter()
            .map(|lane| {
                let mut tracked = json!(lane);
                if let Value::Object(fields) = &mut tracked {
                    fields.shift_remove("id");
                }
                (lane.id.clone(), tracked)
            })
            .collect();
        let own = projected.entry("mastra").or_insert_with(|| json!({}));
        if !own.is_object() {
            *own = json!({});
        }
        own["stateSignals"] = Value::Object(tracked);
        Value::Object(projected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(id: &str, cache_key: &str, mode: Mode, version: u64) -> LaneCopy {
        LaneCopy { id: id.into(), cache_key: cache_key.into(), mode, version }
    }

    // T14.7
    #[test]
    fn a_threads_metadata_shows_its_lanes() {
        let first = copy("s4", "k1", Mode::Snapshot, 1);
        let lane = Lane::after(None, "browser", first.clone(), &[], Instant(0));
        let lane = Lane::after(Some(&lane), "browser", copy("s9", "k2", Mode::Delta, 2), &[first], Instant(0));
        let shown = Lane::project(&json!({ "colour": "red", "mastra": { "other": 1 } }), &[lane]);
        assert_eq!(
            shown,
            json!({
                "colour": "red",
                "mastra": { "other": 1, "stateSignals": { "browser": {
                    "currentCacheKey": "k2", "currentMode": "delta", "version": 2,
                    "lastSignalId": "s9", "lastSnapshotSignalId": "s4", "updatedAt": "1970-01-01T00:00:00.000Z",
                    "activeCopies": [
                        { "id": "s4", "cacheKey": "k1", "mode": "snapshot", "version": 1 },
                        { "id": "s9", "cacheKey": "k2", "mode": "delta", "version": 2 },
                    ],
                } } },
            })
        );
        assert_eq!(Lane::project(&Value::Null, &[]), Value::Null);
    }

    // T14.4
    #[test]
    fn only_what_is_current_counts() {
        let lane = Lane::after(None, "l", copy("s1", "a", Mode::Snapshot, 1), &[], Instant(0));
        assert!(lane.says("a", Mode::Snapshot));
        assert!(!lane.says("a", Mode::Delta));
        let lane = Lane::after(Some(&lane), "l", copy("s2", "b", Mode::Snapshot, 2), &[], Instant(0));
        assert!(!lane.says("a", Mode::Snapshot));
    }
}
