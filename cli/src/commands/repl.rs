//! `rangedb repl`: runs commands that are typed one after the other, or read from a file or pipe.
//! Commands and arguments are those of the command line. A transaction may stay open between them.
//!
//! * An error does not end a session: the repl prints the error and reads the next line.
//! * A session that ends rolls back its open transaction, for every end that the process can
//!   notice: the end of the input, an error, or a signal that can be caught.
//! * Only a session at a terminal has a prompt and a history. There Ctrl-C ends just the running
//!   command.
//!
//! Not supported: commands of several lines, and completion.

mod lines;
mod signals;
mod words;

use std::ffi::OsString;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use super::{admin, batch, delete, get, put, range};
use crate::args::Output;
use crate::failure::{self, Failure};
use crate::session::Session;
use crate::state_directory;
use crate::transaction::{self, Begin};
use crate::utc;
use lines::{Input, Lines};
use signals::{Signal, Signals};

/// Type commands one after the other, in transactions if need be
///
/// All commands on keys, `admin`, and `begin`, `commit` and `rollback`; `help` lists them. JSON
/// objects and arrays need no quotes. Ctrl-D ends it, and rolls back a transaction that is open.
/// Off a terminal it runs what standard input holds, to the end; it exits with 1 if any command
/// failed.
#[derive(Debug, Args)]
pub struct Repl {
    /// File that keeps typed lines; empty for none
    ///
    /// By default `rangedb/history` below $XDG_STATE_HOME or ~/.local/state.
    #[arg(long, env = "RANGEDB_HISTORY", hide_env_values = true, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// A line of a session.
#[derive(Debug, Parser)]
#[command(
    name = "",
    no_binary_name = true,
    disable_help_flag = true,
    disable_version_flag = true,
    override_usage = "COMMAND [ARGUMENTS]",
    after_help = "JSON objects and arrays need no quotes; '...' is taken as it stands; in \"...\" \
                  backslashes stand for what answers show by them. `help COMMAND` says more."
)]
struct Line {
    /// Format of the answer
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Output>,
    #[command(subcommand)]
    command: LineCommand,
}

#[derive(Debug, Subcommand)]
enum LineCommand {
    Put(put::Put),
    Get(get::TransactionGet),
    Delete(delete::Delete),
    Range(range::Range),
    #[command(subcommand)]
    Batch(batch::Batch),
    #[command(flatten)]
    Transaction(TransactionCommand),
    /// The same under the name that other commands have
    #[command(subcommand, hide = true)]
    Txn(TxnCommand),
    /// Say which transaction is open
    Status,
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Print the lines typed before
    History,
    /// Clear the screen
    Clear,
    /// End the session; rolls back a transaction that is open
    #[command(visible_alias = "quit")]
    Exit,
}

#[derive(Debug, Subcommand)]
enum TransactionCommand {
    Begin(Begin),
    /// Make everything visible that the transaction wrote, or nothing
    Commit,
    /// Forget what the transaction wrote
    Rollback,
}

#[derive(Debug, Subcommand)]
enum TxnCommand {
    #[command(flatten)]
    Transaction(TransactionCommand),
    Put(put::Put),
    Get(get::TransactionGet),
    Delete(delete::Delete),
    Range(range::Range),
}

/// Next step of the session after a line.
enum Next {
    Line,
    Exit,
}

impl Repl {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let at_terminal = session.streams.interactive && io::stdout().is_terminal();
        let lines = match at_terminal {
            true => {
                session.streams.input = Box::new(BufReader::new(io::stdin()));
                Lines::of_terminal(self.history_file())
            }
            false => {
                let refusing = Box::new(BufReader::new(InputTaken));
                Lines::of_input(std::mem::replace(&mut session.streams.input, refusing))
            }
        };
        let lines = lines.map_err(Failure::Runtime)?;
        let signals = Signals::listen().map_err(Failure::Runtime)?;
        if at_terminal {
            let version = env!("CARGO_PKG_VERSION");
            writeln!(session.streams.out, "rangedb {version}; `help` lists the commands")?;
        }
        let mut repl = Running { session, lines, signals, at_terminal, failed: 0 };
        let result = repl.serve().await;
        let left = repl.leave().await;
        result.and(left)
    }

    fn history_file(self) -> Option<PathBuf> {
        match self.history {
            Some(file) if file.as_os_str().is_empty() => None,
            Some(file) => Some(file),
            // Without one, the history ends with the session.
            None => state_directory::file("history").ok(),
        }
    }
}

