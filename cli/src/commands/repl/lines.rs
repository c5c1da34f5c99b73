//! Sources of a repl's lines: a terminal with editing and a history, or a file or pipe.
//!
//! Reading blocks, and an open transaction must stay alive meanwhile. So a separate thread reads,
//! one line per request. The thread ends with the process: nothing can interrupt its read.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use rustix::stdio;
use rustix::termios::{self, OptionalActions, Termios};
use rustyline::error::ReadlineError;
use rustyline::history::{FileHistory, History, SearchDirection};
use rustyline::{Config, Editor};
use tokio::sync::mpsc as replies;

/// Maximum length of a line from a file or pipe: a few of the largest values, written with escapes.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Maximum number of lines in the history: more than anybody pages through, and few enough to read
/// as a whole at start.
const HISTORY_LINES_MAX: usize = 1_000;

/// Result of reading a line.
pub enum Input {
    Line(Vec<u8>),
    /// Ctrl-C: the typed text is discarded.
    Cancelled,
    /// Ctrl-D, or the end of the file.
    End,
}

enum Ask {
    Line { prompt: String },
    History,
}

enum Reply {
    Input(io::Result<Input>),
    History(Vec<String>),
}

/// The lines of a session. Invariant: every request to the thread has one reply.
pub struct Lines {
    asks: mpsc::Sender<Ask>,
    replies: replies::Receiver<Reply>,
    /// True if a request is in flight: sent, and its reply not yet received.
    asked: bool,
    _terminal: Option<Terminal>,
}

impl Lines {
    /// Lines of a file or pipe.
    pub fn of_input(input: Box<dyn BufRead + Send>) -> io::Result<Self> {
        Self::start(Source::Input { input, begun: false }, None)
    }

