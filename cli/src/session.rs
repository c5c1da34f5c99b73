//! Session of a command that asks a cluster: its client, its streams and its output format.

use std::io::{BufRead, Write};

use rangedb_client::{Client, Transaction};

use crate::args::{Globals, Output};
use crate::failure::Failure;

/// Client of the cluster, format of answers, open transaction, and streams.
pub struct Session<'a> {
    pub client: Client,
    pub output: Output,
    /// Open transaction, if there is one. Commands on keys read and write in it.
    pub transaction: Option<Transaction>,
    pub streams: Streams<'a>,
}

/// Standard input and outputs, or a test's in their place.
pub struct Streams<'a> {
    /// `Send`, because a thread of its own may take it over.
    pub input: Box<dyn BufRead + Send>,
    /// For answers.
    pub out: &'a mut dyn Write,
    /// For notes and questions.
    pub notes: &'a mut dyn Write,
    /// True if there is a person to ask: input and notes are on a terminal.
    pub interactive: bool,
}

impl Streams<'_> {
    /// Writes a line for people. The answers from before it come first, also where both streams are
    /// one terminal.
    pub fn note(&mut self, line: impl std::fmt::Display) -> std::io::Result<()> {
        self.out.flush()?;
        writeln!(self.notes, "{line}")
    }
}

impl<'a> Session<'a> {
    pub fn new(client: Client, globals: &Globals, streams: Streams<'a>) -> Self {
        Session { client, output: globals.output, transaction: None, streams }
    }

    /// Returns the open transaction. Fails if there is none.
    pub fn open_transaction(&self) -> Result<&Transaction, Failure> {
        self.transaction.as_ref().ok_or_else(no_transaction)
    }

    /// Takes the transaction out to end it.
    pub fn take_transaction(&mut self) -> Result<Transaction, Failure> {
        self.transaction.take().ok_or_else(no_transaction)
    }
}

fn no_transaction() -> Failure {
    Failure::State("no transaction is open: `begin` opens one".to_owned())
}