/// A session that is under way.
struct Running<'r, 's> {
    session: &'r mut Session<'s>,
    lines: Lines,
    signals: Signals,
    at_terminal: bool,
    /// Number of lines that failed.
    failed: u64,
}

impl Running<'_, '_> {
    async fn serve(&mut self) -> Result<(), Failure> {
        loop {
            self.session.streams.out.flush()?;
            let prompt = self.prompt();
            let input = tokio::select! {
                input = self.lines.next(&prompt) => input.map_err(Failure::Input)?,
                signal = self.signals.next() => match signal {
                    Signal::Interrupt if self.at_terminal => Input::Cancelled,
                    signal => return Err(Failure::Stopped(signal.name())),
                },
            };
            let next = match input {
                Input::Line(line) => self.run_line(&line).await?,
                Input::Cancelled => Next::Line,
                Input::End => Next::Exit,
            };
            if let Next::Exit = next {
                break;
            }
        }
        match self.failed {
            failed if failed > 0 && !self.at_terminal => Err(Failure::OfScript { failed }),
            _ => Ok(()),
        }
    }

    fn prompt(&self) -> String {
        match &self.session.transaction {
            None => "rangedb> ".to_owned(),
            Some(open) => format!("rangedb(txn:{})> ", open.id()),
        }
    }

    /// Runs one line. Fails only if the session cannot go on.
    async fn run_line(&mut self, line: &[u8]) -> Result<Next, Failure> {
        let words = match words::split(line) {
            Ok(words) if words.is_empty() => return Ok(Next::Line),
            Ok(words) => words,
            Err(message) => return self.note(Failure::Usage(message)).await,
        };
        let command = match parse(words) {
            Ok(Line { command: LineCommand::Exit, .. }) => return Ok(Next::Exit),
            Ok(Line { command: LineCommand::History, .. }) => {
                for line in self.lines.history().await {
                    writeln!(self.session.streams.out, "{line}")?;
                }
                return Ok(Next::Line);
            }
            Ok(command) => command,
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                writeln!(self.session.streams.out, "{}", error.to_string().trim_end())?;
                return Ok(Next::Line);
            }
            Err(error) => {
                self.failed += 1;
                self.session.streams.note(error.to_string().trim_end())?;
                return Ok(Next::Line);
            }
        };
        let usual = self.session.output;
        self.session.output = command.output.unwrap_or(usual);
        let ran = tokio::select! {
            ran = command.command.run(self.session) => ran,
            signal = self.signals.next() => match signal {
                Signal::Interrupt if self.at_terminal => Err(Failure::Interrupted),
                signal => return Err(Failure::Stopped(signal.name())),
            },
        };
        self.session.output = usual;
        match ran {
            Ok(()) => Ok(Next::Line),
            Err(failure @ Failure::Output(_)) => Err(failure),
            Err(failure) => self.note(failure).await,
        }
    }

    /// Reports the failure of a line.
    async fn note(&mut self, failure: Failure) -> Result<Next, Failure> {
        self.failed += 1;
        let lost = transaction::end_if_lost(self.session, &failure).await;
        // Output from before the failure must precede the message.
        self.session.streams.out.flush()?;
        let notes = &mut self.session.streams.notes;
        failure::report(Err(failure), *notes);
        if lost {
            writeln!(notes, "(the transaction is rolled back)")?;
        }
        Ok(Next::Line)
    }

    /// Rolls back the open transaction and waits for the client's background work. Prints only
    /// after that: the reader of the output may be gone, and must not prevent the rollback.
    async fn leave(&mut self) -> Result<(), Failure> {
        let open = self.session.transaction.take();
        let was_open = open.is_some();
        if let Some(open) = open {
            transaction::end_silently(open).await;
        }
        self.session.client.finish().await;
        if was_open {
            let note = "(the open transaction was rolled back: nothing of it was written)";
            self.session.streams.note(note)?;
        }
        Ok(())
    }
}

