//! A new migration file is noticed even if nothing else has changed.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
