//! Runner of golden scripts: commands to an engine, with its answers written under each command.
//!
//! ```text
//! # A comment.
//! > command
//! the answer
//! ```
//!
//! `UPDATE_GOLDEN=1 cargo test` writes the current answers into the scripts. Inspect the diff; only
//! commit what you understand.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Interpreter of a script's commands. Answers have no empty lines and none that begins with `#` or
/// `>`.
pub trait Conversation {
    fn answer(&mut self, command: &str) -> String;
}

/// Plays every script of `testscripts/<folder>`, each with a new interpreter.
///
/// # Panics
/// If an answer differs from the script's.
pub fn play_all<C: Conversation>(folder: &str, begin: impl Fn() -> C) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script, &mut begin());
        if played == script {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, played).unwrap();
            continue;
        }
        panic!("{}: {}", path.display(), first_difference(&script, &played));
    }
}

fn play(script: &str, partner: &mut impl Conversation) -> String {
    let mut played = String::new();
    let mut in_answer = false;
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let answer = partner.answer(command);
            writeln!(played, "{line}\n{}", answer.trim_end()).unwrap();
            in_answer = true;
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(played, "{line}").unwrap();
            in_answer = false;
        } else {
            assert!(in_answer, "not a command, comment or answer: {line}");
        }
    }
    played
}

fn first_difference(script: &str, played: &str) -> String {
    let mut command = "";
    let mut lines = script.lines();
    for (number, line) in played.lines().enumerate() {
        if line.starts_with("> ") {
            command = line;
        }
        let expected = lines.next().unwrap_or("the end");
        if line != expected {
            let number = number + 1;
            return format!("line {number}, after `{command}`: {line}\ninstead of: {expected}");
        }
    }
    format!("after `{command}`: nothing, instead of: {}", lines.next().unwrap_or_default())
}
