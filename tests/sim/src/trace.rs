//! Trace of a run: a hash of every occurrence in its order. If two runs of one seed end with
//! different hashes, the world or the code under test is not deterministic.

/// Receiver of the lines of a verbose run.
pub type Lines = Box<dyn FnMut(&str) + Send>;

/// Multiplier of the hash. A multiplication and a rotation mix each word in, as in FxHash: fast,
/// always the same, and good enough to tell two runs apart.
const MULTIPLIER: u64 = 0x517c_c1b7_2722_0a95;

/// Hash of the occurrences of a run, and their number.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    occurrences: u64,
    lines: Option<Lines>,
}

impl Trace {
    pub fn new(lines: Option<Lines>) -> Self {
        Trace { hash: 0, occurrences: 0, lines }
    }

    pub fn word(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.word(u64::from(*byte));
        }
    }

    /// Begins a new occurrence. The line is made only if lines are wanted.
    pub fn occurrence(&mut self, at: u64, line: impl FnOnce() -> String) {
        self.occurrences += 1;
        self.word(at);
        self.remark(at, line);
    }

    /// Adds a line that is not part of the hash.
    pub fn remark(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
            lines(&format!("{seconds:4}.{micros:06}  {}", line()));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn occurrences(&self) -> u64 {
        self.occurrences
    }
}
