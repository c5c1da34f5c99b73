//! `rangedb`: the one binary. `rangedb server` runs a node; every other command asks a cluster and
//! prints what it answered.
//!
//! Each command has one file below `commands/`: its arguments, its request, and the output as text
//! and as JSON. A command gets a [`session::Session`] (the cluster, and where to read and print)
//! and returns a [`failure::Failure`], which knows its exit code.
//!
//! Rules for all commands:
//!
//! * Success is printed only for an effect that the cluster reported.
//! * Answers go to standard output; errors, notes and questions to standard error.
//! * Keys and values are bytes. Text output escapes what would break a line; JSON names a field
//!   `..._base64` when its bytes are not UTF-8. Nothing is replaced or cut.
//! * Lists are printed as they arrive, in JSON as one object a line.
//! * Commands on keys belong to the session's open transaction, if there is one.

mod args;
mod commands;
mod confirm;
mod duration;
mod escape;
mod failure;
mod json;
mod logging;
mod session;
mod state_directory;
mod table;
#[cfg(test)]
mod testing;
mod transaction;
mod utc;

use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use rangedb_client::Client;

use args::Globals;
use commands::{ClientCommand, Command};
use failure::Failure;
use session::{Session, Streams};

fn main() -> ExitCode {
    let cli = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let mut out = BufWriter::new(io::stdout());
    let result = match cli.command {
        Some(Command::Server(server)) => match server.run() {
            Ok(code) => return ExitCode::from(code),
            Err(failure) => Err(failure),
        },
        None => writeln!(out, "{}", args::help().trim_end()).map_err(Failure::Output),
        Some(Command::Version) => commands::version::run(&mut out),
        Some(Command::Completions(completions)) => completions.run(&mut out),
        Some(Command::Client(command)) => ask_cluster(cli.globals, command, &mut out),
    };
    // Output from before a failure is true and must precede the failure's message.
    let flushed = out.flush().map_err(Failure::Output);
    ExitCode::from(failure::report(result.and(flushed), &mut io::stderr()))
}

/// Runs a command that asks a cluster. This thread prints, and a print may wait for a reader that
/// has stopped reading. The heartbeats of the command's locks and holds go on meanwhile, in a thread
/// of their own.
fn ask_cluster(
    globals: Globals,
    command: ClientCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    logging::init(&globals);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(Failure::Runtime)?;
    // The standard input is not locked here: a repl reads it in a thread of its own.
    let (input, mut notes) = (io::stdin(), io::stderr());
    let interactive = input.is_terminal() && notes.is_terminal();
    let input = Box::new(BufReader::new(input));
    let streams = Streams { input, out, notes: &mut notes, interactive };
    runtime.block_on(async {
        let client = Client::connect(globals.client_config())?;
        command.run(&mut Session::new(client, &globals, streams)).await
    })
}
