//! The run ledger: one SQLite file that says what every run is, who works on it and how it came there.
//!
//! Every transition is one `BEGIN IMMEDIATE` transaction that appends the event and changes the run
//! together; an owner's write also checks the epoch of its lease, so that a superseded process can
//! change nothing. Events are append-only, gapless and hash-chained (O021, O027, O029, O030).

mod events;
mod lease;
mod lines;
mod operator;
mod outbox;
mod owner;
mod query;
mod queue;
mod refs;
mod retry;
mod row;
mod schema;
mod standing;
mod submit;
#[cfg(test)]
mod testing;
mod transition;
mod watch;
mod workers;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use events::{AuditRow, EventRow};
pub use lease::{Lease, MAX_SAMPLES, SampleRow};
pub use lines::RunLine;
pub use operator::{MAX_TEXT, OperatorRequest, Order, Ordered};
pub use outbox::{Delivery, FAMILY, FactRow, SignalRow};
pub use owner::Owner;
pub use query::RunFilter;
pub use queue::{Ended, Head};
pub use refs::RefRow;
pub use retry::Retry;
pub use row::RunRow;
pub use standing::{Limits, Standing};
pub use submit::{NewRun, Submitted};
pub use transition::{BACKFILL_COMPLETED, BACKFILL_DECLARED, End, RUN_DONE, RUN_DONE_LATE};
pub use watch::{Access, Watch};

use crate::contract::ReasonCode;
use crate::json::{Tape, canonical};
use crate::text::file_uri;
use crate::time::{Clock, Instant};

/// How long a writer waits for another one.
const BUSY: Duration = Duration::from_secs(5);

/// How long a reader waits for the first commit of a ledger that is just being made.
const NEWBORN: Duration = Duration::from_secs(1);

/// A result of this room.
pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// Where a run stands (`interface` 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Waits to be started, or to be gone on with after an interruption.
    Queued,
    /// An owner with a lease works on it.
    Running,
    /// Ended well; a data set build has its manifest.
    Done,
    /// Refused or broken off; a new attempt is lawful where the reason says that it can help.
    Failed,
    /// Everything but the commit is there.
    PublishPending,
    /// Called off before its commit.
    Cancelled,
    /// Refused at admission; nothing started, and the request id may be used again.
    Rejected,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 7] =
        [Status::Queued, Status::Running, Status::Done, Status::Failed, Status::PublishPending, Status::Cancelled, Status::Rejected];

    /// The stable name, like `PUBLISH_PENDING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "QUEUED",
            Status::Running => "RUNNING",
            Status::Done => "DONE",
            Status::Failed => "FAILED",
            Status::PublishPending => "PUBLISH_PENDING",
            Status::Cancelled => "CANCELLED",
            Status::Rejected => "REJECTED",
        }
    }

    /// The status with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What an attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionMode {
    /// Not started yet.
    None,
    /// The whole corridor.
    Full,
    /// The commit alone; never counts as a full attempt (O025).
    PublishOnly,
}

impl ExecutionMode {
    /// The stable name, like `PUBLISH_ONLY`.
    pub fn as_str(self) -> &'static str {
        match self {
            ExecutionMode::None => "NONE",
            ExecutionMode::Full => "FULL",
            ExecutionMode::PublishOnly => "PUBLISH_ONLY",
        }
    }

    /// The mode with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [ExecutionMode::None, ExecutionMode::Full, ExecutionMode::PublishOnly].into_iter().find(|m| m.as_str() == name)
    }
}

