//! `rangedb txn ...`: a transaction over several runs of the command line.
//!
//! Between runs, a session file keeps the transaction: its reads, its writes and the list of its
//! locks. A run reads the file, executes one command, writes the file, and only then prints the
//! answer. Servers keep nothing of the transaction but its locks. A lock expires after ten seconds
//! without a heartbeat, and between runs nobody sends heartbeats. `rangedb repl` does.
//!
//! A scan may have more rows than fit into memory, so its rows are printed as they arrive:
//!
//! 1. Before the first row, the file records that the transaction has read the whole span.
//! 2. After the last row, the file records the part that the scan did read.
//!
//! If a run is cut off in between, the commit validates all that somebody may have seen.
//!
//! Before a run asks for the commit, it marks the file. If the answer is lost, or the run dies, the
//! mark stays. No later run treats a marked transaction as open: a second commit could write it
//! twice.

mod session_file;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rangedb_client::{Error, SuspendedTransaction, Transaction};
use serde_json::{Value, json};

use super::{delete, get, put, range};
use crate::args::Output;
use crate::failure::Failure;
use crate::json;
use crate::session::{Session, Streams};
use crate::table;
use crate::transaction::{self, Begin};
use crate::utc;
use session_file::{Kept, SessionFile, Sessions, State};

/// Run a transaction over several commands
///
/// `begin` opens it, the other commands belong to it, and `commit` makes all that it wrote visible
/// at once. In between it is kept in a file that only its user can read. Locks live for ten seconds
/// after each command; `rangedb repl` keeps them for as long as it runs.
#[derive(Debug, Args)]
pub struct Txn {
    /// A transaction beside the current one: any name for `begin`, and for the others that name or
    /// the id that `begin` printed
    #[arg(long, global = true, value_name = "ID", value_parser = session_file::parse_name)]
    id: Option<String>,
    /// File that keeps the current transaction; others lie beside it
    ///
    /// By default `rangedb/transaction` below $XDG_STATE_HOME or ~/.local/state.
    #[arg(
        long = "txn-file",
        global = true,
        env = "RANGEDB_TXN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: TxnCommand,
}

#[derive(Debug, Subcommand)]
enum TxnCommand {
    Begin(Begin),
    #[command(flatten)]
    OnKeys(OnKeys),
    /// Make everything visible that the transaction wrote, or nothing
    ///
    /// Prints the timestamp of that. Whatever it ends in, the transaction is over.
    Commit,
    /// Forget what the transaction wrote, and give back its locks
    Rollback,
    /// Show the transaction
    Status,
    /// List the transactions that are open
    List,
}

#[derive(Debug, Subcommand)]
enum OnKeys {
    Put(put::Put),
    Get(get::TransactionGet),
    Delete(delete::Delete),
    Range(range::Range),
}

impl Txn {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let sessions = Sessions::new(self.file)?;
        let id = self.id.as_deref();
        let result = match self.command {
            TxnCommand::Begin(begin) => open(&begin, &sessions, id, session).await,
            TxnCommand::OnKeys(command) => {
                let file = SessionFile::lock(sessions.find(id)?).await?;
                on_keys(command, &file, session).await
            }
            TxnCommand::Commit => {
                let file = SessionFile::lock(sessions.find(id)?).await?;
                commit(&file, session).await
            }
            TxnCommand::Rollback => {
                let file = SessionFile::lock(sessions.find(id)?).await?;
                roll_back(&file, session).await
            }
            TxnCommand::Status => {
                let file = SessionFile::lock(sessions.find(id)?).await?;
                status(&file.kept()?, id, session)
            }
            TxnCommand::List => list(&sessions, session),
        };
        // The cluster has already answered the command. Waits until the client has removed the
        // remaining locks: they would delay the next readers of the keys.
        session.client.finish().await;
        result
    }
}

async fn open(
    begin: &Begin,
    sessions: &Sessions,
    name: Option<&str>,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let file = SessionFile::lock(sessions.path(name)).await?;
    if let Some(kept) = file.read()? {
        let id = kept.transaction.id();
        return Err(Failure::State(format!(
            "transaction {id} is open: `txn commit` or `txn rollback` ends it, and \
             `txn begin --id NAME` opens another one beside it"
        )));
    }
    let transaction = begin.open(session).await?;
    let kept = file.put_away(transaction).await?;
    Ok(transaction::print_begun(session, &kept.id(), kept.start_ts())?)
}

