//! How far long work is, on standard error; nothing where that is no terminal.

use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that changes its task as the work goes on.
#[derive(Clone)]
pub(super) struct Bar(Arc<Mutex<ProgressBar>>);

impl Bar {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(ProgressBar::new(0).with_style(style()))))
    }

    /// Shows that `done` of `total` is done of `what`.
    pub(super) fn show(&self, what: &str, done: u64, total: u64) {
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bar.message() != what {
            bar.finish_and_clear();
            *bar = ProgressBar::new(total).with_style(style()).with_message(what.to_owned());
        }
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Removes it from the terminal.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg:>22} {wide_bar} {human_pos} of {human_len}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