impl fmt::Display for ExecutionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ExecutionMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why the ledger did not do as asked. Whatever it is, nothing changed beyond what the variant says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened, read or written: nothing can be recorded, so nothing goes on.
    #[error("the ledger cannot be used: {0}")]
    Io(String),
    /// The file is no ledger, or its content contradicts itself.
    #[error("the ledger is damaged: {0}")]
    Corrupt(String),
    /// A file that was made, but whose maker was killed before its first commit: no ledger yet.
    #[error("the ledger is an empty file; the next command that writes makes it whole")]
    Unborn,
    /// No run has this key.
    #[error("the ledger holds no run {0}")]
    NotFound(String),
    /// The state of the run does not allow the action.
    #[error("run {run_key} is {from}, which does not allow {action}; legal now: {}", legal.join(", "))]
    InvalidTransition {
        /// The run.
        run_key: String,
        /// Its state, unchanged.
        from: Status,
        /// What was asked for.
        action: String,
        /// The operator actions that are legal instead.
        legal: Vec<&'static str>,
    },
    /// Another owner took the run over, or it was ended; the caller has to stop.
    #[error("the lease on run {run_key} is lost")]
    LeaseLost {
        /// The run.
        run_key: String,
    },
    /// A live owner works on the run.
    #[error("busy: {owner} holds the lease until {expires}")]
    Busy {
        /// Who.
        owner: Owner,
        /// Until when, unless it renews.
        expires: Instant,
    },
    /// An operator has asked the owner to end the run; nothing more is begun.
    #[error("{0}")]
    CalledOff(Box<OperatorRequest>),
    /// The publish-only retries are used up; an event says so.
    #[error("run {run_key} has used up its {attempts} publish-only retries")]
    Exhausted {
        /// The run.
        run_key: String,
        /// How many there were.
        attempts: u32,
    },
    /// A publish-only retry of a run that does not wait for its publication; an event says so.
    #[error("run {run_key} is {status}, so there is no publication to retry")]
    NotPending {
        /// The run.
        run_key: String,
        /// Its state.
        status: Status,
    },
    /// The system gives no thread that would keep a lease or a worker alive, so none is begun.
    #[error("no thread to keep a lease alive: {0}")]
    NoHeartbeat(String),
    /// The ledger was opened for reading.
    #[error("the ledger was opened read-only")]
    ReadOnly,
    /// A call that no correct caller makes, such as a data set that is done without a manifest.
    #[error("the ledger was misused: {0}")]
    Misuse(String),
}

impl LedgerError {
    /// The reason code.
    pub fn code(&self) -> ReasonCode {
        match self {
            LedgerError::Io(_) | LedgerError::ReadOnly => ReasonCode::LedgerIo,
            LedgerError::Corrupt(_) | LedgerError::Unborn => ReasonCode::LedgerCorrupt,
            LedgerError::NotFound(_) => ReasonCode::RunNotFound,
            LedgerError::InvalidTransition { .. } => ReasonCode::InvalidTransition,
            LedgerError::LeaseLost { .. } => ReasonCode::LeaseLost,
            LedgerError::Busy { .. } => ReasonCode::RunBusy,
            LedgerError::CalledOff(request) => request.action.reason(),
            LedgerError::Exhausted { .. } => ReasonCode::PublishRetryExhausted,
            LedgerError::NotPending { .. } => ReasonCode::RetryNotPending,
            LedgerError::NoHeartbeat(_) => ReasonCode::ThreadUnavailable,
            LedgerError::Misuse(_) => ReasonCode::InternalError,
        }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match (error.sqlite_error_code(), &error) {
            (Some(ErrorCode::ReadOnly), _) => LedgerError::ReadOnly,
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _) => LedgerError::Corrupt(error.to_string()),
            (Some(ErrorCode::ConstraintViolation), _) => LedgerError::Misuse(error.to_string()),
            (Some(ErrorCode::DatabaseBusy), _) => LedgerError::Io("another process kept it locked for more than 5 seconds".into()),
            // The tables are ours but hold what we never write.
            (_, E::InvalidColumnType(..) | E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::Utf8Error(..)) => {
                LedgerError::Corrupt(error.to_string())
            }
            _ => LedgerError::Io(error.to_string()),
        }
    }
}