fn parse(words: Vec<OsString>) -> Result<Line, clap::Error> {
    Line::try_parse_from(words)
}

impl LineCommand {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        use {LineCommand as Top, TxnCommand as Txn};
        match self {
            Top::Put(put) | Top::Txn(Txn::Put(put)) => put.run(session).await,
            Top::Get(get) | Top::Txn(Txn::Get(get)) => get.run(session).await,
            Top::Delete(delete) | Top::Txn(Txn::Delete(delete)) => delete.run(session).await,
            Top::Range(range) | Top::Txn(Txn::Range(range)) => range.run(session).await,
            Top::Batch(batch) => batch.run(session).await,
            Top::Transaction(command) | Top::Txn(Txn::Transaction(command)) => {
                command.run(session).await
            }
            Top::Status => status(session),
            Top::Admin(admin) => admin.run(session).await,
            Top::Clear => Ok(write!(session.streams.out, "\x1b[H\x1b[2J")?),
            Top::History | Top::Exit => unreachable!("the session's own"),
        }
    }
}

impl TransactionCommand {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            TransactionCommand::Begin(begin) => match &session.transaction {
                None => begin.run(session).await,
                Some(open) => {
                    let id = open.id();
                    let message =
                        format!("transaction {id} is open: `commit` or `rollback` ends it");
                    Err(Failure::State(message))
                }
            },
            TransactionCommand::Commit => transaction::commit(session).await,
            TransactionCommand::Rollback => transaction::roll_back(session).await,
        }
    }
}

fn status(session: &mut Session<'_>) -> Result<(), Failure> {
    let open = session.open_transaction()?;
    let (id, began) = (open.id(), utc::format(open.start_ts()));
    Ok(writeln!(session.streams.out, "transaction {id}, reads as of {began}")?)
}

/// Standard input for the commands of a script. Reading fails, because standard input is the script
/// itself.
struct InputTaken;

