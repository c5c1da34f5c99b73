//! Queue of log lines, written to standard error by a thread of its own.
//!
//! A thread that logs only puts a line into the queue. It never waits and never fails, whatever
//! happens to the reader of standard error. A reader that is gone (`EPIPE`), a full disk (`ENOSPC`)
//! and a pipe that nobody empties cost lines and nothing else. Lost lines are counted, and the log
//! reports them once writing works again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Maximum bytes of waiting lines: minutes of an ordinary log, seconds of one at level `trace`.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Bytes added to the length of each line, so that the number of short lines is bounded too.
const LINE_BYTES: usize = 64;

/// Pause between two tries to write to a descriptor that other processes made non-blocking. Such a
/// descriptor returns "would block" instead of waiting.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Maximum number of tries before a line is given up: by then a pipe's reader has stopped reading.
const RETRIES_MAX: usize = 1_000;

/// Queue of log lines. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<LineQueue>,
    /// Notified when a line was added, written or given up.
    changed: Condvar,
    /// Number of lines that nobody will read.
    dropped: AtomicU64,
}

#[derive(Default)]
struct LineQueue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Number of lines ever taken in, and of those that are written or given up.
    taken: u64,
    done: u64,
}

impl Lines {
    /// Starts the thread that writes to standard error. It runs until the process ends.
    pub fn start(&self) -> io::Result<()> {
        let lines = self.clone();
        let writer = std::thread::Builder::new().name("log-lines".to_owned());
        writer.spawn(move || lines.write_all_to(|line| write_line(&io::stderr(), line))).map(drop)
    }

    /// Adds a line, or drops it if the queue is full.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.bytes + line.len() + LINE_BYTES > WAITING_BYTES_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len() + LINE_BYTES;
        waiting.taken += 1;
        waiting.lines.push_back(line.to_vec());
        self.0.changed.notify_all();
    }

    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines logged so far are written or given up, for `at_most` that long.
    pub fn drain(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut waiting = self.waiting();
        let all = waiting.taken;
        while waiting.done < all {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.0.changed.wait_for(&mut waiting, left);
        }
    }

    fn write_all_to(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut told = 0;
        loop {
            let line = self.next();
            let written = write(&line);
            self.waiting().done += 1;
            self.0.changed.notify_all();
            match written {
                Err(_) => {
                    self.0.dropped.fetch_add(1, Ordering::Relaxed);
                }
                // Logged only after a line was written, so that the report is not the next line to
                // be lost.
                Ok(()) => {
                    let dropped = self.dropped();
                    if dropped > told {
                        let lines = dropped - told;
                        told = dropped;
                        tracing::warn!(lines, "log lines were lost: standard error took no more");
                    }
                }
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len() + LINE_BYTES;
                return line;
            }
            self.0.changed.wait(&mut waiting);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, LineQueue> {
        self.0.waiting.lock()
    }
}

/// Writes past the lock that the standard library has around standard error: a thread that holds
/// the lock may wait for a reader forever.
fn write_line(to: &impl AsFd, mut line: &[u8]) -> io::Result<()> {
    let mut retries = 0;
    while !line.is_empty() {
        match rustix::io::write(to, line).map_err(io::Error::from) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && retries < RETRIES_MAX => {
                retries += 1;
                std::thread::sleep(RETRY_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The subscriber writes a whole line at once.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Returns a queue whose writer hands each line on and then waits for the result to report.
    fn written_by_hand() -> (Lines, mpsc::Receiver<Vec<u8>>, mpsc::Sender<io::Result<()>>) {
        let (lines, (tell, told), (decide, decided)) =
            (Lines::default(), mpsc::channel(), mpsc::channel::<io::Result<()>>());
        let writer = lines.clone();
        std::thread::spawn(move || {
            writer.write_all_to(|line| {
                let _ = tell.send(line.to_vec());
                decided.recv().unwrap_or(Ok(()))
            });
        });
        (lines, told, decide)
    }

    #[test]
    fn lines_are_written_in_order_and_waited_for() {
        let (lines, told, decide) = written_by_hand();
        drop(decide);
        for number in 0..100 {
            lines.push(format!("{number}").as_bytes());
        }
        lines.drain(PATIENCE);
        for number in 0..100 {
            assert_eq!(told.try_recv().unwrap(), format!("{number}").as_bytes());
        }
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_costs_lines_that_are_counted() {
        let (lines, told, decide) = written_by_hand();
        let long = vec![b'x'; 1 << 20];
        lines.push(&long);
        // The line is being written, and no longer in the queue.
        told.recv_timeout(PATIENCE).unwrap();
        for _ in 0..20 {
            lines.push(&long);
        }
        assert_eq!(lines.dropped(), 13, "seven of them fit");
        lines.drain(Duration::from_millis(1));
        decide.send(Ok(())).unwrap();
        told.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn many_short_lines_are_bounded_too() {
        let (lines, told, _decide) = written_by_hand();
        lines.push(b"");
        told.recv_timeout(PATIENCE).unwrap();
        let fit = (WAITING_BYTES_MAX / LINE_BYTES) as u64;
        for _ in 0..fit + 5 {
            lines.push(b"");
        }
        assert_eq!(lines.dropped(), 5);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_the_next_one_tried() {
        let (lines, told, decide) = written_by_hand();
        lines.push(b"a");
        lines.push(b"b");
        decide.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        decide.send(Ok(())).unwrap();
        lines.drain(PATIENCE);
        assert_eq!(lines.dropped(), 1);
        assert_eq!((told.recv().unwrap(), told.recv().unwrap()), (b"a".to_vec(), b"b".to_vec()));
    }

    #[test]
    fn what_cannot_be_written_to_is_an_error_and_no_panic() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(write_line(&writer, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(write_line(&full, b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
