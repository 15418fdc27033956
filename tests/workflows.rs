//! The workflows that come with Aldis: their journals, and their ends through every crash.

#[macro_use]
mod support;

#[path = "workflows/refund.rs"]
mod refund;