async fn on_keys(
    command: OnKeys,
    file: &SessionFile,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let kept = file.open()?;
    let ahead = match &command {
        OnKeys::Range(range) => Some(kept.clone().with_scan(&range.options())?),
        _ => None,
    };
    session.transaction = Some(session.client.resume(kept).await?);
    if let Some(transaction) = ahead {
        file.write(&Kept { state: State::Open, transaction })?;
    }
    let mut answer = Vec::new();
    let result = match command {
        // Prints its rows at once: they may be more than fits into memory.
        OnKeys::Range(range) => range.run(session).await,
        command => run_aside(command, session, &mut answer).await,
    };
    if let Err(failure) = &result
        && transaction::end_if_lost(session, failure).await
    {
        file.remove()?;
        return result;
    }
    file.put_away(session.take_transaction()?).await?;
    session.streams.out.write_all(&answer)?;
    result
}

/// Runs a command and keeps back its answer. The answer is true only once the transaction is in its
/// file.
async fn run_aside(
    command: OnKeys,
    session: &mut Session<'_>,
    answer: &mut Vec<u8>,
) -> Result<(), Failure> {
    let streams = &mut session.streams;
    let mut aside = Session {
        client: session.client.clone(),
        output: session.output,
        transaction: session.transaction.take(),
        streams: Streams {
            input: std::mem::replace(&mut streams.input, Box::new(std::io::empty())),
            out: answer,
            notes: &mut *streams.notes,
            interactive: streams.interactive,
        },
    };
    let result = match command {
        OnKeys::Put(put) => put.run(&mut aside).await,
        OnKeys::Get(get) => get.run(&mut aside).await,
        OnKeys::Delete(delete) => delete.run(&mut aside).await,
        OnKeys::Range(range) => range.run(&mut aside).await,
    };
    session.transaction = aside.transaction.take();
    result
}

async fn commit(file: &SessionFile, session: &mut Session<'_>) -> Result<(), Failure> {
    let kept = file.open()?;
    session.transaction = Some(session.client.resume(kept.clone()).await?);
    file.write(&Kept { state: State::Committing, transaction: kept })?;
    match transaction::commit(session).await {
        Err(Failure::Request(error @ Error::Undetermined(_))) => {
            Err(Failure::PerhapsCommitted(error))
        }
        result => {
            file.remove()?;
            result
        }
    }
}

async fn roll_back(file: &SessionFile, session: &mut Session<'_>) -> Result<(), Failure> {
    let Kept { state, transaction } = file.kept()?;
    let id = transaction.id();
    if transaction.locked().next().is_some() {
        // If the transaction is committed after all, its primary says so, and the rollback undoes
        // nothing.
        session.client.resume(transaction).await?.rollback().await?;
    }
    file.remove()?;
    match state {
        State::Open => Ok(transaction::print_rolled_back(session, &id)?),
        State::Committing => {
            let out = &mut *session.streams.out;
            match session.output {
                Output::Table => writeln!(out, "OK (forgotten; it may have been committed)")?,
                Output::Json => json::print(out, &json!({ "forgotten": id }))?,
            }
            Ok(())
        }
    }
}

fn status(kept: &Kept, name: Option<&str>, session: &mut Session<'_>) -> Result<(), Failure> {
    let out = &mut *session.streams.out;
    if session.output == Output::Json {
        return Ok(json::print(out, &view(kept, name))?);
    }
    let transaction = &kept.transaction;
    let options = transaction.options();
    table::print_fields(
        out,
        [
            ("transaction", transaction.id()),
            ("state", kept.state.word().to_owned()),
            ("reads as of", utc::format(transaction.start_ts())),
            ("isolation", format!("{:?}", options.isolation).to_lowercase()),
            ("keys written", transaction.written().count().to_string()),
            ("keys locked", transaction.locked().count().to_string()),
            ("cluster id", format!("{:016x}", transaction.cluster_id())),
        ],
    )?;
    Ok(())
}

fn list(sessions: &Sessions, session: &mut Session<'_>) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (name, path) in sessions.all()? {
        // Reads without the lock: a run replaces the session file as a whole.
        let kept = match session_file::read(&path) {
            Ok(Some(kept)) => kept,
            Ok(None) => continue,
            Err(failure) => {
                session.streams.note(failure)?;
                continue;
            }
        };
        match session.output {
            Output::Json => json::print(session.streams.out, &view(&kept, name.as_deref()))?,
            Output::Table => rows.push(cells(&kept, name)),
        }
    }
    if session.output == Output::Table {
        let head = ["TRANSACTION", "NAME", "READS AS OF", "WRITTEN", "LOCKED", "STATE"];
        table::print(session.streams.out, head, rows)?;
    }
    Ok(())
}

