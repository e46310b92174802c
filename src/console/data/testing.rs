//! Worlds that tests look at: real ledgers and stores, left behind by a scenario that was played.

use std::path::PathBuf;
use std::sync::Arc;

use super::Source;
use crate::config::Config;
use crate::ledger::{EventRow, Ledger, RunFilter, RunRow};
use crate::operate::{play, scenario};
use crate::time::SystemClock;

/// A workspace in which a scenario was played to its end.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Plays a scenario, all of it.
    pub fn play(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = scenario::all().unwrap();
        let scenario = all.iter().find(|s| s.name == name).unwrap();
        play::play(scenario, &folder.path().join("w"), &mut |_| {}).unwrap();
        World { folder }
    }

    /// Plays a scenario until it has taken so many steps.
    pub fn play_until(name: &str, steps: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = scenario::all().unwrap();
        let scenario = all.iter().find(|s| s.name == name).unwrap();
        let mut player = play::Player::new(scenario, &folder.path().join("w")).unwrap();
        for _ in 0..steps {
            player.step().unwrap().unwrap();
        }
        World { folder }
    }

    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("w")
    }

    /// Where its views are read from.
    pub fn source(&self) -> Source {
        let config = Config::load(Some(&self.root()), &self.root(), &Default::default()).unwrap();
        let clock = Arc::new(SystemClock);
        let ledger = Ledger::open_read_only(&config.path("ledger"), clock.clone(), "tester").unwrap();
        let store = crate::operate::open::store(&config).unwrap();
        Source { ledger: Arc::new(ledger), store: Ok(Arc::new(store)), config: Arc::new(config), clock, then: None }
    }

    /// The run with the newest event, and its events.
    pub fn newest(&self) -> (Source, RunRow, Vec<EventRow>) {
        let source = self.source();
        let row = source.ledger.runs(&RunFilter { limit: Some(1), ..RunFilter::default() }).unwrap().remove(0);
        let events = source.ledger.events(&row.run_key, 0).unwrap();
        (source, row, events)
    }

    /// The run of that status, and its events.
    pub fn run(&self, status: crate::ledger::Status) -> (Source, RunRow, Vec<EventRow>) {
        let source = self.source();
        let row = source.ledger.runs(&RunFilter { status: Some(status), limit: Some(1) }).unwrap().remove(0);
        let events = source.ledger.events(&row.run_key, 0).unwrap();
        (source, row, events)
    }

    /// A file of the newest run's folder of that name below `<run>/ofs`.
    pub fn receipt(&self, folder: &str) -> PathBuf {
        let (_, row, _) = self.newest();
        let run = row.platform_run_id.unwrap();
        self.root().join("store").join(run).join("ofs").join(folder).join(format!("{}.json", row.run_key))
    }

    /// Removes the newest run's receipt (`None`), gives it other content, or forges it: `forged` changes its
    /// observation, `proof` its proof.
    pub fn damage(&self, folder: &str, content: Option<&str>) {
        let path = self.receipt(folder);
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let new = match content {
            None => return,
            Some("forged") => old.replacen("\"observation\":{", "\"observation\":{\"forged\":1,", 1),
            Some("proof") => old.replacen("\"proof\":{", "\"proof\":{\"forged\":1,", 1),
            Some(other) => other.to_owned(),
        };
        assert_ne!(new, old);
        std::fs::write(path, new).unwrap();
    }
}
