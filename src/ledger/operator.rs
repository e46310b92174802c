//! What operators do to runs: call off, give up, note, renew a budget. Each is one transaction that
//! checks the state it finds, not the one that was shown, and leaves an event and an audit row with
//! actor, host and reason (O025, O033).
//!
//! A run without a live owner ends at once, under a higher epoch, so that an owner who wakes up later
//! finds its lease lost. A live owner is asked: it hears of it with its next heartbeat and ends the run
//! itself. From COMMIT_STARTED until that is settled neither is legal, as the data set may be out.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::events::Change;
use super::{End, Ledger, LedgerError, Owner, Result, RunRow, Status};
use crate::contract::ReasonCode;
use crate::time::Instant;

/// Longest reason or note, in bytes.
pub const MAX_TEXT: usize = 4_096;

/// Pause between two looks at a run that was asked to end.
const LOOK: Duration = Duration::from_millis(25);

/// An end that an operator gives a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Call it off: nobody wants it any more.
    Cancel,
    /// Give it up: it cannot succeed.
    Fail,
}

impl Order {
    /// The name of the command.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Cancel => "cancel",
            Order::Fail => "fail",
        }
    }

    /// The status that it ends in.
    pub fn status(self) -> Status {
        match self {
            Order::Cancel => Status::Cancelled,
            Order::Fail => Status::Failed,
        }
    }

    /// The reason that the run then bears.
    pub fn reason(self) -> ReasonCode {
        match self {
            Order::Cancel => ReasonCode::CancelledByOperator,
            Order::Fail => ReasonCode::FailedByOperator,
        }
    }

    fn event(self, asked: bool) -> &'static str {
        match (self, asked) {
            (Order::Cancel, false) => "OPERATOR_CANCEL",
            (Order::Cancel, true) => "OPERATOR_CANCEL_REQUESTED",
            (Order::Fail, false) => "OPERATOR_FAIL",
            (Order::Fail, true) => "OPERATOR_FAIL_REQUESTED",
        }
    }
}

/// Who wants a run to end, how and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRequest {
    /// How.
    pub action: Order,
    /// Who.
    pub actor: String,
    /// From which host.
    pub host: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When.
    pub at: Instant,
}

impl fmt::Display for OperatorRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.action {
            Order::Cancel => "called off",
            Order::Fail => "given up",
        };
        write!(f, "{what} by {} on {}: {}", self.actor, self.host, self.reason)
    }
}

impl OperatorRequest {
    /// As in the ledger and in documents.
    pub fn to_json(&self) -> Value {
        json!({"action": self.action.as_str(), "actor": self.actor, "host": self.host, "reason": self.reason, "at_utc": self.at})
    }

    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let read = || {
            Some(OperatorRequest {
                action: [Order::Cancel, Order::Fail].into_iter().find(|o| text("action") == Some(o.as_str()))?,
                actor: text("actor")?.to_owned(),
                host: text("host")?.to_owned(),
                reason: text("reason")?.to_owned(),
                at: Instant::parse(text("at_utc")?).ok()?,
            })
        };
        read().ok_or_else(|| LedgerError::Corrupt(format!("operator request: {value}")))
    }

    /// The refusal's document of a run that ends with it.
    fn document(&self, phase: &str) -> Value {
        let info = self.action.reason().info();
        json!({
            "code": info.name, "phase": phase, "message": self.to_string(), "evidence": [], "remedy": info.remedy,
            "actor": self.actor, "host": self.host, "reason": self.reason,
        })
    }

    /// How a run ends with it that was in `phase`. No result is stored: the record itself is the answer.
    pub(super) fn end(&self, phase: Option<&str>) -> End {
        let (reason, document, result) = (self.action.reason(), self.document(phase.unwrap_or("operate")), Value::Null);
        match self.action {
            Order::Cancel => End::Cancelled { reason, document, result },
            Order::Fail => End::Failed { reason, end_class: None, document, result },
        }
    }
}

/// What came of an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// The run has ended as ordered.
    Ended {
        /// The status before.
        from: Status,
        /// The status now.
        to: Status,
    },
    /// A live owner was asked and has not ended the run yet.
    Asked {
        /// Who.
        owner: Owner,
        /// From when on the run may be taken over, or the order given again, if the owner never answers.
        expires: Instant,
    },
}

