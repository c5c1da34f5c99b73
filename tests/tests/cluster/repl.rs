//! `rangedb repl` on real nodes: driven through pipes, as scripts do, and at a terminal, as people
//! do. Also the state that a session leaves behind when it ends or is ended.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::binary::rangedb;
use crate::support::cluster::Cluster;
use crate::support::process::without_settings;
use crate::support::wait::{SOON, check, until};

/// Lifetime of a lock without a heartbeat. A key that is free sooner was rolled back.
const LOCK_TTL: Duration = Duration::from_secs(10);

fn command(cluster: &Cluster) -> Command {
    let mut command = Command::new(rangedb());
    without_settings(&mut command);
    command.env("RANGEDB_ENDPOINTS", cluster.endpoints()).arg("repl");
    command.env("XDG_STATE_HOME", cluster.path().join("state"));
    // No timeout ends a command here.
    command.env("RANGEDB_TIMEOUT", "30s");
    command
}

/// A session with a pipe as input, which stays open, and files as outputs.
struct Session {
    process: Child,
    input: Option<ChildStdin>,
    out: PathBuf,
    notes: PathBuf,
}

impl Session {
    fn start(cluster: &Cluster) -> Session {
        Self::named(cluster, "repl")
    }

    fn named(cluster: &Cluster, name: &str) -> Session {
        Self::with(cluster, name, &[])
    }

