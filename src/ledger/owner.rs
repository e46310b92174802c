//! Who holds a lease: a process, told apart from a later one that was given the same pid.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A process that works on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// `<start>.<scope>`: clock ticks from boot to its start, and which boot and process namespace its
    /// pid counts in. Empty where the system tells neither.
    pub started: String,
}

/// What `/proc` says of a pid.
enum Process {
    Started(String),
    Gone,
    Hidden,
}

impl Owner {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        let started = match process("self") {
            Process::Started(ticks) => format!("{ticks}.{}", scope().unwrap_or_default()),
            Process::Gone | Process::Hidden => String::new(),
        };
        Owner { host: host(), pid, started }
    }

    /// Whether this process is alive, as far as this host can tell: `None` for a process of another
    /// host, another boot or container (their pids say nothing here), or one that is hidden from us.
    pub fn alive_here(&self) -> Option<bool> {
        if self.host != host() {
            return None;
        }
        let (ticks, owner_scope) = self.started.split_once('.').unwrap_or((&self.started, ""));
        if !owner_scope.is_empty() && scope().is_some_and(|here| here != owner_scope) {
            return None;
        }
        match process(&self.pid.to_string()) {
            Process::Started(_) if ticks.is_empty() => None,
            Process::Started(found) => Some(found == ticks),
            Process::Gone => Some(false),
            Process::Hidden => None,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} on {}", self.pid, self.host)
    }
}

/// The name of this host.
pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname")).ok();
    let name = name.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty());
    name.or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok()).unwrap_or_else(|| "localhost".into())
}

/// Which boot and which process namespace pids count in here.
fn scope() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let text = format!("{}{}", boot.trim(), namespace.display());
    Some(blake3::hash(text.as_bytes()).to_hex().chars().take(8).collect())
}

fn process(pid: &str) -> Process {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        // Where the first process cannot be seen, /proc is absent or hides processes of others.
        Err(e) if e.kind() == ErrorKind::NotFound && Path::new("/proc/1").exists() => return Process::Gone,
        // The process ended between opening and reading.
        Err(e) if e.raw_os_error() == Some(3) => return Process::Gone,
        Err(_) => return Process::Hidden,
    };
    // The name, second and in brackets, may hold anything, so the fields are counted after it.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    match (fields.next(), fields.nth(18)) {
        // A zombie does no more work, though nobody has asked for its exit code yet.
        (Some("Z" | "X" | "x"), _) => Process::Gone,
        (Some(_), Some(ticks)) => Process::Started(ticks.to_owned()),
        _ => Process::Hidden,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_pid_with_another_start_is_not() {
        let me = Owner::current();
        assert_eq!(me.alive_here(), Some(true));
        let (ticks, scope) = me.started.split_once('.').unwrap();
        assert!(ticks.parse::<u64>().is_ok() && scope.len() == 8, "{}", me.started);
        assert_eq!(Owner { started: format!("1{ticks}.{scope}"), ..me.clone() }.alive_here(), Some(false));
        assert_eq!(Owner { pid: u32::MAX, ..me.clone() }.alive_here(), Some(false));
        assert_eq!(Owner { pid: u32::MAX, started: "x".into(), ..me.clone() }.alive_here(), Some(false));
    }

    #[test]
    fn of_another_host_boot_or_container_nothing_is_claimed() {
        let me = Owner::current();
        assert_eq!(Owner { host: "elsewhere".into(), pid: u32::MAX, ..me.clone() }.alive_here(), None);
        assert_eq!(Owner { pid: u32::MAX, started: "1.00000000".into(), ..me.clone() }.alive_here(), None);
        assert_eq!(Owner { started: String::new(), ..me }.alive_here(), None);
    }

    #[test]
    fn a_killed_process_is_dead_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let Process::Started(ticks) = process(&child.id().to_string()) else { panic!("the child runs") };
        let owner = Owner { host: host(), pid: child.id(), started: format!("{ticks}.{}", scope().unwrap()) };
        assert_eq!(owner.alive_here(), Some(true));
        child.kill().unwrap();
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            owner.alive_here() == Some(false)
        });
        assert!(gone);
        child.wait().unwrap();
        assert_eq!(owner.alive_here(), Some(false));
    }
}