/// Refuses a text that is empty or too long to be kept.
fn check_text(text: &str) -> Result<()> {
    match text.trim().is_empty() {
        true => Err(LedgerError::Misuse("a reason or note that says nothing".into())),
        false if text.len() > MAX_TEXT => Err(LedgerError::Misuse(format!("a text longer than the limit of {MAX_TEXT} bytes"))),
        false => Ok(()),
    }
}

impl Ledger {
    /// Ends a run without a live owner, or asks its live owner to. A request that stands is not replaced.
    ///
    /// # Errors
    /// `InvalidTransition`, `NotFound`, `Misuse` for a reason that is empty or longer than [`MAX_TEXT`],
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn order(&self, order: Order, run_key: &str, reason: &str) -> Result<Ordered> {
        check_text(reason)?;
        self.change(run_key, |c| {
            if !c.row.actions().contains(&order.as_str()) {
                return Err(c.row.illegal(order.as_str()));
            }
            let (actor, host) = c.who();
            let request = OperatorRequest { action: order, actor, host, reason: reason.to_owned(), at: c.now };
            match (c.row.status, c.row.owner.clone(), c.row.lease_expires) {
                (Status::Running, Some(owner), Some(expires)) if !c.row.takeover_legal(c.now) => ask(c, request, owner, expires),
                _ => end_now(c, &request),
            }
        })
    }

    /// [`Ledger::order`], then waits up to `patience` for a live owner to obey. An owner that dies
    /// meanwhile, or whose lease is over by then, is not waited for: the run ends at once.
    ///
    /// # Errors
    /// As of [`Ledger::order`]; `InvalidTransition` also where the run ended in another way first.
    pub fn carry_out(&self, order: Order, run_key: &str, reason: &str, patience: Duration) -> Result<Ordered> {
        let began = std::time::Instant::now();
        let mut ordered = self.order(order, run_key, reason)?;
        while matches!(ordered, Ordered::Asked { .. }) {
            let over = began.elapsed() >= patience;
            let row = self.run(run_key)?.ok_or_else(|| LedgerError::NotFound(run_key.to_owned()))?;
            let dead = row.owner.as_ref().is_some_and(|o| o.alive_here() == Some(false));
            ordered = match row.status {
                Status::Running if dead || (over && row.takeover_legal(row.as_of)) => self.order(order, run_key, reason)?,
                // Its last heartbeat may have moved the expiry.
                Status::Running if over => match (row.owner, row.lease_expires) {
                    (Some(owner), Some(expires)) => return Ok(Ordered::Asked { owner, expires }),
                    _ => return Ok(ordered),
                },
                Status::Running => {
                    std::thread::sleep(LOOK);
                    continue;
                }
                to if row.code() == Some(order.reason()) => Ordered::Ended { from: Status::Running, to },
                _ => self.order(order, run_key, reason)?,
            };
        }
        Ok(ordered)
    }

    /// Puts a hand-over note on a run in whatever state.
    ///
    /// # Errors
    /// `NotFound`, `Misuse` for a text that is empty or longer than [`MAX_TEXT`], `Io`, `Corrupt`, `ReadOnly`.
    pub fn note(&self, run_key: &str, text: &str) -> Result<RunRow> {
        check_text(text)?;
        self.change(run_key, |c| {
            remarked(c, "OPERATOR_NOTE", "note", json!({"text": text}))?;
            Ok(c.row.clone())
        })
    }

