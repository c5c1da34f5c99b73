//! A process that is signalled by its id and ends when its value is dropped.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{check, until};

/// A running process, or one that has ended.
pub struct Process(Child);

impl Process {
    /// Starts a process without the settings of RangeDB in this process's environment.
    pub fn start(command: &mut Command) -> Process {
        without_settings(command);
        let started = command.stdin(Stdio::null()).spawn();
        Process(started.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child can be waited for")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {pid:?}: {error}"));
    }

    /// Kills the process with `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
    }

    /// Stops the process in the middle of its work. Returns once none of its threads runs.
    pub async fn freeze(&self) {
        self.signal(Signal::STOP);
        until("a stopped process stands still", Duration::from_secs(10), async || {
            let state = self.state();
            check(state == 'T', format!("its state is {state}"))
        })
        .await;
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Returns the peak memory of the process in bytes; none once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        peak_memory(self.id())
    }

    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        until("the process ends", within, async || self.exit_status().ok_or("it runs")).await
    }

    fn state(&self) -> char {
        let stat = std::fs::read_to_string(self.file("stat")).expect("a process has a state");
        // The name before the state stands in parentheses and may hold anything.
        let after_name = stat.rsplit_once(") ").expect("a name in parentheses").1;
        after_name.chars().next().expect("a letter for the state")
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the peak memory of a process in bytes; none if it has ended.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Removes settings of RangeDB from a command's environment.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RANGEDB_") {
            command.env_remove(name);
        }
    }
}
