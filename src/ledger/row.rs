//! One run as the ledger holds it, and what may be done with it now.

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde_json::Value;

use super::{ExecutionMode, LedgerError, Limits, OperatorRequest, Owner, Result, Standing, Status, decode, encode};
use crate::contract::ReasonCode;
use crate::time::Instant;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// Its key.
    pub run_key: String,
    /// The request it serves; none where the id itself was invalid.
    pub request_id: Option<String>,
    /// Hash of the intent in normal form and of what it supersedes.
    pub request_hash: Option<String>,
    /// The platform run it reads.
    pub platform_run_id: Option<String>,
    /// What kind of build.
    pub intent_kind: Option<String>,
    /// The intent in normal form.
    pub intent: Option<Value>,
    /// Where it stands.
    pub status: Status,
    /// What its latest attempt does or did.
    pub execution_mode: ExecutionMode,
    /// Attempts at the whole corridor.
    pub full_run_attempts: u32,
    /// Publish-only retries used.
    pub publish_retry_attempts: u32,
    /// Publish-only retries that operators granted beyond the policy's.
    pub retries_granted: u32,
    /// The phase entered last.
    pub phase: Option<String>,
    /// Why it stands where it does, by name: a newer program may know more names than this one.
    pub reason_code: Option<String>,
    /// The refusal's document.
    pub reason: Option<Value>,
    /// End class (O034).
    pub end_class: Option<String>,
    /// Fingerprint of the identity it resolved to.
    pub fingerprint: Option<String>,
    /// Manifest id of that identity.
    pub manifest_id: Option<String>,
    /// The manifest, once read back.
    pub manifest_ref: Option<String>,
    /// What is given again to a request that comes a second time.
    pub result: Option<Value>,
    /// A commit was journalled and no read-back has settled it: cancelling is illegal (O033).
    pub commit_started: bool,
    /// Epoch of the latest lease, kept when it is released.
    pub lease_epoch: u64,
    /// Who holds the lease.
    pub owner: Option<Owner>,
    /// When the lease ends unless renewed.
    pub lease_expires: Option<Instant>,
    /// Where the owner says it is.
    pub progress: Option<Value>,
    /// When that last changed.
    pub last_progress: Option<Instant>,
    /// Since when the owner waits at a gate for a person.
    pub paused_since: Option<Instant>,
    /// The end that an operator asked for and that the live owner has yet to obey.
    pub operator_request: Option<OperatorRequest>,
    /// Which program and settings the request came with.
    pub provenance: Option<Value>,
    /// When the record was made.
    pub created: Instant,
    /// When something happened to it last; notes and bundles are about it and do not count.
    pub updated: Instant,
    /// When the latest attempt started.
    pub started: Option<Instant>,
    /// When it ended.
    pub completed: Option<Instant>,
    /// Number of its latest event.
    pub last_seq: u64,
    /// Hash of its latest event, the head of its chain.
    pub last_hash: String,
    /// What the ledger's clock showed when this was read.
    pub as_of: Instant,
}

impl RunRow {
    /// A record that has no event yet.
    pub(super) fn blank(run_key: &str, now: Instant) -> Self {
        RunRow {
            run_key: run_key.to_owned(),
            request_id: None,
            request_hash: None,
            platform_run_id: None,
            intent_kind: None,
            intent: None,
            status: Status::Queued,
            execution_mode: ExecutionMode::None,
            full_run_attempts: 0,
            publish_retry_attempts: 0,
            retries_granted: 0,
            phase: None,
            reason_code: None,
            reason: None,
            end_class: None,
            fingerprint: None,
            manifest_id: None,
            manifest_ref: None,
            result: None,
            commit_started: false,
            lease_epoch: 0,
            owner: None,
            lease_expires: None,
            progress: None,
            last_progress: None,
            paused_since: None,
            operator_request: None,
            provenance: None,
            created: now,
            updated: now,
            started: None,
            completed: None,
            last_seq: 0,
            last_hash: String::new(),
            as_of: now,
        }
    }

