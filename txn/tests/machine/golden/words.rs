//! Words of a step.

use bytes::Bytes;
use rangedb_txn::{Locks, ReadAt};

/// Words of a step, taken from the front or by name.
pub struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    pub fn of(text: &'a str) -> Self {
        Words(text.split_whitespace().collect())
    }

    pub fn take(&mut self) -> &'a str {
        self.0.remove(0)
    }

    pub fn bytes(&mut self) -> Bytes {
        match self.take() {
            "-" => Bytes::new(),
            word => match word.split_once('*') {
                Some((byte, times)) => byte.repeat(times.parse().unwrap()).into(),
                None => word.replace("\\x00", "\0").into(),
            },
        }
    }

    pub fn number(&mut self) -> u64 {
        self.take().parse().unwrap()
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|word| *word == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// Takes the number after a name; 0 without the name.
    pub fn named(&mut self, name: &str) -> u64 {
        match self.0.iter().position(|word| *word == name) {
            None => 0,
            Some(place) => {
                self.0.remove(place);
                self.0.remove(place).parse().unwrap()
            }
        }
    }

    pub fn at(&mut self) -> ReadAt {
        ReadAt::from_read_ts(self.named("at"))
    }

    pub fn locks(&mut self) -> Locks {
        Locks::InTheWay { but_of: self.passed() }
    }

    /// `passing TS` may be given more than once.
    pub fn passed(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| Some(self.named("passing")).filter(|ts| *ts > 0)).collect()
    }

    /// Takes all remaining words, as keys.
    pub fn rest(&mut self) -> Vec<Bytes> {
        let mut keys = Vec::new();
        while !self.0.is_empty() {
            keys.push(self.bytes());
        }
        keys
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    /// Takes the key after a name, which must be there.
    pub fn named_key(&mut self, name: &str) -> Bytes {
        let place = self.0.iter().position(|word| *word == name).expect(name);
        self.0.remove(place);
        Words(vec![self.0.remove(place)]).bytes()
    }

    /// Returns all remaining words, as bytes.
    pub fn hexadecimal(&self) -> Vec<u8> {
        self.0.iter().map(|word| u8::from_str_radix(word, 16).unwrap()).collect()
    }
}