impl Read for InputTaken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the commands stand there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, Ran};
    use clap::CommandFactory;
    use std::io::{BufRead, Cursor};

    /// Reader without bytes. When a script's reader reaches it, another client writes key `a`.
    struct Meanwhile(Cluster);

    impl Read for Meanwhile {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(self.fill_buf()?.len())
        }
    }

    impl BufRead for Meanwhile {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            self.0.set("a", b"9");
            Ok(b"")
        }

        fn consume(&mut self, _: usize) {}
    }

    fn repl(cluster: &Cluster, script: &str) -> Ran {
        cluster.run_with_input(["repl"], script.as_bytes())
    }

    #[test]
    fn the_definition_of_a_line_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn lines_are_run_one_after_the_other_with_json_as_it_stands() {
        let cluster = Cluster::new();
        let ran = repl(
            &cluster,
            "put /user/1 {\"name\": \"John\"}\n\n# a comment\nput /user/2 '{\"name\": \"Jane\"}'\n\
             batch put a [1, 2] b it's\nget /user/1\nrange /user/ /user0 --keys-only",
        );
        ran.prints("OK\nOK\nOK\n{\"name\": \"John\"}\n/user/1\n/user/2\n");
        assert_eq!(cluster.value("/user/2").unwrap(), "{\"name\": \"Jane\"}");
        assert_eq!(cluster.value("a").unwrap(), "[1, 2]");
        assert_eq!(cluster.value("b").unwrap(), "it's");
    }

    #[test]
    fn errors_end_no_session_and_are_counted_at_its_end() {
        let cluster = Cluster::new();
        let ran = repl(&cluster, "frobnicate\nput a 'b\nget nobody\nput a\nput a b\nget a\n");
        assert_eq!(String::from_utf8(ran.out).unwrap(), "OK\nb\n");
        for said in ["frobnicate", "a ' is not closed", "key not found: nobody", "<VALUE>"] {
            assert!(ran.notes.contains(said), "{said:?} is not in {}", ran.notes);
        }
        assert!(ran.notes.ends_with("\n4 commands failed\n"), "{}", ran.notes);
        assert_eq!(ran.code, 1);
    }

    #[test]
    fn what_a_transaction_writes_is_its_own_until_it_commits() {
        let cluster = Cluster::new();
        cluster.set("old", b"1");
        let ran = repl(
            &cluster,
            "begin\nput a 1\nbatch put b 2 c 3\ndelete old\nget a\nrange '' ''\n\
             txn put d 4\ntxn commit\nget d\n",
        );
        let out = String::from_utf8(ran.out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("OK (transaction "), "{out}");
        assert_eq!(lines[1..4], ["OK (not committed yet)"; 3]);
        assert_eq!(lines[4..8], ["1", "a\t1", "b\t2", "c\t3"]);
        assert!(lines[9].starts_with("OK (committed at "), "{out}");
        assert_eq!((ran.code, lines[10]), (0, "4"));
        let rows = cluster.rows();
        let commits: Vec<u64> = rows.values().map(|row| row.mod_ts).collect();
        assert_eq!(commits, [commits[0]; 4]);
    }

    #[test]
    fn a_session_that_ends_rolls_back_what_is_open_and_says_so() {
        for end in ["", "exit\nput b 2\n", "quit"] {
            let cluster = Cluster::new();
            let ran = repl(&cluster, &format!("begin\nput a 1\n{end}"));
            assert!(ran.notes.starts_with("(the open transaction was rolled back"), "{end}");
            assert_eq!((ran.code, cluster.rows().len()), (0, 0), "{end}");
        }
    }

    #[test]
    fn a_conflict_ends_the_transaction_and_says_to_begin_anew() {
        let cluster = Cluster::new();
        cluster.set("a", b"1");
        let meanwhile = Meanwhile(cluster.clone());
        let before = Cursor::new("begin\nget a\nput a 2\n");
        let behind = Cursor::new("commit\ncommit\nbegin --read-only\nput a 3\n");
        let ran = cluster.run_reading(["repl"], before.chain(meanwhile).chain(behind));
        assert!(ran.notes.contains("error: ABORTED: key `a` was written at "), "{}", ran.notes);
        assert!(ran.notes.contains("begin anew"), "{}", ran.notes);
        assert!(ran.notes.contains("FAILED_PRECONDITION: no transaction is open"), "{}", ran.notes);
        assert!(ran.notes.contains("transaction: it is read-only"), "{}", ran.notes);
        assert_eq!(cluster.value("a").unwrap(), "9");
    }

    #[test]
    fn one_transaction_is_open_at_a_time_and_status_says_which() {
        let ran = repl(&Cluster::new(), "status\nbegin\nstatus\nbegin\nrollback\nstatus\n");
        let out = String::from_utf8(ran.out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        let id = lines[0].strip_prefix("OK (transaction ").unwrap().trim_end_matches(')');
        assert!(lines[1].starts_with(&format!("transaction {id}, reads as of ")), "{out}");
        assert_eq!(lines[2], "OK (rolled back)");
        assert!(ran.notes.contains(&format!("transaction {id} is open")), "{}", ran.notes);
        assert_eq!(ran.notes.matches("no transaction is open").count(), 2);
    }

    #[test]
    fn help_lists_what_can_be_typed_and_the_form_of_an_answer_can_be_chosen() {
        let cluster = Cluster::new();
        let ran = repl(&cluster, "help\nhelp begin\nput a b\nget a --output json\nget a\n");
        let out = String::from_utf8(ran.out).unwrap();
        for word in ["rollback", "exit", "quit", "--pessimistic", "\"value\":\"b\""] {
            assert!(out.contains(word), "{word} is not in {out}");
        }
        assert!(out.ends_with("\nb\n"));
    }

    #[test]
    fn commands_of_a_script_cannot_read_it_as_their_input() {
        let cluster = Cluster::new();
        let ran = repl(&cluster, "put a -\nput b 2\n");
        assert!(ran.notes.starts_with("error: cannot read standard input: the commands"));
        assert_eq!((cluster.rows().len(), ran.code), (1, 1));
    }
}
