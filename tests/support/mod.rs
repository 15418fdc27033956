//! What the tests of the engine share.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::time::Duration;

use aldis::store::Kind;
use aldis::testing::{Error, Setup, TestKit};

/// Makes a test for each database of each case.
macro_rules! each_store {
    ($($(#[$meta:meta])* async fn $name:ident($kind:ident) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn case($kind: ::aldis::store::Kind) -> Result<(), ::aldis::testing::Error> {
                    $body
                    Ok(())
                }

                $(#[$meta])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    $crate::support::passed(case(::aldis::store::Kind::Sqlite).await);
                }

                $(#[$meta])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    $crate::support::passed(case(::aldis::store::Kind::Postgres).await);
                }
            }
        )*
    };
}

/// Compares a text with its picture in `snapshots/journals`.
#[allow(unused_macros, reason = "not every test binary has pictures")]
macro_rules! assert_journal {
    ($name:expr, $text:expr) => {
        let mut settings = ::insta::Settings::clone_current();
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/journals"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let text = $text;
        settings.bind(|| ::insta::assert_snapshot!($name, text));
    };
}

/// Compares a text with what stands beside it: the same on both databases.
#[allow(unused_macros, reason = "not every test binary has such texts")]
macro_rules! says {
    ($text:expr, @$expected:literal) => {
        let text = $text;
        ::insta::allow_duplicates! { ::insta::assert_snapshot!(text, @$expected) }
    };
}

/// Fails with the words of the error, as a person would read them.
pub fn passed(result: Result<(), Error>) {
    if let Err(error) = result {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str("\n  caused by: ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        panic!("{text}");
    }
}

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn kit(kind: Kind) -> Setup {
    TestKit::on(kind)
}

pub fn id(text: &str) -> aldis::id::RunId {
    aldis::id::RunId::parse(text).expect("a usable id")
}

pub fn code(error: &aldis::Error) -> &'static str {
    error.code()
}
