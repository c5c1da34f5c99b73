//! The command line, run as people and scripts run it.

use std::ffi::OsStr;
use std::process::Command;

use super::binary::rangedb;
use super::process::without_settings;

/// Exit code and output of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub notes: String,
}

/// Runs `rangedb` against these endpoints and waits for its end.
pub async fn run<S: AsRef<OsStr>>(endpoints: &str, arguments: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(rangedb());
    without_settings(&mut command);
    command.env("RANGEDB_ENDPOINTS", endpoints).args(arguments);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    let output = output.expect("the command line can be run");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        notes: text(output.stderr),
    }
}

impl Ran {
    /// Returns the output. Panics unless the command succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.code == 0, "the command failed: {self:?}");
        self.out
    }

    /// Returns the notes. Panics unless the command failed with this code and message, and printed
    /// nothing else.
    #[track_caller]
    pub fn failure(self, code: i32, said: &str) -> String {
        assert!(self.code == code, "not exit code {code}: {self:?}");
        assert!(self.out.is_empty(), "a failure that printed an answer: {self:?}");
        assert!(self.notes.contains(said), "{said:?} is not in {self:?}");
        self.notes
    }

    /// Success as a condition to wait for: the output, or the failure as the reason.
    pub fn succeeded(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.out) } else { Err(format!("{self:?}")) }
    }
}