/// An open ledger. Threads may share it; processes open one each.
#[derive(Debug)]
pub struct Ledger {
    conn: Mutex<Connection>,
    clock: Arc<dyn Clock>,
    actor: String,
    host: String,
    read_only: bool,
    immutable: bool,
    watch: Option<Arc<dyn Watch>>,
}

impl Ledger {
    /// Opens the ledger for writing, making folder and file where they are missing.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, and `ReadOnly` where the file may be read but not written.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, actor: &str) -> Result<Self> {
        let at = |e: LedgerError| e.at(path);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| LedgerError::Io(e.to_string()).at(folder))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags).map_err(|e| at(e.into()))?;
        Self::prepare(&mut conn).map_err(at)?;
        Ok(Self::over(conn, clock, actor))
    }

    fn prepare(conn: &mut Connection) -> Result<()> {
        conn.busy_timeout(BUSY)?;
        // Asked before anything is set: a file of something else keeps its bytes.
        schema::version(conn)?;
        // SQLite opens a write-protected file for reading without a word.
        if conn.is_readonly("main")? {
            return Err(LedgerError::ReadOnly);
        }
        wal(conn)?;
        conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;")?;
        schema::migrate(conn)
    }

    fn over(conn: Connection, clock: Arc<dyn Clock>, actor: &str) -> Self {
        Ledger {
            conn: Mutex::new(conn),
            clock,
            actor: actor.to_owned(),
            host: owner::host(),
            read_only: false,
            immutable: false,
            watch: None,
        }
    }

    /// Opens an existing ledger for reading: as a live reader, else, where SQLite can make no shared
    /// memory beside the file (a read-only medium), as an unchanging file, see [`Ledger::immutable`].
    ///
    /// # Errors
    /// `Io` also where there is no file, `Corrupt`.
    pub fn open_read_only(path: &Path, clock: Arc<dyn Clock>, actor: &str) -> Result<Self> {
        let at = |e: LedgerError| e.at(path);
        std::fs::metadata(path).map_err(|e| at(LedgerError::Io(e.to_string())))?;
        let (conn, immutable) = match reader(path, "mode=ro") {
            Ok(conn) => (conn, false),
            Err(e) if needs_immutable(&e) => (reader(path, "mode=ro&immutable=1").map_err(|e| at(e.into()))?, true),
            Err(e) => return Err(at(e.into())),
        };
        // The file is there before its first commit is: whoever is just making it is given a moment.
        let began = std::time::Instant::now();
        while !immutable && began.elapsed() < NEWBORN && schema::version(&conn).map_err(at)? == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        schema::readable(&conn).map_err(at)?;
        Ok(Ledger { read_only: true, immutable, ..Self::over(conn, clock, actor) })
    }

    /// Opens an existing ledger for reading without making a file beside it: as a live reader where another
    /// process has it open, else as an unchanging file.
    ///
    /// # Errors
    /// As of [`Ledger::open_read_only`].
    pub fn open_untouched(path: &Path, clock: Arc<dyn Clock>, actor: &str) -> Result<Self> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        if Path::new(&wal).exists() {
            return Self::open_read_only(path, clock, actor);
        }
        let at = |e: LedgerError| e.at(path);
        let conn = reader(path, "mode=ro&immutable=1").map_err(|e| at(e.into()))?;
        schema::readable(&conn).map_err(at)?;
        Ok(Ledger { read_only: true, immutable: true, ..Self::over(conn, clock, actor) })
    }

    /// Whether this reader sees the file as it was when opened and must be opened again to see changes.
    pub fn immutable(&self) -> bool {
        self.immutable
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// A panic elsewhere rolled its transaction back, so the connection is good to go on with.
    fn conn(&self) -> MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of `f` or nothing of it, with no other writer in between.
    fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        if self.read_only {
            return Err(LedgerError::ReadOnly);
        }
        self.watched(Access::Write, || {
            let mut conn = self.conn();
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let out = f(&tx)?;
            tx.commit()?;
            Ok(out)
        })
    }

    /// All of `f` over one state of the file.
    fn read<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.watched(Access::Read, || {
            let mut conn = self.conn();
            let tx = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
            f(&tx)
        })
    }

    /// One question to the file.
    fn ask<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.watched(Access::Read, || f(&self.conn()))
    }
}

