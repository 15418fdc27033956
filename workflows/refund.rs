//! A refund: the charge is looked up and held, a person approves or a deadline passes, the money is paid out or
//! released, and the customer is told.
//!
//! Its steps keep a ledger: a file with one JSON object a line. Each line carries its step's idempotency key, and a key
//! that stands there already is not written again: so may a bank do it, and so does every refund leave each line once,
//! however often the process dies.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use aldis::workflow::Raced;
use aldis::{Context, Failure, Published, Signal, Step, StepContext, Workflow};

/// Takes the amount out of the merchant's account and holds it.
pub const CHARGE: Step<Movement, Receipt> = Step::new("charge").attempts(5).timeout(Duration::from_secs(30));
/// Pays the held amount to the customer.
pub const PAY_OUT: Step<Movement, Receipt> = Step::new("pay_out").attempts(5).timeout(Duration::from_secs(30));
/// Gives the held amount back to the merchant.
pub const RELEASE: Step<Movement, Receipt> = Step::new("release").attempts(5).timeout(Duration::from_secs(30));
/// Tells the customer.
pub const NOTIFY: Step<Notice, Receipt> = Step::new("notify").attempts(5).timeout(Duration::from_secs(30));

/// What a person decides.
pub const APPROVAL: Signal<Approval> = Signal::new("approval");
/// How far the refund has come.
pub const PROGRESS: Published<String> = Published::new("progress");

/// What is to be refunded.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The order's number.
    pub order: String,
    /// How much, in cents.
    #[schemars(range(min = 1))]
    pub amount_cents: u64,
    /// Whom to tell.
    pub customer: String,
    /// How long to wait for the approval, in seconds; a day if nothing is said.
    #[serde(default = "a_day")]
    pub approve_within_seconds: u64,
    /// The ledger's file, whose name ends with `.jsonl`: whoever may start a refund is not to write into any other file.
    /// `refunds.jsonl` in the working directory if nothing is said.
    #[serde(default = "ledger")]
    #[schemars(extend("pattern" = "\\.jsonl$"))]
    pub ledger: PathBuf,
}

fn a_day() -> u64 {
    86_400
}

fn ledger() -> PathBuf {
    "refunds.jsonl".into()
}

/// A decision.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// Whether the refund is to be paid.
    pub approved: bool,
    /// Who says so.
    pub by: String,
}

/// Money that moves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Movement {
    order: String,
    amount_cents: u64,
    ledger: PathBuf,
}

/// Word to the customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notice {
    customer: String,
    text: String,
    ledger: PathBuf,
}

/// A line of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Receipt {
    /// Under which key it stands there.
    pub key: String,
}

/// What became of the refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refunded {
    /// Whether the money went to the customer.
    pub paid: bool,
    /// Who decided; nobody if the deadline passed.
    pub decided_by: Option<String>,
}

/// The workflow's declaration.
#[must_use]
pub fn workflow() -> Workflow {
    Workflow::new("refund", refund).signal(&APPROVAL)
}

async fn refund(cx: Context, order: Order) -> Result<Refunded, Failure> {
    let movement =
        Movement { order: order.order.clone(), amount_cents: order.amount_cents, ledger: order.ledger.clone() };
    cx.step(&CHARGE, movement.clone(), charge).await?;
    cx.undo(&RELEASE, movement.clone(), release);
    cx.publish(&PROGRESS, &"waiting for approval".to_owned());

    let deadline = cx.sleep(Duration::from_secs(order.approve_within_seconds));
    let decision = match cx.race(cx.signal(&APPROVAL), deadline).await {
        Raced::First(approval) => Some(approval?),
        Raced::Second(passed) => passed.map(|()| None)?,
    };
    let paid = decision.as_ref().is_some_and(|decision| decision.approved);
    if paid {
        cx.step(&PAY_OUT, movement, pay_out).await?;
    } else {
        cx.step(&RELEASE, movement, release).await?;
    }
    cx.forget_undos();

    let text = match &decision {
        Some(decision) if paid => format!("order {}: your refund is on its way ({})", order.order, decision.by),
        Some(decision) => format!("order {}: your refund was declined ({})", order.order, decision.by),
        None => format!("order {}: nobody decided in time; nothing was refunded", order.order),
    };
    cx.step(&NOTIFY, Notice { customer: order.customer, text, ledger: order.ledger }, notify).await?;
    cx.publish(&PROGRESS, &if paid { "paid out" } else { "released" }.to_owned());
    Ok(Refunded { paid, decided_by: decision.map(|decision| decision.by) })
}

async fn charge(cx: StepContext, movement: Movement) -> Result<Receipt, Failure> {
    enter(&cx, movement.ledger, json!({ "charged": movement.order, "cents": movement.amount_cents })).await
}

async fn pay_out(cx: StepContext, movement: Movement) -> Result<Receipt, Failure> {
    enter(&cx, movement.ledger, json!({ "paid_out": movement.order, "cents": movement.amount_cents })).await
}

async fn release(cx: StepContext, movement: Movement) -> Result<Receipt, Failure> {
    enter(&cx, movement.ledger, json!({ "released": movement.order, "cents": movement.amount_cents })).await
}

async fn notify(cx: StepContext, notice: Notice) -> Result<Receipt, Failure> {
    enter(&cx, notice.ledger, json!({ "told": notice.customer, "text": notice.text })).await
}

/// Writes a line into the ledger, unless its key stands there already.
async fn enter(cx: &StepContext, ledger: PathBuf, entry: Value) -> Result<Receipt, Failure> {
    let key = cx.idempotency_key().to_owned();
    let written = tokio::task::spawn_blocking({
        let key = key.clone();
        move || enter_line(&ledger, &key, entry)
    });
    written.await??;
    Ok(Receipt { key })
}

fn enter_line(ledger: &std::path::Path, key: &str, mut entry: Value) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).open(ledger)?;
    // Held until the file is closed: several refunds may share a ledger.
    file.lock()?;
    let mut lines = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut lines)?;
    // Read only where the key can be: most lines are others'.
    let stands =
        |line: &str| line.contains(key) && serde_json::from_str::<Value>(line).is_ok_and(|line| line["key"] == key);
    if lines.lines().any(stands) {
        return Ok(());
    }
    entry["key"] = key.into();
    // One write: a line is there whole or, after a crash, cut short and then not found under its key.
    let begin = if lines.is_empty() || lines.ends_with('\n') { "" } else { "\n" };
    file.write_all(format!("{begin}{entry}\n").as_bytes())?;
    file.sync_data()
}