    /// Grants `retries` more publish-only retries to a run that waits for its publication, and says how
    /// many were granted in all (O025).
    ///
    /// # Errors
    /// `NotPending`, put on record as an event; `Misuse` for no retries or a bad reason; `NotFound`, `Io`,
    /// `Corrupt`, `ReadOnly`.
    pub fn grant_retries(&self, run_key: &str, retries: u32, reason: &str) -> Result<u32> {
        check_text(reason)?;
        self.change(run_key, |c| {
            let total = c.row.retries_granted.checked_add(retries).filter(|_| retries > 0);
            let Some(total) = total else { return Err(LedgerError::Misuse(format!("{retries} retries cannot be granted"))) };
            if c.row.status != Status::PublishPending {
                let detail = json!({"grant": retries, "reason": reason});
                c.event("PUBLISH_RETRY_SKIPPED", Some(ReasonCode::RetryNotPending), detail)?;
                return Ok(Err(LedgerError::NotPending { run_key: c.row.run_key.clone(), status: c.row.status }));
            }
            c.row.retries_granted = total;
            let detail = json!({"grant": retries, "granted": total, "used": c.row.publish_retry_attempts, "reason": reason});
            told(c, "RETRY_GRANTED", "grant", None, detail)?;
            Ok(Ok(total))
        })?
    }

    /// Everything about a run was written to a file for an escalation; `detail` says which and its digest.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn bundled(&self, run_key: &str, detail: &Value) -> Result<()> {
        self.change(run_key, |c| remarked(c, "OPERATOR_BUNDLE", "bundle", detail.clone()))
    }
}

/// Puts what an operator did beside a run's work into events and audit: a note must not make a run that nobody
/// works on look as if something had happened to it.
fn remarked(c: &mut Change<'_>, event: &str, action: &str, detail: Value) -> Result<()> {
    let updated = c.row.updated;
    told(c, event, action, None, detail)?;
    c.row.updated = updated;
    Ok(())
}

/// Puts what an operator did into the run's events and into the audit.
fn told(c: &mut Change<'_>, event: &str, action: &str, code: Option<ReasonCode>, mut detail: Value) -> Result<()> {
    let (actor, host) = c.who();
    if let Some(detail) = detail.as_object_mut() {
        detail.insert("actor".into(), json!(actor));
        detail.insert("host".into(), json!(host));
    }
    c.audit(action, &detail)?;
    c.event(event, code, detail)
}

/// Leaves the request for the owner's next heartbeat.
fn ask(c: &mut Change<'_>, request: OperatorRequest, owner: Owner, expires: Instant) -> Result<Ordered> {
    let action = request.action;
    if let Some(first) = c.row.operator_request.as_ref().filter(|first| first.action != action) {
        return Err(c.row.illegal(format!("{} after a {} that its owner is still to obey", action.as_str(), first.action.as_str())));
    }
    let detail = json!({"reason": request.reason, "owner": owner, "epoch": c.row.lease_epoch, "lease_expires_utc": expires});
    c.row.operator_request.get_or_insert(request);
    told(c, action.event(true), action.as_str(), None, detail)?;
    Ok(Ordered::Asked { owner, expires })
}