fn cells(kept: &Kept, name: Option<String>) -> [String; 6] {
    let transaction = &kept.transaction;
    [
        transaction.id(),
        name.unwrap_or_else(|| "(current)".to_owned()),
        utc::format(transaction.start_ts()),
        transaction.written().count().to_string(),
        transaction.locked().count().to_string(),
        kept.state.word().to_owned(),
    ]
}

/// Shows a transaction as JSON.
fn view(kept: &Kept, name: Option<&str>) -> Value {
    let transaction: &SuspendedTransaction = &kept.transaction;
    let options = transaction.options();
    json!({
        "id": transaction.id(),
        "name": name,
        "state": kept.state.word(),
        "start_ts": transaction.start_ts().0,
        "isolation": format!("{:?}", options.isolation).to_lowercase(),
        "keys_written": transaction.written().count(),
        "keys_locked": transaction.locked().count(),
        "cluster_id": format!("{:016x}", transaction.cluster_id()),
    })
}

impl SessionFile {
    /// Returns the transaction. Fails if its commit was begun.
    fn open(&self) -> Result<SuspendedTransaction, Failure> {
        let Kept { state, transaction } = self.kept()?;
        match state {
            State::Open => Ok(transaction),
            State::Committing => Err(Failure::State(format!(
                "the commit of transaction {} was begun, and how it ended is not known: read what \
                 it wrote, then `txn rollback` forgets it",
                transaction.id()
            ))),
        }
    }

    fn kept(&self) -> Result<Kept, Failure> {
        self.read()?.ok_or_else(session_file::none_open)
    }

    async fn put_away(&self, transaction: Transaction) -> Result<SuspendedTransaction, Failure> {
        let transaction = transaction.suspend().await?;
        let kept = Kept { state: State::Open, transaction };
        self.write(&kept)?;
        Ok(kept.transaction)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::{fs, io};

    use rangedb_client::Client;
    use tempfile::TempDir;

    use crate::args;
    use crate::commands::Command;
    use crate::session::{Session, Streams};
    use crate::testing::{Cluster, Ran};

    /// Runs of the command line whose session files lie in one directory.
    struct Runs {
        cluster: Cluster,
        directory: TempDir,
    }

    impl Runs {
        fn new() -> Self {
            Runs { cluster: Cluster::new(), directory: tempfile::tempdir().unwrap() }
        }

        fn file(&self) -> String {
            self.directory.path().join("state/current").display().to_string()
        }

        fn txn<const N: usize>(&self, words: [&str; N]) -> Ran {
            let file = self.file();
            let line = ["txn", "--txn-file", &file].into_iter().chain(words);
            self.cluster.run(line.map(str::to_owned))
        }

        fn begin(&self) -> String {
            let begun = self.txn(["begin", "--output", "json"]);
            let begun: serde_json::Value = serde_json::from_slice(&begun.out).unwrap();
            begun["id"].as_str().unwrap().to_owned()
        }

        /// Returns the names of the files in the directory.
        fn left(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path().join("state")).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn runs_share_a_transaction_that_others_see_at_its_commit() {
        let runs = Runs::new();
        runs.cluster.set("/old", b"1");
        runs.begin();
        runs.txn(["put", "/a", "1"]).prints("OK (not committed yet)\n");
        runs.txn(["put", "/b", "-2"]).prints("OK (not committed yet)\n");
        runs.txn(["delete", "/old"]).prints("OK (not committed yet)\n");
        runs.txn(["get", "/a"]).prints("1\n");
        runs.txn(["get", "/old"]).fails(3, "key not found: /old");
        runs.txn(["range", "/", "0"]).prints("/a\t1\n/b\t-2\n");
        assert_eq!(runs.cluster.rows().len(), 1, "nobody else sees it");
        let committed = runs.txn(["commit"]);
        let rows = runs.cluster.rows();
        let commits: Vec<u64> = rows.values().map(|row| row.mod_ts).collect();
        committed.prints(&format!("OK (committed at {})\n", commits[0]));
        assert_eq!(commits, [commits[0]; 2]);
        assert!(runs.left().is_empty(), "{:?}", runs.left());
    }

    #[test]
    fn a_rollback_forgets_everything() {
        let runs = Runs::new();
        runs.begin();
        runs.txn(["put", "/a", "1"]);
        runs.txn(["rollback"]).prints("OK (rolled back)\n");
        assert!(runs.cluster.rows().is_empty() && runs.left().is_empty());
        runs.begin();
        runs.txn(["commit"]).prints("OK (nothing was written)\n");
    }

    #[test]
    fn without_a_transaction_every_command_says_how_to_open_one() {
        let runs = Runs::new();
        for words in
            [&["put", "/a", "1"][..], &["get", "/a"], &["commit"], &["rollback"], &["status"]]
        {
            let file = runs.file();
            let line = ["txn", "--txn-file", &file].into_iter().chain(words.iter().copied());
            runs.cluster.run(line.map(str::to_owned)).fails(
                1,
                "error: FAILED_PRECONDITION: no transaction is open: `txn begin` opens one",
            );
        }
        runs.txn(["put", "/a", "1", "--id", "b"])
            .fails(1, "error: FAILED_PRECONDITION: no transaction b is open: see `txn list`");
    }

    #[test]
    fn a_second_transaction_needs_a_name_and_is_found_by_name_or_id() {
        let runs = Runs::new();
        let current = runs.begin();
        let refused = runs.txn(["begin"]);
        refused.fails(1, &format!("error: FAILED_PRECONDITION: transaction {current} is open: "));
        let named = runs.txn(["begin", "--id", "other", "--output", "json"]);
        let named: serde_json::Value = serde_json::from_slice(&named.out).unwrap();
        let named = named["id"].as_str().unwrap();
        runs.txn(["put", "/a", "1", "--id", &current]).prints("OK (not committed yet)\n");
        runs.txn(["put", "/b", "2", "--id", "other"]).prints("OK (not committed yet)\n");
        runs.txn(["put", "/c", "3", "--id", named]).prints("OK (not committed yet)\n");
        let listed = String::from_utf8(runs.txn(["list"]).out).unwrap();
        let rows: Vec<Vec<&str>> =
            listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..2], [&current[..], "(current)"], "{listed}");
        assert_eq!(rows[1][..2], [named, "other"], "{listed}");
        assert_eq!(rows[1][3..], ["2", "0", "open"], "{listed}");
        runs.txn(["rollback"]).prints("OK (rolled back)\n");
        assert_eq!(runs.txn(["commit", "--id", "other"]).code, 0);
        let keys: Vec<_> = runs.cluster.rows().into_keys().collect();
        assert_eq!(keys, ["/b", "/c"]);
    }