    /// The number of the latest attempt, full or publish-only, from 1; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.full_run_attempts.saturating_add(self.publish_retry_attempts)
    }

    /// The reason, where this program knows its name.
    pub fn code(&self) -> Option<ReasonCode> {
        self.reason_code.as_deref().and_then(ReasonCode::parse)
    }

    /// The publish-only retries it may use under a policy that gives `max` (O025).
    pub fn retry_budget(&self, max: u32) -> u32 {
        max.saturating_add(self.retries_granted)
    }

    /// Whether it failed with a reason that a new attempt can help.
    pub fn retryable(&self) -> bool {
        self.standing().retryable()
    }

    /// The facts that what may be done with it depends on.
    pub fn standing(&self) -> Standing {
        Standing {
            status: self.status,
            code: self.code(),
            owner_gone: self.owner.as_ref().is_none_or(|o| o.alive_here() == Some(false)),
            lease_expires: self.lease_expires,
            last_progress: self.last_progress,
            paused_since: self.paused_since,
            updated: self.updated,
            publish_retry_attempts: self.publish_retry_attempts,
            retries_granted: self.retries_granted,
            commit_started: self.commit_started,
        }
    }

    /// Whether another process may take this RUNNING run over: its lease is over, or its owner was a
    /// process of this host that is gone.
    pub fn takeover_legal(&self, now: Instant) -> bool {
        self.standing().takeover_legal(now)
    }

    /// Why the run does not move, if it does not. `stall_us` is how long nothing may happen,
    /// `max_pause_us` how long a person may keep it waiting at a gate.
    pub fn stuck_reason(
        &self,
        now: Instant,
        stall_us: i64,
        max_pause_us: i64,
        workers_alive: bool,
        max_retries: u32,
    ) -> Option<&'static str> {
        self.standing().stuck_reason(now, &Limits { stall_us, max_pause_us, max_retries }, workers_alive)
    }

    /// Whether no attempt of this run can go on any more.
    pub fn over(&self) -> bool {
        match self.status {
            Status::Done | Status::Cancelled | Status::Rejected => true,
            Status::Failed => !self.retryable(),
            Status::Queued | Status::Running | Status::PublishPending => false,
        }
    }

    /// What an operator may do now (that is, at [`RunRow::as_of`]).
    pub fn actions(&self) -> Vec<&'static str> {
        self.standing().actions(self.as_of)
    }

    /// The refusal of `action` in this state.
    pub(super) fn illegal(&self, action: impl Into<String>) -> LedgerError {
        let mut action = action.into();
        if self.commit_started && ["cancel", "fail"].contains(&action.as_str()) {
            action.push_str(" while its commit is unsettled");
        }
        LedgerError::InvalidTransition { run_key: self.run_key.clone(), from: self.status, action, legal: self.actions() }
    }

    /// Reads one record by key.
    pub(super) fn load(conn: &Connection, run_key: &str, now: Instant) -> Result<Option<Self>> {
        let mut query = conn.prepare_cached("SELECT * FROM runs WHERE run_key = ?1")?;
        query.query_row([run_key], |row| Ok(Self::from_sql(row, now))).optional()?.transpose()
    }

    /// Reads one record.
    pub(super) fn from_sql(row: &Row<'_>, now: Instant) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> { Ok(row.get(name)?) };
        let json = |name: &str| -> Result<Option<Value>> { text(name)?.as_deref().map(decode).transpose() };
        let instant = |name: &str| -> Result<Option<Instant>> { Ok(row.get::<_, Option<i64>>(name)?.map(Instant)) };
        let (status, mode): (String, String) = (row.get("status")?, row.get("execution_mode")?);
        let owner = text("lease_owner")?.map(|t| serde_json::from_str(&t)).transpose();
        Ok(RunRow {
            run_key: row.get("run_key")?,
            request_id: text("request_id")?,
            request_hash: text("request_hash")?,
            platform_run_id: text("platform_run_id")?,
            intent_kind: text("intent_kind")?,
            intent: json("intent_json")?,
            status: Status::parse(&status).ok_or_else(|| LedgerError::Corrupt(format!("unknown status {status}")))?,
            execution_mode: ExecutionMode::parse(&mode).ok_or_else(|| LedgerError::Corrupt(format!("unknown mode {mode}")))?,
            full_run_attempts: row.get("full_run_attempts")?,
            publish_retry_attempts: row.get("publish_retry_attempts")?,
            retries_granted: later(row, "retries_granted")?,
            phase: text("phase")?,
            reason_code: text("reason_code")?,
            reason: json("reason_json")?,
            end_class: text("end_class")?,
            fingerprint: text("fingerprint")?,
            manifest_id: text("manifest_id")?,
            manifest_ref: text("manifest_ref")?,
            result: json("result_json")?,
            commit_started: row.get("commit_started")?,
            lease_epoch: unsigned(row.get("lease_epoch")?)?,
            owner: owner.map_err(|e| LedgerError::Corrupt(format!("lease owner: {e}")))?,
            lease_expires: instant("lease_expires_us")?,
            progress: json("progress_json")?,
            last_progress: instant("last_progress_us")?,
            paused_since: instant("paused_since_us")?,
            operator_request: later::<Option<String>>(row, "operator_request_json")?
                .map(|text| OperatorRequest::from_json(&decode(&text)?))
                .transpose()?,
            provenance: json("provenance_json")?,
            created: Instant(row.get("created_us")?),
            updated: Instant(row.get("updated_us")?),
            started: instant("started_us")?,
            completed: instant("completed_us")?,
            last_seq: unsigned(row.get("last_seq")?)?,
            last_hash: row.get("last_hash")?,
            as_of: now,
        })
    }

    /// Writes this record over the one with its key, or as a new one.
    pub(super) fn save(&self, conn: &Connection) -> Result<()> {
        let json = |value: &Option<Value>| value.as_ref().map(encode).transpose();
        let instant = |at: Option<Instant>| at.map(|at| at.0);
        let owner = self.owner.as_ref().map(serde_json::to_string).transpose().map_err(|e| LedgerError::Misuse(e.to_string()))?;
        conn.prepare_cached(UPSERT)?.execute(named_params! {
            ":run_key": self.run_key, ":request_id": self.request_id, ":request_hash": self.request_hash,
            ":platform_run_id": self.platform_run_id, ":intent_kind": self.intent_kind, ":intent_json": json(&self.intent)?,
            ":status": self.status.as_str(), ":execution_mode": self.execution_mode.as_str(),
            ":full_run_attempts": self.full_run_attempts, ":publish_retry_attempts": self.publish_retry_attempts,
            ":phase": self.phase, ":reason_code": self.reason_code, ":reason_json": json(&self.reason)?, ":end_class": self.end_class,
            ":fingerprint": self.fingerprint, ":manifest_id": self.manifest_id, ":manifest_ref": self.manifest_ref,
            ":result_json": json(&self.result)?, ":commit_started": self.commit_started, ":lease_epoch": signed(self.lease_epoch)?,
            ":lease_owner": owner, ":lease_expires_us": instant(self.lease_expires), ":progress_json": json(&self.progress)?,
            ":last_progress_us": instant(self.last_progress), ":paused_since_us": instant(self.paused_since),
            ":retries_granted": self.retries_granted, ":operator_request_json": json(&self.operator_request.as_ref().map(OperatorRequest::to_json))?,
            ":provenance_json": json(&self.provenance)?, ":created_us": self.created.0, ":updated_us": self.updated.0,
            ":started_us": instant(self.started), ":completed_us": instant(self.completed), ":last_seq": signed(self.last_seq)?,
            ":last_hash": self.last_hash,
        })?;
        Ok(())
    }
}

