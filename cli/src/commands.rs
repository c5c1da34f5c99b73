//! All commands by name, and their dispatch. A command's own file holds its arguments.

mod admin;
mod batch;
pub mod completions;
mod delete;
mod get;
mod put;
mod range;
mod repl;
pub mod server;
mod txn;
pub mod version;

use std::fmt;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub enum Command {
    Server(server::Server),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the version
    Version,
    Completions(completions::Completions),
}

/// Commands that ask a cluster.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    Put(put::Put),
    Get(get::Get),
    Delete(delete::Delete),
    Range(range::Range),
    #[command(subcommand)]
    Batch(batch::Batch),
    Txn(txn::Txn),
    Repl(repl::Repl),
    #[command(subcommand)]
    Admin(admin::Admin),
}

impl ClientCommand {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            ClientCommand::Put(put) => put.run(session).await,
            ClientCommand::Get(get) => get.run(session).await,
            ClientCommand::Delete(delete) => delete.run(session).await,
            ClientCommand::Range(range) => range.run(session).await,
            ClientCommand::Batch(batch) => batch.run(session).await,
            ClientCommand::Txn(txn) => txn.run(session).await,
            ClientCommand::Repl(repl) => repl.run(session).await,
            ClientCommand::Admin(admin) => admin.run(session).await,
        }
    }
}

/// The name, for messages about commands that ask no cluster.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Client(_) => "a request",
            Command::Server(_) => "server",
            Command::Version => "version",
            Command::Completions(_) => "completions",
        })
    }
}