    #[test]
    fn a_conflict_ends_the_transaction_and_says_to_begin_anew() {
        let runs = Runs::new();
        runs.cluster.set("/a", b"1");
        runs.begin();
        runs.txn(["get", "/a"]).prints("1\n");
        runs.txn(["put", "/b", "2"]);
        runs.cluster.set("/a", b"9");
        runs.txn(["get", "/a"]).prints("1\n");
        let refused = runs.txn(["commit"]);
        refused.fails(1, "error: ABORTED: key `/a` was written at ");
        assert!(refused.notes.contains("begin anew"), "{}", refused.notes);
        assert!(refused.notes.contains("nothing of it was written"), "{}", refused.notes);
        assert!(runs.cluster.value("/b").is_none() && runs.left().is_empty());
    }

    /// Output for rows. It keeps a copy of the session file from the moment of the first row.
    struct Witness {
        file: String,
        at_first_row: Option<Vec<u8>>,
    }

    impl io::Write for Witness {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.at_first_row.get_or_insert(fs::read(&self.file)?);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Runs {
        /// Scans everything with `--limit=1`, which reads two rows. Returns the session file as a
        /// run leaves it that is cut off at its first row.
        fn file_at_the_first_row_of_a_scan(&self) -> Vec<u8> {
            let words =
                ["rangedb", "txn", "--txn-file", &self.file(), "range", "", "", "--limit=1"];
            let cli = args::parse(words).unwrap();
            let Some(Command::Client(command)) = cli.command else { panic!("asks no cluster") };
            let net = Arc::new(self.cluster.clone());
            let client = Client::with_net(net, cli.globals.client_config()).unwrap();
            let (mut out, mut notes) =
                (Witness { file: self.file(), at_first_row: None }, Vec::new());
            let input = Box::new(io::empty());
            let streams = Streams { input, out: &mut out, notes: &mut notes, interactive: false };
            let mut session = Session::new(client, &cli.globals, streams);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(command.run(&mut session)).unwrap();
            out.at_first_row.expect("there is a row")
        }
    }