impl LedgerError {
    /// The same error, naming the file.
    fn at(self, path: &Path) -> Self {
        match self {
            LedgerError::Io(text) => LedgerError::Io(format!("{}: {text}", path.display())),
            LedgerError::Corrupt(text) => LedgerError::Corrupt(format!("{}: {text}", path.display())),
            other => other,
        }
    }
}

/// Sets the journal mode. Where several processes do so to a new file at once, SQLite answers "busy"
/// without waiting, as each might wait for the other; so the waiting is done here.
fn wal(conn: &Connection) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..BUSY.as_millis() / PAUSE.as_millis() {
        match conn.execute_batch("PRAGMA journal_mode = WAL") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => std::thread::sleep(PAUSE),
            other => return Ok(other?),
        }
    }
    Ok(conn.execute_batch("PRAGMA journal_mode = WAL")?)
}

fn reader(path: &Path, options: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(format!("{}?{options}", file_uri(path)), flags)?;
    conn.busy_timeout(BUSY)?;
    // Opening reads nothing; what the file is shows with the first read.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

fn needs_immutable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

/// Canonical text to store. What could not be read back is refused here rather than found later.
fn encode(value: &Value) -> Result<String> {
    let text = canonical(value);
    match Tape::new().parse(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(e) => Err(LedgerError::Misuse(format!("a document that cannot be stored: {e}"))),
    }
}

/// Reads stored text. Not with `serde_json` itself, whose number type gives one key a hidden meaning.
fn decode(text: &str) -> Result<Value> {
    let mut tape = Tape::new();
    match tape.parse(text.as_bytes()) {
        Ok(doc) => Ok(doc.root().to_value()),
        Err(e) => Err(LedgerError::Corrupt(format!("stored JSON does not parse: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use serde_json::json;

    #[test]
    fn names_round_trip_and_every_error_has_its_code() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(json!(status), json!(status.to_string()));
        }
        for mode in [ExecutionMode::None, ExecutionMode::Full, ExecutionMode::PublishOnly] {
            assert_eq!(ExecutionMode::parse(mode.as_str()), Some(mode));
        }
        let key = || "k".to_owned();
        for (error, code) in [
            (LedgerError::Io(key()), "LEDGER_IO"),
            (LedgerError::ReadOnly, "LEDGER_IO"),
            (LedgerError::Corrupt(key()), "LEDGER_CORRUPT"),
            (LedgerError::NotFound(key()), "RUN_NOT_FOUND"),
            (LedgerError::LeaseLost { run_key: key() }, "LEASE_LOST"),
            (LedgerError::Busy { owner: Owner::current(), expires: Instant(0) }, "RUN_BUSY"),
            (LedgerError::NoHeartbeat(key()), "THREAD_UNAVAILABLE"),
            (LedgerError::Exhausted { run_key: key(), attempts: 3 }, "PUBLISH_RETRY_EXHAUSTED"),
            (LedgerError::NotPending { run_key: key(), status: Status::Done }, "RETRY_NOT_PENDING"),
        ] {
            assert_eq!(error.code().as_str(), code);
        }
    }

    #[test]
    fn opening_makes_folders_and_keeps_what_was_written() {
        let home = Home::new();
        home.ledger().submit(&new_run("a")).unwrap();
        let again = home.ledger();
        assert_eq!(again.run("a").unwrap().unwrap().status, Status::Queued);
        assert!(!again.read_only() && !again.immutable());
    }

    #[test]
    fn many_may_open_a_new_ledger_at_once() {
        for _ in 0..10 {
            let home = Home::new();
            let submit = &|i: usize| home.ledger().submit(&new_run(&format!("r{i}"))).unwrap();
            std::thread::scope(|scope| {
                for i in 0..8 {
                    scope.spawn(move || submit(i));
                }
            });
            assert_eq!(home.ledger().runs(&RunFilter::default()).unwrap().len(), 8);
        }
    }

    #[test]
    fn a_reader_sees_changes_and_can_make_none() {
        let home = Home::new();
        assert!(matches!(home.open_read_only().unwrap_err(), LedgerError::Io(text) if text.contains("ledger.db")));
        assert!(!home.file.exists());
        let writer = home.ledger();
        let reader = home.open_read_only().unwrap();
        assert!(reader.read_only() && !reader.immutable());
        assert!(reader.runs(&RunFilter::default()).unwrap().is_empty());
        let lease = running(&writer, "a");
        assert_eq!(reader.run("a").unwrap().unwrap().status, Status::Running);
        let detail = json!({});
        assert_eq!(reader.submit(&new_run("b")).unwrap_err(), LedgerError::ReadOnly);
        assert_eq!(reader.start("a", ExecutionMode::Full, &Owner::current(), 1).unwrap_err(), LedgerError::ReadOnly);
        assert_eq!(reader.heartbeat(&lease, 1, None).unwrap_err(), LedgerError::ReadOnly);
        assert_eq!(reader.finish(&lease, &failed("SOURCE_IO")).unwrap_err(), LedgerError::ReadOnly);
        assert_eq!(reader.audit("x", None, &detail).unwrap_err(), LedgerError::ReadOnly);
        // The connection itself refuses too, so no path around the check above exists.
        let error: LedgerError = reader.conn().execute("DELETE FROM progress_samples", []).unwrap_err().into();
        assert_eq!(error, LedgerError::ReadOnly);
    }

    #[test]
    fn a_reader_finds_its_file_under_any_name_and_reads_a_copy_without_its_companions() {
        let home = Home::new();
        running(&home.ledger(), "a");
        let copy = home.file.with_file_name("a ?#%é&mode=rwc.db");
        std::fs::copy(&home.file, &copy).unwrap();
        for options in ["mode=ro", "mode=ro&immutable=1"] {
            let conn = reader(&copy, options).unwrap();
            schema::readable(&conn).unwrap();
            assert_eq!(conn.query_row("SELECT count(*) FROM runs", [], |r| r.get::<_, i64>(0)).unwrap(), 1, "{options}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn where_no_shared_memory_can_be_made_the_file_is_read_as_it_stands() {
        let home = Home::new();
        running(&home.ledger(), "a");
        let copy = home.file.with_file_name("copy.db");
        std::fs::copy(&home.file, &copy).unwrap();
        // A companion file that cannot be made, as on a read-only medium, but for root as well.
        std::os::unix::fs::symlink("/nowhere/shm", home.file.with_file_name("copy.db-shm")).unwrap();
        let reader = Ledger::open_read_only(&copy, home.clock.clone(), ACTOR).unwrap();
        assert!(reader.immutable());
        assert_eq!(reader.run("a").unwrap().unwrap().status, Status::Running);
        assert_eq!(reader.verify_chain("a").unwrap(), [""; 0]);
        assert_eq!(reader.submit(&new_run("b")).unwrap_err(), LedgerError::ReadOnly);
    }

    #[test]
    fn documents_are_read_back_as_they_were_or_refused_at_once() {
        let hostile = json!({"$serde_json::private::Number": "1", "text": "\u{0}\u{202e}\"\\", "n": crate::json::number("1.50")});
        assert_eq!(decode(&encode(&hostile).unwrap()).unwrap(), hostile);
        let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
        assert!(matches!(encode(&deep), Err(LedgerError::Misuse(_))));
        assert!(matches!(decode("{"), Err(LedgerError::Corrupt(_))));
    }

    #[test]
    fn a_ledger_can_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Ledger>();
    }
}
