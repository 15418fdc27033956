//! A step is renamed while runs are open: replay says so, the run is blocked and not failed, and it completes when the
//! old name is back.
//!
//! ```text
//! cargo run --example renamed_step -- run invoice --id inv-7 --input examples/invoice.json
//! # Ctrl-C while it waits
//! cargo run --example renamed_step -- signal inv-7 approved true
//! RENAMED=1 cargo run --example renamed_step -- replay inv-7        # exit code 1, with the remedy
//! RENAMED=1 cargo run --example renamed_step -- wait inv-7          # exit code 3: blocked, not failed
//! cargo run --example renamed_step -- wait inv-7                    # exit code 0: the old name is back
//! ```

use std::process::ExitCode;

use aldis::cli::Program;
use aldis::{Context, Failure, Signal, Step, Workflow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What runs that are open have in their journals.
const FETCH: Step<String, u64> = Step::new("fetch_invoice");
/// What somebody thought was a better name.
const LOAD: Step<String, u64> = Step::new("load_invoice");

const APPROVED: Signal<bool> = Signal::new("approved");

#[derive(Serialize, Deserialize, JsonSchema)]
struct Invoice {
    number: String,
}

async fn invoice(cx: Context, invoice: Invoice, renamed: bool) -> Result<String, Failure> {
    let step = if renamed { LOAD } else { FETCH };
    let cents =
        cx.step(&step, invoice.number.clone(), |_, number| async move { Ok(100 * number.len() as u64) }).await?;
    let approved = cx.signal(&APPROVED).await?;
    if !approved {
        return Err(Failure::new(format!("invoice {} was refused", invoice.number)));
    }
    Ok(format!("invoice {} over {cents} cents: approved", invoice.number))
}

fn main() -> ExitCode {
    let renamed = std::env::var_os("RENAMED").is_some();
    let workflow = Workflow::new("invoice", move |cx, input| invoice(cx, input, renamed)).signal(&APPROVED);
    // One file plays two builds here; otherwise the program's file tells one build from the other.
    Program::new([workflow]).build(if renamed { "renamed" } else { "before" }).main()
}