    /// Lines that a person types. Without a history file, the history ends with the process.
    pub fn of_terminal(history: Option<PathBuf>) -> io::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(io::Error::other)?
            .history_ignore_space(true)
            // Each pasted line is a command of its own.
            .bracketed_paste(false)
            .build();
        let mut editor = Editor::with_config(config).map_err(io::Error::other)?;
        let history = history.filter(|file| prepare(file).is_ok());
        if let Some(file) = &history {
            // The session also works without its history.
            let _ = editor.load_history(file);
        }
        let terminal = Terminal::now();
        Self::start(Source::Editor(Box::new(editor), history), terminal)
    }

    fn start(mut source: Source, terminal: Option<Terminal>) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        // At most one reply is in flight.
        let (reply, replies) = replies::channel(1);
        let answer = move || {
            while let Ok(ask) = asked.recv() {
                if reply.blocking_send(source.answer(ask)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("lines".to_owned()).spawn(answer)?;
        Ok(Lines { asks, replies, asked: false, _terminal: terminal })
    }

    /// Returns the next line. If the caller drops the future, the next call returns the same line.
    pub async fn next(&mut self, prompt: &str) -> io::Result<Input> {
        let prompt = prompt.to_owned();
        match self.ask(Ask::Line { prompt }).await {
            Some(Reply::Input(input)) => input,
            _ => Ok(Input::End),
        }
    }

    /// Returns earlier lines, the oldest first.
    pub async fn history(&mut self) -> Vec<String> {
        match self.ask(Ask::History).await {
            Some(Reply::History(lines)) => lines,
            _ => Vec::new(),
        }
    }

    async fn ask(&mut self, ask: Ask) -> Option<Reply> {
        if !self.asked {
            self.asked = self.asks.send(ask).is_ok();
        }
        let reply = self.replies.recv().await;
        self.asked = false;
        reply
    }
}

enum Source {
    Input { input: Box<dyn BufRead + Send>, begun: bool },
    Editor(Box<Editor<(), FileHistory>>, Option<PathBuf>),
}

impl Source {
    fn answer(&mut self, ask: Ask) -> Reply {
        match ask {
            Ask::Line { prompt } => Reply::Input(self.read(&prompt)),
            Ask::History => Reply::History(self.history()),
        }
    }

    fn read(&mut self, prompt: &str) -> io::Result<Input> {
        match self {
            Source::Input { input, begun } => {
                if !std::mem::replace(begun, true) {
                    skip_mark(&mut **input)?;
                }
                read_line(&mut **input)
            }
            Source::Editor(editor, history) => match editor.readline(prompt) {
                Ok(line) => {
                    // A line runs even if the history cannot keep it.
                    let new = editor.add_history_entry(line.as_str()).unwrap_or(false);
                    if let Some(file) = history.as_ref().filter(|_| new) {
                        let _ = editor.append_history(file);
                    }
                    Ok(Input::Line(line.into_bytes()))
                }
                Err(ReadlineError::Interrupted) => Ok(Input::Cancelled),
                Err(ReadlineError::Eof) => Ok(Input::End),
                Err(ReadlineError::Io(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }

    fn history(&self) -> Vec<String> {
        let Source::Editor(editor, _) = self else { return Vec::new() };
        let history = editor.history();
        let line = |at| history.get(at, SearchDirection::Forward).ok().flatten();
        (0..history.len()).filter_map(line).map(|found| found.entry.into_owned()).collect()
    }
}

/// Skips the mark that some editors write at the beginning of a text in UTF-8.
fn skip_mark(input: &mut dyn BufRead) -> io::Result<()> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    // A pipe may hold less than the mark so far. Then the text begins with other bytes: the mark is
    // written at once.
    if input.fill_buf()?.starts_with(MARK) {
        input.consume(MARK.len());
    }
    Ok(())
}

fn read_line(input: &mut dyn BufRead) -> io::Result<Input> {
    let mut line = Vec::new();
    input.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    if line.len() as u64 > LINE_BYTES_MAX {
        let message = format!("a line has more than {LINE_BYTES_MAX} bytes");
        return Err(io::Error::other(message));
    }
    Ok(if line.is_empty() { Input::End } else { Input::Line(line) })
}

/// Creates the history's file if it does not exist. Only the owner may read it, because lines
/// contain values.
fn prepare(file: &Path) -> io::Result<()> {
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    Ok(())
}

/// The terminal's settings, restored on drop. A signal may end a session while a line is being
/// edited, and then the terminal is in a mode that a shell cannot use.
struct Terminal(Termios);

impl Terminal {
    fn now() -> Option<Self> {
        termios::tcgetattr(stdio::stdin()).ok().map(Terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error means that the terminal is gone. Then there is nothing to restore.
        let _ = termios::tcsetattr(stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::os::unix::fs::PermissionsExt;

    async fn lines(input: &str) -> Vec<Vec<u8>> {
        let mut lines = Lines::of_input(Box::new(Cursor::new(input.to_owned()))).unwrap();
        let mut read = Vec::new();
        while let Input::Line(line) = lines.next("").await.unwrap() {
            read.push(line);
        }
        read
    }

    #[tokio::test]
    async fn the_last_line_of_a_file_needs_no_line_break() {
        assert_eq!(lines("a\n\nb").await, [&b"a\n"[..], b"\n", b"b"]);
        assert!(lines("").await.is_empty());
    }

    #[tokio::test]
    async fn the_mark_that_an_editor_puts_before_a_text_is_no_part_of_it() {
        assert_eq!(lines("\u{feff}a\n\u{feff}b").await, [b"a\n".to_vec(), "\u{feff}b".into()]);
        assert!(lines("\u{feff}").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_whose_reader_gave_up_is_not_lost() {
        let input = Box::new(Cursor::new("a\nb\n".to_owned()));
        let mut lines = Lines::of_input(input).unwrap();
        let gave_up = futures::poll!(Box::pin(lines.next("")));
        assert!(gave_up.is_pending() || gave_up.is_ready());
        let next = match gave_up {
            std::task::Poll::Ready(line) => line,
            std::task::Poll::Pending => lines.next("").await,
        };
        assert!(matches!(next, Ok(Input::Line(line)) if line == b"a\n"));
    }

    #[test]
    fn a_history_can_be_read_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state/rangedb/history");
        prepare(&file).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