/// A column that the first version of the schema lacks: a ledger that is only read stays as it is.
fn later<T: rusqlite::types::FromSql + Default>(row: &Row<'_>, column: &str) -> Result<T> {
    match row.get(column) {
        Err(rusqlite::Error::InvalidColumnName(_)) => Ok(T::default()),
        other => Ok(other?),
    }
}

const UPSERT: &str = "
INSERT INTO runs (run_key, request_id, request_hash, platform_run_id, intent_kind, intent_json, status, execution_mode,
    full_run_attempts, publish_retry_attempts, phase, reason_code, reason_json, end_class, fingerprint, manifest_id, manifest_ref,
    result_json, commit_started, lease_epoch, lease_owner, lease_expires_us, progress_json, last_progress_us, paused_since_us,
    retries_granted, operator_request_json, provenance_json, created_us, updated_us, started_us, completed_us, last_seq, last_hash)
VALUES (:run_key, :request_id, :request_hash, :platform_run_id, :intent_kind, :intent_json, :status, :execution_mode,
    :full_run_attempts, :publish_retry_attempts, :phase, :reason_code, :reason_json, :end_class, :fingerprint, :manifest_id, :manifest_ref,
    :result_json, :commit_started, :lease_epoch, :lease_owner, :lease_expires_us, :progress_json, :last_progress_us, :paused_since_us,
    :retries_granted, :operator_request_json, :provenance_json, :created_us, :updated_us, :started_us, :completed_us, :last_seq, :last_hash)
