//! What a command that asks a cluster is given.

use std::io::{BufRead, Write};

use rangedb_client::Client;

use crate::args::Output;

/// The cluster, how to print its answers, and where.
pub struct Session<'a> {
    pub client: Client,
    pub output: Output,
    pub streams: Streams<'a>,
}

/// Standard input and outputs, or a test's.
pub struct Streams<'a> {
    pub input: &'a mut dyn BufRead,
    /// For answers.
    pub out: &'a mut dyn Write,
    /// For notes and questions.
    pub notes: &'a mut dyn Write,
    /// Whether there is a person to ask: input and notes are on a terminal.
    pub interactive: bool,
}
