//! Consent to a command that cannot be undone: `--confirm`, or a yes of the person at the terminal.
//! Without a terminal and without `--confirm`, the command does nothing.

use clap::Args;

use crate::failure::Failure;
use crate::session::Streams;

/// Flags of a command that cannot be undone.
#[derive(Clone, Copy, Debug, Args)]
pub struct Consent {
    /// Do it without asking; needed where there is no terminal to ask on
    #[arg(long)]
    pub confirm: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

impl Consent {
    /// True if the command must ask for consent first.
    pub fn must_ask(self) -> bool {
        !self.confirm && !self.dry_run
    }
}

/// Refuses if there is no terminal to ask on.
pub fn check_can_ask(streams: &Streams<'_>) -> Result<(), Failure> {
    if streams.interactive {
        return Ok(());
    }
    Err(Failure::Usage(
        "this cannot be undone: repeat it with --confirm, or see with --dry-run what it would do"
            .to_owned(),
    ))
}

/// Asks, and fails unless the answer is yes.
pub fn ask(streams: &mut Streams<'_>, question: &str) -> Result<(), Failure> {
    streams.out.flush()?;
    write!(streams.notes, "{question} [y/N] ")?;
    streams.notes.flush()?;
    let mut answer = String::new();
    streams.input.read_line(&mut answer).map_err(Failure::Input)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::NotConfirmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn answer(text: &str) -> (Result<(), Failure>, String) {
        let mut notes = Vec::new();
        let input = Box::new(io::Cursor::new(text.to_owned()));
        let mut out = Vec::new();
        let mut streams = Streams { input, out: &mut out, notes: &mut notes, interactive: true };
        let result = ask(&mut streams, "Remove it?");
        (result, String::from_utf8(notes).unwrap())
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for yes in ["y\n", "Yes\n", "YES"] {
            let (result, question) = answer(yes);
            assert!(result.is_ok(), "{yes}");
            assert_eq!(question, "Remove it? [y/N] ");
        }
        for no in ["", "\n", "n\n", "yess\n", "ok\n"] {
            assert!(matches!(answer(no).0, Err(Failure::NotConfirmed)), "{no}");
        }
    }
}