/// Ends the run here and now.
fn end_now(c: &mut Change<'_>, request: &OperatorRequest) -> Result<Ordered> {
    let from = c.row.status;
    let owner = c.row.owner.take();
    // Whoever held the run writes nothing more, even one that was merely slow.
    c.row.lease_epoch += 1;
    (c.row.lease_expires, c.row.paused_since, c.row.operator_request) = (None, None, None);
    request.end(None).apply(&mut c.row);
    c.row.completed = Some(c.now);
    let detail = json!({"from": from, "reason": request.reason, "owner": owner, "epoch": c.row.lease_epoch});
    told(c, request.action.event(false), request.action.as_str(), Some(request.action.reason()), detail)?;
    Ok(Ordered::Ended { from, to: c.row.status })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{ExecutionMode, Lease};
    use super::*;

    const ORDERS: [Order; 2] = [Order::Cancel, Order::Fail];

    fn order(ledger: &Ledger, order: Order) -> Result<Ordered> {
        ledger.order(order, "k", "because")
    }

    fn row(ledger: &Ledger) -> RunRow {
        ledger.run("k").unwrap().unwrap()
    }

    fn types(ledger: &Ledger, after: u64) -> Vec<String> {
        ledger.events("k", after).unwrap().into_iter().map(|e| e.event_type).collect()
    }

    fn interrupted() -> End {
        End::Interrupted { signal: "TERM".into() }
    }

    #[test]
    fn what_an_order_does_in_every_state() {
        for wanted in ORDERS {
            for (status, ledger, _clock) in one_of_each() {
                let before = row(&ledger);
                let outcome = order(&ledger, wanted);
                let after = row(&ledger);
                let audit = ledger.audit_rows(Some("k")).unwrap();
                assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
                match status {
                    Status::Queued | Status::PublishPending => {
                        assert_eq!(outcome, Ok(Ordered::Ended { from: status, to: wanted.status() }));
                        assert_eq!((after.status, after.code()), (wanted.status(), Some(wanted.reason())));
                        assert_eq!((after.lease_epoch, after.completed), (before.lease_epoch + 1, Some(START)));
                        assert_eq!(after.end_class.as_deref(), (wanted == Order::Fail).then_some("FAILED"));
                        assert_eq!((after.owner, after.manifest_ref), (None, None));
                        let message = after.reason.unwrap()["message"].as_str().unwrap().to_owned();
                        assert!(message.contains("because") && message.contains(ACTOR), "{message}");
                        assert_eq!(types(&ledger, before.last_seq), [wanted.event(false)]);
                    }
                    Status::Running => {
                        assert_eq!(outcome, Ok(Ordered::Asked { owner: elsewhere(1), expires: START.plus_micros(1_000) }));
                        let request = after.operator_request.clone().unwrap();
                        assert_eq!((request.action, request.reason.as_str(), request.actor.as_str()), (wanted, "because", ACTOR));
                        let unasked = RunRow { operator_request: None, ..but_for_events(after) };
                        assert_eq!(unasked, but_for_events(before.clone()), "asking changes nothing else");
                        assert_eq!(types(&ledger, before.last_seq), [wanted.event(true)]);
                    }
                    Status::Done | Status::Failed | Status::Cancelled | Status::Rejected => {
                        assert_eq!(outcome, Err(before.illegal(wanted.as_str())), "{status}");
                        assert_eq!((after, audit.len()), (before, 0), "{status}");
                        continue;
                    }
                }
                assert_eq!((audit.len(), audit[0].action.as_str(), audit[0].actor.as_str()), (1, wanted.as_str(), ACTOR));
                assert_eq!((&audit[0].detail["reason"], audit[0].host.is_empty()), (&json!("because"), false));
                let detail = ledger.events("k", before.last_seq).unwrap().remove(0).detail;
                assert_eq!((&detail["actor"], &detail["reason"]), (&json!(ACTOR), &json!("because")));
            }
        }
        let (_, ledger) = in_memory();
        assert_eq!(order(&ledger, Order::Cancel), Err(LedgerError::NotFound("k".into())));
    }

    #[test]
    fn without_a_live_owner_the_run_ends_at_once_and_the_owner_who_wakes_up_has_lost_it() {
        for (owner, wait) in [(elsewhere(1), 1_000), (dead(), 0)] {
            for wanted in ORDERS {
                let (clock, ledger) = in_memory();
                ledger.submit(&new_run("k")).unwrap();
                let zombie = ledger.start("k", ExecutionMode::Full, &owner, 1_000).unwrap();
                clock.advance(wait);
                assert_eq!(order(&ledger, wanted), Ok(Ordered::Ended { from: Status::Running, to: wanted.status() }));
                let after = row(&ledger);
                assert_eq!((after.owner.clone(), after.lease_expires, after.lease_epoch), (None, None, 2));
                for (name, error) in owners_writes(&ledger, &zombie) {
                    assert_eq!(error, Some(LedgerError::LeaseLost { run_key: "k".into() }), "{name}");
                }
                assert_eq!(row(&ledger), after);
                // Nor does anything start it again.
                let started = ledger.start("k", ExecutionMode::Full, &elsewhere(2), 10);
                assert_eq!(started, Err(after.illegal("start FULL")));
            }
        }
    }

    #[test]
    fn a_live_owner_hears_of_it_and_can_no_longer_commit() {
        for wanted in ORDERS {
            let (_, ledger) = in_memory();
            let lease = running(&ledger, "k");
            assert_eq!(ledger.heartbeat(&lease, 1_000, None).unwrap(), None);
            order(&ledger, wanted).unwrap();
            let request = ledger.heartbeat(&lease, 1_000, Some(&json!(1))).unwrap().unwrap();
            assert_eq!(Some(&request), row(&ledger).operator_request.as_ref());
            let refused = ledger.commit_started(&lease, "R/m.json").unwrap_err();
            assert_eq!((refused.code(), refused.to_string()), (wanted.reason(), request.to_string()));
            assert!(!row(&ledger).commit_started);
            let before = row(&ledger).last_seq;
            let after = ledger.finish(&lease, &request.end(Some("replay"))).unwrap();
            assert_eq!((after.status, after.code(), after.operator_request.clone()), (wanted.status(), Some(wanted.reason()), None));
            let event = if wanted == Order::Cancel { "RUN_CANCELLED" } else { "RUN_FAILED" };
            assert_eq!(types(&ledger, before), [event]);
        }
    }

    #[test]
    fn an_unsettled_commit_can_be_neither_called_off_nor_given_up() {
        let illegal = |ledger: &Ledger, legal: &str| {
            for wanted in ORDERS {
                let before = row(ledger);
                let error = order(ledger, wanted).unwrap_err();
                assert_eq!((error.code(), row(ledger)), (ReasonCode::InvalidTransition, before));
                assert!(error.to_string().ends_with(&format!("unsettled; legal now: {legal}")), "{error}");
            }
            assert_eq!(ledger.audit_rows(None).unwrap().len(), 0);
        };
        let (clock, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.commit_started(&lease, "R/m.json").unwrap();
        illegal(&ledger, "note, bundle");
        clock.advance(1_000);
        illegal(&ledger, "resume, note, bundle");
        ledger.finish(&lease, &interrupted()).unwrap();
        illegal(&ledger, "resume, note, bundle");
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        let End::Pending { document, result, .. } = commit_failed() else { panic!("pending") };
        ledger.finish(&lease, &End::Pending { reason: ReasonCode::PublishAmbiguous, document, result }).unwrap();
        illegal(&ledger, "retry, note, bundle");
        // A read-back that finds no manifest settles it.
        let lease = ledger.start("k", ExecutionMode::PublishOnly, &elsewhere(1), 10).unwrap();
        ledger.finish(&lease, &commit_failed()).unwrap();
        assert!(order(&ledger, Order::Cancel).is_ok());
    }

    #[test]
    fn an_end_that_leaves_the_run_open_gives_way_to_the_order_and_any_other_stands() {
        for wanted in ORDERS {
            for end in [interrupted(), commit_failed(), done("R/m.json"), failed("SOURCE_IO"), cancelled()] {
                let (_, ledger) = in_memory();
                let lease = running(&ledger, "k");
                order(&ledger, wanted).unwrap();
                let before = row(&ledger).last_seq;
                let after = ledger.finish(&lease, &end).unwrap();
                let told = types(&ledger, before);
                let open = matches!(end, End::Interrupted { .. } | End::Pending { .. });
                let met = open || (wanted == Order::Cancel && matches!(end, End::Cancelled { .. }));
                assert_eq!(after.code() == Some(wanted.reason()), met, "{end:?}");
                assert_eq!((after.completed.is_some(), after.operator_request.clone()), (true, None));
                assert_eq!(told.iter().any(|t| t == "OPERATOR_REQUEST_LAPSED"), !met, "{end:?}");
                assert_eq!(told.len(), if met { 1 } else { 2 });
                assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
                // Giving the order again says what the run has become.
                assert_eq!(order(&ledger, wanted), Err(after.illegal(wanted.as_str())));
            }
        }
    }

    #[test]
    fn of_two_orders_the_first_stands_and_whoever_takes_over_hears_of_it() {
        let (clock, ledger) = in_memory();
        running(&ledger, "k");
        order(&ledger, Order::Cancel).unwrap();
        assert!(matches!(ledger.order(Order::Cancel, "k", "me too"), Ok(Ordered::Asked { .. })));
        let error = order(&ledger, Order::Fail).unwrap_err();
        assert!(error.to_string().contains("fail after a cancel"), "{error}");
        assert_eq!(row(&ledger).operator_request.unwrap().reason, "because");
        assert_eq!(ledger.audit_rows(None).unwrap().len(), 2);
        clock.advance(1_000);
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(2), 1_000).unwrap();
        assert_eq!(ledger.heartbeat(&lease, 1_000, None).unwrap().unwrap().action, Order::Cancel);
        // Without a live owner the operator who comes now decides.
        clock.advance(1_000);
        assert_eq!(order(&ledger, Order::Fail), Ok(Ordered::Ended { from: Status::Running, to: Status::Failed }));
        assert_eq!(row(&ledger).operator_request, None);
    }

    #[test]
    fn of_an_order_and_a_commit_that_race_one_holds() {
        let home = Home::new();
        for round in 0..20 {
            let key = format!("k{round}");
            let lease = running(&home.ledger(), &key);
            let turn = std::sync::atomic::AtomicUsize::new(0);
            let outcomes = race(&home, |ledger| {
                if turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                    ledger.order(Order::Cancel, &key, "x").map(|_| "order")
                } else {
                    ledger.commit_started(&lease, "R/m.json").map(|()| "commit")
                }
            });
            assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
            let found = home.ledger().run(&key).unwrap().unwrap();
            assert_ne!(found.commit_started, found.operator_request.is_some());
        }
    }

    #[test]
    fn of_an_order_and_an_end_that_race_both_tell_the_same_story() {
        let home = Home::new();
        for round in 0..20 {
            let key = format!("k{round}");
            let lease = running(&home.ledger(), &key);
            let turn = std::sync::atomic::AtomicUsize::new(0);
            let outcomes = race(&home, |ledger| {
                if turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                    ledger.order(Order::Fail, &key, "x").map(|_| ())
                } else {
                    ledger.finish(&lease, &interrupted()).map(|_| ())
                }
            });
            // Asked first and obeyed by the end, or QUEUED first and then given up: FAILED either way.
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            let ledger = home.ledger();
            let found = ledger.run(&key).unwrap().unwrap();
            assert_eq!((found.status, found.code()), (Status::Failed, Some(ReasonCode::FailedByOperator)));
            assert_eq!(ledger.verify_chain(&key).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn of_two_operators_at_once_one_ends_the_run() {
        let home = Home::new();
        for round in 0..20 {
            let key = format!("k{round}");
            home.ledger().submit(&new_run(&key)).unwrap();
            let turn = std::sync::atomic::AtomicUsize::new(0);
            let outcomes = race(&home, |ledger| {
                let wanted = ORDERS[turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst)];
                (wanted, ledger.order(wanted, &key, "x"))
            });
            let (won, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(_, o)| o.is_ok());
            assert_eq!((won.len(), lost.len()), (1, 1), "{outcomes:?}");
            assert!(matches!(&lost[0].1, Err(LedgerError::InvalidTransition { from, .. }) if *from == won[0].0.status()));
            assert_eq!(home.ledger().audit_rows(Some(&key)).unwrap().len(), 1);
        }
    }

    #[test]
    fn carrying_out_waits_for_an_owner_who_obeys_and_no_longer_than_it_has_patience() {
        let home = Home::new();
        let ledger = home.ledger();
        let long = Duration::from_secs(60);
        let obey = |lease: &Lease, end: &dyn Fn(OperatorRequest) -> End| {
            let owner = home.ledger();
            loop {
                if let Some(request) = owner.heartbeat(lease, 1_000, None).unwrap() {
                    return owner.finish(lease, &end(request)).unwrap();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let carried = |key: &str, end: &(dyn Fn(OperatorRequest) -> End + Sync)| {
            let lease = running(&ledger, key);
            std::thread::scope(|scope| {
                let owner = scope.spawn(|| obey(&lease, end));
                let outcome = ledger.carry_out(Order::Cancel, key, "x", long);
                owner.join().unwrap();
                outcome
            })
        };
        let ended = Ok(Ordered::Ended { from: Status::Running, to: Status::Cancelled });
        assert_eq!(carried("a", &|request| request.end(None)), ended);
        assert_eq!(carried("b", &|_| interrupted()), ended);
        // One that was done before it heard of it: nothing is left to call off.
        let late = carried("c", &|_| done("R/m.json")).unwrap_err();
        assert!(matches!(late, LedgerError::InvalidTransition { from: Status::Done, .. }), "{late}");
        // One that never answers, until its lease is over.
        running(&ledger, "d");
        let asked = ledger.carry_out(Order::Cancel, "d", "x", Duration::ZERO).unwrap();
        assert_eq!(asked, Ordered::Asked { owner: elsewhere(1), expires: START.plus_micros(1_000) });
        home.clock.advance(1_000);
        assert_eq!(ledger.carry_out(Order::Cancel, "d", "x", Duration::ZERO), ended);
    }

    #[test]
    fn a_note_can_be_left_on_any_run_and_changes_nothing_else() {
        for (status, ledger, _clock) in one_of_each() {
            let before = row(&ledger);
            let after = ledger.note("k", "call the archive's owner first").unwrap();
            assert_eq!(but_for_events(after), but_for_events(before.clone()), "{status}");
            let event = ledger.events("k", before.last_seq).unwrap().remove(0);
            assert_eq!((event.event_type.as_str(), event.status), ("OPERATOR_NOTE", status));
            assert_eq!(event.detail["text"], "call the archive's owner first");
            assert_eq!(ledger.audit_rows(Some("k")).unwrap()[0].action, "note");
        }
        let (_, ledger) = in_memory();
        assert_eq!(ledger.note("k", "x"), Err(LedgerError::NotFound("k".into())));
        assert!(matches!(ledger.bundled("k", &json!({})), Err(LedgerError::NotFound(_))));
    }

    #[test]
    fn words_that_cannot_be_kept_are_refused_before_anything_is_done() {
        let (_, ledger) = in_memory();
        ledger.submit(&new_run("k")).unwrap();
        let before = row(&ledger);
        for text in ["", " \t", &"x".repeat(MAX_TEXT + 1)] {
            assert!(matches!(ledger.order(Order::Cancel, "k", text), Err(LedgerError::Misuse(_))));
            assert!(matches!(ledger.note("k", text), Err(LedgerError::Misuse(_))));
            assert!(matches!(ledger.grant_retries("k", 1, text), Err(LedgerError::Misuse(_))));
        }
        assert_eq!(row(&ledger), before);
        ledger.note("k", &"é".repeat(MAX_TEXT / 2)).unwrap();
    }

    #[test]
    fn a_spent_budget_is_renewed_by_a_grant_on_record() {
        let (_clock, ledger, _) = pending();
        let spend = || retried(&ledger, 1).map(|lease| ledger.finish(&lease, &commit_failed()).unwrap().publish_retry_attempts);
        assert_eq!(spend(), Ok(1));
        assert!(matches!(spend(), Err(LedgerError::Exhausted { attempts: 1, .. })));
        let stuck = || row(&ledger).stuck_reason(START, 1, 1, true, 1);
        assert_eq!(stuck(), Some("RETRY_EXHAUSTED"));
        assert_eq!(ledger.grant_retries("k", 2, "the disk is back").unwrap(), 2);
        assert_eq!(stuck(), None);
        assert_eq!((spend(), spend()), (Ok(2), Ok(3)));
        assert!(matches!(spend(), Err(LedgerError::Exhausted { attempts: 3, .. })));
        assert_eq!((ledger.grant_retries("k", 1, "again"), row(&ledger).retry_budget(1)), (Ok(3), 4));
        for retries in [0, u32::MAX] {
            assert!(matches!(ledger.grant_retries("k", retries, "x"), Err(LedgerError::Misuse(_))));
        }
        let audit = ledger.audit_rows(Some("k")).unwrap();
        let actions: Vec<&str> = audit.iter().map(|a| a.action.as_str()).collect();
        assert_eq!(actions, ["retry", "grant", "retry", "retry", "grant"]);
        assert_eq!(audit[1].detail["reason"], "the disk is back");
        for (status, ledger, _clock) in one_of_each().into_iter().filter(|(s, ..)| *s != Status::PublishPending) {
            let before = row(&ledger);
            assert_eq!(ledger.grant_retries("k", 1, "x"), Err(LedgerError::NotPending { run_key: "k".into(), status }));
            assert_eq!(types(&ledger, before.last_seq), ["PUBLISH_RETRY_SKIPPED"]);
            assert_eq!(but_for_events(row(&ledger)), but_for_events(before));
        }
    }
}