ON CONFLICT (run_key) DO UPDATE SET request_id = :request_id, request_hash = :request_hash, platform_run_id = :platform_run_id,
    intent_kind = :intent_kind, intent_json = :intent_json, status = :status, execution_mode = :execution_mode,
    full_run_attempts = :full_run_attempts, publish_retry_attempts = :publish_retry_attempts, phase = :phase,
    reason_code = :reason_code, reason_json = :reason_json, end_class = :end_class, fingerprint = :fingerprint,
    manifest_id = :manifest_id, manifest_ref = :manifest_ref, result_json = :result_json, commit_started = :commit_started,
    lease_epoch = :lease_epoch, lease_owner = :lease_owner, lease_expires_us = :lease_expires_us, progress_json = :progress_json,
    last_progress_us = :last_progress_us, paused_since_us = :paused_since_us,
    retries_granted = :retries_granted, operator_request_json = :operator_request_json, provenance_json = :provenance_json,
    updated_us = :updated_us, started_us = :started_us, completed_us = :completed_us, last_seq = :last_seq, last_hash = :last_hash";

/// SQLite's integers are signed.
pub(super) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| LedgerError::Misuse("a number beyond 63 bits".into()))
}

/// A count that was stored as a signed integer.
pub(super) fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| LedgerError::Corrupt("a negative count".into()))
}

#[cfg(test)]
mod tests {
    use super::super::Order;
    use super::super::testing::*;
    use super::*;
    use serde_json::json;

    const NOW: Instant = Instant(1_000_000);

    fn row(status: Status) -> RunRow {
        let mut row = RunRow { status, ..RunRow::blank("k", Instant(0)) };
        row.as_of = NOW;
        if status == Status::Running {
            row.owner = Some(Owner::current());
            row.lease_expires = Some(Instant(NOW.0 + 1));
            row.last_progress = Some(NOW);
        }
        row
    }

    #[test]
    fn every_field_survives_the_file() {
        let home = Home::new();
        let ledger = home.ledger();
        let text = |t: &str| Some(t.to_owned());
        let full = RunRow {
            request_id: text("r"),
            request_hash: text("h"),
            platform_run_id: text("p"),
            intent_kind: text("dataset_build"),
            intent: Some(json!({"a": crate::json::number("1.0")})),
            status: Status::Running,
            execution_mode: ExecutionMode::PublishOnly,
            full_run_attempts: 1,
            publish_retry_attempts: 2,
            retries_granted: 4,
            operator_request: Some(OperatorRequest {
                action: Order::Fail,
                actor: "HUMAN::é".into(),
                host: "h".into(),
                reason: "\u{0}\"".into(),
                at: Instant(-1),
            }),
            phase: text("label"),
            reason_code: text("SOURCE_IO"),
            reason: Some(json!({"why": "é"})),
            end_class: text("FAILED"),
            fingerprint: text("f"),
            manifest_id: text("dm_1"),
            manifest_ref: text("R/m.json"),
            result: Some(json!([1])),
            commit_started: true,
            lease_epoch: 7,
            owner: Some(elsewhere(1)),
            lease_expires: Some(Instant(1)),
            progress: Some(json!(null)),
            last_progress: Some(Instant(2)),
            paused_since: Some(Instant(3)),
            provenance: Some(json!({})),
            updated: Instant(5),
            started: Some(Instant(6)),
            completed: Some(Instant(-7)),
            last_seq: 9,
            last_hash: "x".into(),
            ..RunRow::blank("k", Instant(4))
        };
        for row in [RunRow::blank("k", Instant(4)), full] {
            row.save(&ledger.conn()).unwrap();
            assert_eq!(RunRow::load(&ledger.conn(), "k", Instant(4)).unwrap().unwrap(), row);
        }
    }

