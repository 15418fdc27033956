//! What the cases share: signals with plain defaults, and pictures in `snapshots/messages`.

use aldis::clock::Instant;
use aldis::message::{Attributes, Category, Contents, NewSignal, ThreadSignal};

/// 2026-01-02T03:04:05Z.
pub const NOW: Instant = Instant(1_767_323_045_000);

pub fn accepted(signal: NewSignal) -> ThreadSignal {
    signal.accept("s1", NOW, &Attributes::new())
}

pub fn signal(category: Category, contents: impl Into<Contents>) -> ThreadSignal {
    accepted(NewSignal::new(category, contents))
}

/// Compares with the picture of this name.
pub fn picture(name: &str, value: &impl serde::Serialize) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/messages"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_json_snapshot!(name, value));
}
