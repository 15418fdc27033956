//! What systemd is told of this process, where it was started by it (`Type=notify-reload`).

#[cfg(unix)]
use sd_notify::NotifyState;

/// It serves, or advances runs.
pub(super) fn ready() {
    #[cfg(unix)]
    tell(&[NotifyState::Ready]);
}

/// It reads its settings again; [`ready`] follows.
pub(super) fn reloading() {
    #[cfg(unix)]
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd is not told of a reload"),
    }
}

/// It was asked to stop, and finishes what is under way.
pub(super) fn stopping() {
    #[cfg(unix)]
    tell(&[NotifyState::Stopping]);
}

/// Nothing hangs on it: where systemd did not start this process, nobody listens.
#[cfg(unix)]
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told how this process stands");
    }
}
