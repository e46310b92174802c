//! Puts each resolution of a protected ref into the ledger.

use std::sync::Arc;

use super::Host;
use crate::contract::ReasonCode;
use crate::ledger::{Lease, Ledger};
use crate::pipeline::gate::Env;
use crate::store::{AuditSink, Resolution};

/// The audit of one run; an owner's is fenced by its lease like everything that it writes.
#[derive(Debug)]
struct OnRecord {
    ledger: Arc<Ledger>,
    run_key: String,
    lease: Option<Lease>,
}

impl AuditSink for OnRecord {
    fn record(&self, resolution: &Resolution) -> Result<(), (ReasonCode, String)> {
        if let Some((code, message)) = &resolution.denied {
            let (run_key, given) = (self.run_key.as_str(), resolution.given.as_str());
            tracing::warn!(run_key, %code, ref_type = %resolution.ref_type, given, "denied: {message}");
        }
        self.ledger.ref_resolved(&self.run_key, self.lease.as_ref(), resolution).map_err(|e| (e.code(), e.to_string()))
    }
}

/// The same environment, in which every ref that is resolved goes on record for a run.
pub(crate) fn on_record(env: &Env, host: &Host, run_key: &str) -> Env {
    audited(env, host, run_key, None)
}

/// As [`on_record`], by the owner of a lease.
pub(super) fn on_record_of(env: &Env, host: &Host, lease: &Lease) -> Env {
    audited(env, host, &lease.run_key, Some(lease.clone()))
}

fn audited(env: &Env, host: &Host, run_key: &str, lease: Option<Lease>) -> Env {
    Env { audit: Arc::new(OnRecord { ledger: host.ledger.clone(), run_key: run_key.to_owned(), lease }), ..env.clone() }
}