    fn with(cluster: &Cluster, name: &str, flags: &[&str]) -> Session {
        let file = |kind: &str| cluster.path().join(format!("{name}.{kind}"));
        let (out, notes) = (file("out"), file("notes"));
        let mut process = command(cluster)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&notes).unwrap())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        Session { process, input, out, notes }
    }

    /// Types lines, and waits until the session has printed so many lines in all. Returns them.
    async fn answers(&mut self, typed: &str, lines: usize) -> Vec<String> {
        self.types(typed);
        until(&format!("{typed:?} is answered"), SOON, async || {
            let printed = fs::read_to_string(&self.out).unwrap();
            let answers: Vec<String> = printed.lines().map(str::to_owned).collect();
            check(answers.len() >= lines, format!("{printed:?} and {:?}", self.notes()))?;
            Ok::<_, String>(answers)
        })
        .await
    }

    fn types(&mut self, typed: &str) {
        self.input.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    }

    fn notes(&self) -> String {
        fs::read_to_string(&self.notes).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        until("the session ends", SOON, async || {
            self.process.try_wait().unwrap().ok_or("it goes on")
        })
        .await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_writes_in_a_transaction_is_seen_at_its_commit_and_not_before() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    let mut session = Session::start(&cluster);
    let typed = "begin\nput /user/1 {\"name\": \"John\"}\nput user/1 'x y'\nget user/1\n";
    let answers = session.answers(typed, 4).await;
    assert_eq!(answers[3], "x y");
    for key in ["/user/1", "user/1"] {
        cluster.cli(["get", key]).await.failure(3, "key not found");
    }
    let committed = session.answers("commit\n", 5).await;
    let rows = [client.get("/user/1").await, client.get("user/1").await];
    let [first, second] = rows.map(|row| row.unwrap().unwrap());
    assert_eq!(first.value, "{\"name\": \"John\"}");
    assert_eq!(first.mod_ts, second.mod_ts, "both at one timestamp");
    assert_eq!(committed[4], format!("OK (committed at {})", first.mod_ts.0));

    session.answers("frobnicate\nbegin\nput /user/2 x\nput user/2 x\n", 8).await;
    session.input = None;
    assert_eq!(session.ended().await.code(), Some(1), "a command failed");
    assert!(session.notes().contains("(the open transaction was rolled back"));
    assert!(client.get("/user/2").await.unwrap().is_none());
    assert!(client.get("user/2").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_stopped_gives_back_its_locks() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client().with_timeout(LOCK_TTL / 3);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut session = Session::start(&cluster);
        session.answers("begin --pessimistic\nput /lock 1\nget lock --for-update\n", 2).await;
        until("the last key is locked", SOON, async || {
            check(session.notes().contains("key not found: lock"), session.notes())
        })
        .await;
        session.signal(signal);
        assert_eq!(session.ended().await.code(), Some(1));
        assert!(session.notes().contains("(the open transaction was rolled back"), "{signal:?}");
        // A lock that is left would block both, and it lives for longer than the client's timeout.
        client.put("/lock", "mine").await.unwrap();
        client.delete("lock").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_killed_holds_up_others_no_longer_than_its_locks_live() {
    let cluster = Cluster::started(1).await;
    let mut session = Session::start(&cluster);
    session.answers("begin\nput /lock 1\nget lock --for-update\nbegin\n", 2).await;
    until("the key is locked", SOON, async || {
        check(session.notes().contains("key not found: lock"), session.notes())
    })
    .await;
    cluster.cli(["put", "lock", "2", "--timeout", "500ms"]).await.failure(1, "is locked by");
    session.process.kill().unwrap();
    session.process.wait().unwrap();
    cluster.cli(["put", "lock", "2", "--timeout", "30s"]).await.success();
    cluster.cli(["get", "/lock"]).await.failure(3, "key not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sessions_that_wait_for_each_other_one_is_told_to_begin_anew() {
    let cluster = Cluster::started(1).await;
    cluster.cli(["batch", "put", "/a", "1", "b", "2"]).await.success();
    let mut sessions = [Session::named(&cluster, "one"), Session::named(&cluster, "other")];
    for (session, first) in sessions.iter_mut().zip(["/a", "b"]) {
        session.answers(&format!("begin\nget {first} --for-update\n"), 2).await;
    }
    for (session, second) in sessions.iter_mut().zip(["b", "/a"]) {
        session.types(&format!("get {second} --for-update\n"));
    }
    let victim = until("a deadlock is found", SOON, async || {
        let told = |session: &Session| session.notes().contains("rolled back");
        sessions.iter().position(told).ok_or("nobody is told")
    })
    .await;
    let notes = sessions[victim].notes();
    assert!(notes.starts_with("error: ABORTED: deadlock: "), "{notes}");
    assert!(notes.contains("begin anew, and lock keys in the same order"), "{notes}");
    let survivor = &mut sessions[1 - victim];
    let answers = survivor.answers("put /a 3\ncommit\n", 5).await;
    assert!(answers[4].starts_with("OK (committed at "), "{answers:?} and {}", survivor.notes());
    assert_eq!(survivor.notes(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_held_up_says_what_it_spent_its_time_on_if_asked() {
    let cluster = Cluster::started(1).await;
    cluster.cli(["put", "/a", "1"]).await.success();
    let mut holder = Session::named(&cluster, "holder");
    holder.answers("begin\nget /a --for-update\n", 2).await;
    let mut slow = Session::with(&cluster, "slow", &["--slow-transaction", "100ms"]);
    let typed = "begin --lock-wait 300ms\nget /a --for-update\nput b 1\nrange /a /b\ncommit\n";
    slow.answers(typed, 3).await;
    until("the slow transaction is told", SOON, async || {
        let told = slow.notes();
        check(told.contains("a slow transaction") && told.contains("locks="), told)
    })
    .await;
    assert!(!holder.notes().contains("slow"), "{}", holder.notes());
}

/// A session at a terminal, seen from the terminal's other end.
struct Terminal {
    process: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(cluster: &Cluster) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let end = || Stdio::from(File::options().read(true).write(true).open(&name).unwrap());
        let mut command = command(cluster);
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let process = command.spawn().unwrap();
        // The command has the session's end of the terminal open, too.
        drop(command);
        let keyboard = File::from(keyboard);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        // Ends when nobody has the other end open any more.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                shown.lock().extend(&bytes[..count]);
            }
        });
        Terminal { process, keyboard, screen }
    }

    /// Types keys, and waits until the screen has shown a text since. Returns all that it has shown
    /// since.
    async fn shows(&mut self, typed: &str, shown: &str) -> String {
        let before = self.screen.lock().len();
        self.keyboard.write_all(typed.as_bytes()).unwrap();
        until(&format!("{shown:?} after {typed:?}"), SOON, async || {
            let screen = self.screen.lock();
            let since = String::from_utf8_lossy(&screen[before..]).into_owned();
            check(since.contains(shown), format!("{since:?}"))?;
            Ok::<_, String>(since)
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_there_is_a_prompt_a_history_and_a_way_out_of_a_line() {
    let cluster = Cluster::started(1).await;
    let mut terminal = Terminal::start(&cluster);
    terminal.shows("", "rangedb> ").await;
    let begun = terminal.shows("begin\r", ")> ").await;
    let (_, prompt) = begun.rsplit_once("rangedb(txn:").expect("a prompt with the transaction");
    let id = prompt.split_once(')').unwrap().0;
    assert!(id.len() == 8 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{begun:?}");
    assert!(begun.contains(&format!("{id})\r\n")), "the answer names it too: {begun:?}");

    terminal.shows("put /typed 1\r", "OK (not committed yet)").await;
    terminal.shows("frobnicate\r", "error: unrecognized").await;
    terminal.shows("put /never 1\x03", "rangedb(txn:").await;
    terminal.shows("get /typed\r", "1\r\n").await;
    terminal.shows("get /never\r", "key not found: /never").await;
    terminal.shows("history\r", "put /typed 1\r\n").await;
    terminal.shows("\x04", "(the open transaction was rolled back").await;
    let ended = until("the session ends", SOON, async || {
        terminal.process.try_wait().unwrap().ok_or("it goes on")
    });
    assert_eq!(ended.await.code(), Some(0), "errors of a person are no failure");
    cluster.cli(["get", "/typed"]).await.failure(3, "key not found");

    let history = cluster.path().join("state/rangedb/history");
    assert!(fs::read_to_string(&history).unwrap().contains("put /typed 1\n"));
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
}
