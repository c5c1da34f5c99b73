//! One node: a process, its addresses, data directory and log. A restart uses the same command
//! line.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::binary::rangedb;
use super::http;
use super::ports::free_address;
use super::process::Process;
use super::wait::{SOON, check, until};

/// Time that a node may take to stop: handing over its leaderships is bounded by this.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Lines of the log that a failed test prints.
const LOG_LINES_SHOWN: usize = 30;

pub struct Node {
    pub name: String,
    pub peer: String,
    pub client: String,
    pub status: String,
    pub data: PathBuf,
    /// Flags beside addresses and data directory.
    pub flags: Vec<String>,
    /// Program through which the node is started, and its arguments. The program must become the
    /// node.
    pub through: Vec<String>,
    /// Target of standard error in place of the log.
    pub standard_error: Option<OwnedFd>,
    log: PathBuf,
    process: Option<Process>,
}

impl Node {
    /// Describes a node with its files below `directory`, on ports of its own. Not started.
    pub fn new(directory: &Path, name: &str) -> Node {
        Node {
            name: name.to_owned(),
            peer: free_address(),
            client: free_address(),
            status: free_address(),
            data: directory.join(name),
            flags: Vec::new(),
            through: Vec::new(),
            standard_error: None,
            log: directory.join(format!("{name}.log")),
            process: None,
        }
    }

    pub fn with_flags<S: Into<String>>(mut self, flags: impl IntoIterator<Item = S>) -> Node {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.expect("a test can write a log");
        let mut command = self.command();
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        if let Some(other) = &self.standard_error {
            command.stderr(other.try_clone().expect("a descriptor can be shared"));
        }
        self.process = Some(Process::start(&mut command));
    }

    fn command(&self) -> Command {
        let program = rangedb();
        let mut words = self.through.iter().map(Into::into).chain([program.into_os_string()]);
        let mut command = Command::new(words.next().expect("the program itself, at least"));
        command.args(words).arg("server");
        command.args(["--peer-address", &self.peer, "--client-address", &self.client]);
        command.args(["--status-address", &self.status]).arg("--data-dir").arg(&self.data);
        command.args(&self.flags);
        command
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Kills the node with `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name)).kill();
    }

    /// Asks the node to stop and waits for its end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process().signal(Signal::TERM);
        let status = self.process().ended(STOP_MAX).await;
        self.process = None;
        status
    }

    /// Waits for the end of a node that must end by itself. Returns its status and its log from the
    /// offset `from` on.
    pub async fn ended(&mut self, from: usize) -> (ExitStatus, String) {
        let status = self.process().ended(SOON).await;
        self.process = None;
        (status, self.log_text()[from..].to_owned())
    }

    /// Starts a node that must refuse to run. Returns its log of this start.
    pub async fn refuses(&mut self) -> String {
        let from = self.log_text().len();
        self.start();
        let (status, said) = self.ended(from).await;
        let code = status.code();
        assert!(matches!(code, Some(1 | 2)), "{} ended with {status} and said:\n{said}", self.name);
        said
    }

    /// Deletes the data directory.
    pub fn wipe(&mut self) {
        assert!(self.process.is_none(), "{} still runs", self.name);
        std::fs::remove_dir_all(&self.data).expect("a data directory can be removed");
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub async fn http(&self, path: &str) -> Result<http::Answer, String> {
        http::get(&self.status, path).await
    }

    /// Reads one metric of `/metrics`, summed over its labels.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        Ok(http::sum(&http::samples(&self.http("/metrics").await?.body), name))
    }

    /// Reads one sample of `/metrics` by its name with labels, as it is printed there.
    pub async fn sample(&self, name: &str) -> Result<f64, String> {
        let samples = http::samples(&self.http("/metrics").await?.body);
        samples.get(name).copied().ok_or(format!("{} has no {name}", self.name))
    }

    /// Waits until `/readyz` says that the node can serve.
    pub async fn ready(&self) {
        self.readiness(200, "ready").await;
    }

    /// Waits until `/readyz` says that the node cannot serve, for this reason.
    pub async fn not_ready(&self, reason: &str) {
        self.readiness(503, reason).await;
    }

    async fn readiness(&self, code: u16, words: &str) {
        until(&format!("/readyz of {} answers {code} {words:?}", self.name), SOON, async || {
            let answer = self.http("/readyz").await?;
            let as_wanted = answer.code == code && answer.body.contains(words);
            check(as_wanted, format!("{} {}", answer.code, answer.body))
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let text = format!("---- the end of the log of {}\n{}\n", self.name, shown.join("\n"));
        // An error here cannot be reported anywhere.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