    #[test]
    fn stuck_runs_are_told_apart_from_slow_ones() {
        let stuck = |row: &RunRow, workers| row.stuck_reason(NOW, 100, 200, workers, 3);
        let at = |ago: i64| Some(Instant(NOW.0 - ago));
        assert_eq!(stuck(&row(Status::Running), true), None);
        assert_eq!(stuck(&RunRow { lease_expires: Some(NOW), ..row(Status::Running) }, true), Some("LEASE_EXPIRED"));
        assert_eq!(stuck(&RunRow { last_progress: at(100), ..row(Status::Running) }, true), None);
        assert_eq!(stuck(&RunRow { last_progress: at(101), ..row(Status::Running) }, true), Some("NO_PROGRESS"));
        assert_eq!(stuck(&RunRow { last_progress: at(999), paused_since: at(200), ..row(Status::Running) }, true), None);
        assert_eq!(stuck(&RunRow { paused_since: at(201), ..row(Status::Running) }, true), Some("PAUSED_TOO_LONG"));
        assert_eq!(stuck(&row(Status::Queued), false), Some("QUEUED_NO_WORKER"));
        assert_eq!(stuck(&row(Status::Queued), true), None);
        assert_eq!(stuck(&RunRow { updated: NOW, ..row(Status::Queued) }, false), None);
        assert_eq!(stuck(&RunRow { publish_retry_attempts: 2, ..row(Status::PublishPending) }, true), None);
        assert_eq!(stuck(&RunRow { publish_retry_attempts: 3, ..row(Status::PublishPending) }, true), Some("RETRY_EXHAUSTED"));
        let granted = |used| RunRow { publish_retry_attempts: used, retries_granted: 2, ..row(Status::PublishPending) };
        assert_eq!((stuck(&granted(4), true), stuck(&granted(5), true)), (None, Some("RETRY_EXHAUSTED")));
        assert_eq!(stuck(&RunRow { owner: Some(dead()), ..row(Status::Running) }, true), Some("LEASE_EXPIRED"));
        for status in [Status::Done, Status::Failed, Status::Cancelled, Status::Rejected] {
            assert_eq!(stuck(&row(status), false), None, "{status}");
        }
    }

    #[test]
    fn actions_follow_the_state_and_an_unsettled_commit_forbids_giving_up() {
        let all = |row: RunRow| row.actions().join(" ");
        assert_eq!(all(row(Status::Queued)), "resume cancel fail note bundle");
        assert_eq!(all(row(Status::Running)), "cancel fail note bundle");
        assert_eq!(all(RunRow { lease_expires: Some(NOW), ..row(Status::Running) }), "resume cancel fail note bundle");
        assert_eq!(all(RunRow { owner: Some(dead()), ..row(Status::Running) }), "resume cancel fail note bundle");
        assert_eq!(all(row(Status::PublishPending)), "retry cancel fail note bundle");
        assert_eq!(all(RunRow { commit_started: true, ..row(Status::Queued) }), "resume note bundle");
        assert_eq!(all(RunRow { commit_started: true, ..row(Status::Running) }), "note bundle");
        assert_eq!(all(RunRow { commit_started: true, ..row(Status::PublishPending) }), "retry note bundle");
        assert_eq!(all(RunRow { reason_code: Some("SOURCE_IO".into()), ..row(Status::Failed) }), "resume note bundle");
        for code in [None, Some("FEATURE_OVERFLOW".into()), Some("A_CODE_OF_TOMORROW".into())] {
            assert_eq!(all(RunRow { reason_code: code, ..row(Status::Failed) }), "note bundle");
        }
        for status in [Status::Done, Status::Cancelled, Status::Rejected] {
            assert_eq!(all(row(status)), "note bundle", "{status}");
        }
    }
}