    #[test]
    fn what_a_scan_may_have_shown_is_validated_though_its_run_was_cut_off() {
        let runs = Runs::new();
        for key in ["/a", "/b", "/c"] {
            runs.cluster.set(key, b"1");
        }
        runs.begin();
        let cut_off = runs.file_at_the_first_row_of_a_scan();
        fs::write(runs.file(), cut_off).unwrap();
        runs.txn(["put", "/sum", "3"]);
        runs.cluster.set("/c", b"2");
        runs.txn(["commit"]).fails(1, "error: ABORTED: key `/c` was written at ");
        assert!(runs.cluster.value("/sum").is_none());
    }

    #[test]
    fn a_scan_that_came_to_its_end_is_validated_as_far_as_it_read() {
        let runs = Runs::new();
        for key in ["/a", "/b", "/c"] {
            runs.cluster.set(key, b"1");
        }
        for (changed, code) in [("/c", 0), ("/a", 1)] {
            runs.begin();
            runs.file_at_the_first_row_of_a_scan();
            runs.txn(["put", "/sum", "3"]);
            runs.cluster.set(changed, b"2");
            let committed = runs.txn(["commit"]);
            assert_eq!(committed.code, code, "{changed}: {}", committed.notes);
        }
    }

    #[test]
    fn a_commit_of_unknown_outcome_is_neither_forgotten_nor_tried_again() {
        let runs = Runs::new();
        runs.begin();
        runs.txn(["put", "/a", "1"]);
        runs.cluster.lose_answers(true);
        let lost = runs.txn(["commit", "--timeout", "50ms"]);
        lost.fails(1, "error: UNDETERMINED: ");
        assert!(lost.notes.contains("`txn rollback` forgets it"), "{}", lost.notes);
        runs.cluster.lose_answers(false);
        assert_eq!(runs.cluster.value("/a").unwrap(), "1", "it had happened");
        runs.cluster.set("/a", b"2");
        for words in [["get", "/a"], ["commit", "--timeout=1s"], ["delete", "/a"]] {
            runs.txn(words).fails(1, "error: FAILED_PRECONDITION: the commit of transaction ");
        }
        runs.txn(["begin"]).fails(1, "error: FAILED_PRECONDITION: ");
        let status = String::from_utf8(runs.txn(["status"]).out).unwrap();
        assert!(status.contains("committing"), "{status}");
        runs.txn(["rollback"]).prints("OK (forgotten; it may have been committed)\n");
        assert_eq!(runs.cluster.value("/a").unwrap(), "2");
        assert!(runs.left().is_empty());
    }

    #[test]
    fn the_file_is_its_users_alone_and_may_be_there_empty() {
        let runs = Runs::new();
        fs::create_dir(runs.directory.path().join("state")).unwrap();
        fs::write(runs.file(), b"").unwrap();
        runs.begin();
        let mode = fs::metadata(runs.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let status = String::from_utf8(runs.txn(["status"]).out).unwrap();
        assert!(status.contains("serializable") && status.contains("open"), "{status}");
    }

    #[test]
    fn files_that_hold_something_else_are_refused_and_left_alone() {
        let runs = Runs::new();
        runs.begin();
        let good = fs::read(runs.file()).unwrap();
        let text = String::from_utf8_lossy(&good).into_owned();
        let newer = text.replace("rangedb-session 1 ", "rangedb-session 2 ").into_bytes();
        let cut = good[..good.len() - 1].to_vec();
        for (bytes, why) in [
            (&b"#!/bin/sh\n"[..], "it is no transaction's file"),
            (&[0xff; 200][..], "it is no transaction's file"),
            (b"rangedb-session 1 asleep\n", "it is no transaction's file"),
            (&newer, "format 2 belongs to another version"),
            (&cut, "invalid transaction"),
        ] {
            fs::write(runs.file(), bytes).unwrap();
            for words in [["rollback"], ["commit"], ["begin"]] {
                let refused = runs.txn(words);
                assert!(refused.notes.contains(why), "{words:?}: {}", refused.notes);
                assert_eq!(refused.code, 1);
            }
            assert_eq!(fs::read(runs.file()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_transaction_of_another_cluster_is_not_taken_up() {
        let runs = Runs::new();
        runs.begin();
        runs.txn(["put", "/a", "1"]);
        let elsewhere = Runs { cluster: Cluster::with_id(7), directory: runs.directory };
        elsewhere.txn(["commit"]).fails(1, "error: FAILED_PRECONDITION: ");
        assert!(elsewhere.cluster.rows().is_empty());
        let home = Runs { cluster: runs.cluster, directory: elsewhere.directory };
        assert_eq!(home.txn(["commit"]).code, 0, "it is still open");
        assert_eq!(home.cluster.value("/a").unwrap(), "1");
    }
}
