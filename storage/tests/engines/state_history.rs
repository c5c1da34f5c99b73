//! Random histories of a state engine, checked against a plain map: reads of every kind, snapshots,
//! installs, and crashes that must leave a prefix of what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rangedb_storage::{
    Batch, ColumnFamily, Direction, Error, Install, MemState, Reader, Span, StateEngine, Write,
    WriteBatch,
};

use crate::state_node::{MemNode, StateNode};

type Model = BTreeMap<(ColumnFamily, Bytes), Bytes>;

fn apply(model: &mut Model, batch: &WriteBatch) {
    for write in &batch.writes {
        match write {
            Write::Put { cf, key, value } => {
                model.insert((*cf, key.clone()), value.clone());
            }
            Write::Delete { cf, key } => {
                model.remove(&(*cf, key.clone()));
            }
            Write::DeleteSpan { cf, span } => {
                model.retain(|(family, key), _| family != cf || !span.contains(key));
            }
        }
    }
}

struct History<N> {
    node: N,
    rng: fastrand::Rng,
    model: Model,
    /// The model as of the last flush and after each batch since: the states that a crash may
    /// leave.
    survivors: Vec<Model>,
    snapshots: Vec<(Arc<dyn Reader>, Model)>,
}

impl<N: StateNode> History<N> {
    fn new(node: N, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let survivors = vec![Model::new()];
        Self { node, rng, model: Model::new(), survivors, snapshots: Vec::new() }
    }

    fn family(&mut self) -> ColumnFamily {
        ColumnFamily::ALL[self.rng.usize(0..5)]
    }

    /// Draws a key from few bytes and lengths, so that histories meet.
    fn key(&mut self) -> Bytes {
        let alphabet = [0x00, 0x01, b'a', b'b', 0xff];
        (0..self.rng.usize(1..4)).map(|_| alphabet[self.rng.usize(0..5)]).collect()
    }

    fn span(&mut self) -> Span {
        let start = if self.rng.u8(0..4) == 0 { Bytes::new() } else { self.key() };
        let end = if self.rng.u8(0..4) == 0 { Bytes::new() } else { self.key() };
        Span { start, end }
    }

    fn writes(&mut self, spans: bool) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for _ in 0..self.rng.usize(0..6) {
            let cf = self.family();
            match self.rng.u8(0..12) {
                0..8 => {
                    let value = vec![self.rng.u8(..); self.rng.usize(0..700)];
                    batch.put(cf, self.key(), value);
                }
                8 if spans => batch.delete_span(cf, self.span()),
                _ => batch.delete(cf, self.key()),
            }
        }
        batch
    }

    fn step(&mut self) {
        match self.rng.u8(0..40) {
            0..20 => self.write(),
            20..25 => self.write_through_batch(),
            25..31 => self.check_reads(),
            31..33 => self.take_snapshot(),
            33..35 => self.flush(),
            35..37 => self.install(),
            37 => self.restart(),
            _ => self.crash(),
        }
    }

    fn written(&mut self, batch: &WriteBatch) {
        apply(&mut self.model, batch);
        self.survivors.push(self.model.clone());
    }

    fn write(&mut self) {
        let batch = self.writes(true);
        self.node.engine().write(batch.clone()).unwrap();
        self.written(&batch);
    }

    fn write_through_batch(&mut self) {
        let writes = self.writes(false);
        let mut expected = self.model.clone();
        let (cf, span) = (self.family(), self.span());
        let mut batch = Batch::new(self.node.engine());
        for write in &writes.writes {
            match write.clone() {
                Write::Put { cf, key, value } => batch.put(cf, key, value),
                Write::Delete { cf, key } => batch.delete(cf, key),
                Write::DeleteSpan { .. } => unreachable!("none were asked for"),
            }
        }
        apply(&mut expected, &writes);
        check_scan(&batch, &expected, cf, &span);
        check_gets(&batch, &expected);
        let taken = batch.into_writes();
        self.node.engine().write(taken.clone()).unwrap();
        self.written(&taken);
        assert_eq!(self.model, expected);
    }

    fn check_reads(&mut self) {
        let (cf, span) = (self.family(), self.span());
        check_scan(self.node.engine(), &self.model, cf, &span);
        check_gets(self.node.engine(), &self.model);
        for (snapshot, model) in &self.snapshots {
            check_scan(&**snapshot, model, cf, &span);
        }
    }

    fn take_snapshot(&mut self) {
        if self.snapshots.len() == 3 {
            self.snapshots.remove(0);
        }
        self.snapshots.push((self.node.engine().snapshot(), self.model.clone()));
    }

    fn flush(&mut self) {
        self.node.engine().flush().unwrap();
        self.survivors = vec![self.model.clone()];
    }

    fn install(&mut self) {
        let span = self.span();
        if span.is_empty() {
            return;
        }
        let mut records = Model::new();
        for _ in 0..self.rng.usize(0..20) {
            let (cf, key) = (ColumnFamily::DATA[self.rng.usize(0..4)], self.key());
            if span.contains(&key) {
                records.insert((cf, key), Bytes::from(vec![self.rng.u8(..); 20]));
            }
        }
        let mut staging = self.node.engine().stage().unwrap();
        for ((cf, key), value) in &records {
            staging.add(*cf, &[(key.clone(), value.clone())]).unwrap();
        }
        let staged = staging.finish().unwrap();
        assert_eq!(staged.records, records.len() as u64);
        let mut meta = WriteBatch::default();
        meta.put(ColumnFamily::Meta, self.key(), "installed");
        let mut all = WriteBatch::default();
        for cf in ColumnFamily::DATA {
            all.delete_span(cf, span.clone());
        }
        for ((cf, key), value) in records {
            all.put(cf, key, value);
        }
        all.writes.extend(meta.writes.clone());
        self.node.engine().install(Install { staged: staged.clone(), span, meta }).unwrap();
        apply(&mut self.model, &all);
        // The install is durable when it returns, and with it everything before it.
        self.survivors = vec![self.model.clone()];
        let again = Install { staged, span: Span::everything(), meta: WriteBatch::default() };
        let again = self.node.engine().install(again);
        assert!(matches!(again, Err(Error::Refused(_))), "a snapshot is installed once");
    }

    fn restart(&mut self) {
        self.snapshots.clear();
        self.node.restart();
        self.survivors = vec![self.model.clone()];
        self.check_reads();
    }

    fn crash(&mut self) {
        self.snapshots.clear();
        self.node.crash();
        let found = read_all(self.node.engine());
        assert!(self.survivors.contains(&found), "a crash left what never was, or too little");
        self.model = found;
        self.survivors = vec![self.model.clone()];
    }
}

fn read_all(reader: &dyn Reader) -> Model {
    let mut model = Model::new();
    for cf in ColumnFamily::ALL {
        let mut records = reader.scan(cf, b"", b"", Direction::Forward).unwrap();
        while let Some((key, value)) = records.next().unwrap() {
            let key = (cf, Bytes::copy_from_slice(key));
            model.insert(key, Bytes::copy_from_slice(value));
        }
    }
    model
}

fn check_gets(reader: &dyn Reader, model: &Model) {
    for ((cf, key), value) in model.iter().step_by(7) {
        assert_eq!(reader.get(*cf, key).unwrap().as_ref(), Some(value));
        let absent = [&key[..], b"absent"].concat();
        assert_eq!(reader.get(*cf, &absent).unwrap(), None);
    }
}

fn check_scan(reader: &dyn Reader, model: &Model, cf: ColumnFamily, span: &Span) {
    let inside = |(family, key): &(ColumnFamily, Bytes)| *family == cf && span.contains(key);
    let mut expected: Vec<_> =
        model.iter().filter(|(key, _)| inside(key)).map(|((_, k), v)| (k, v)).collect();
    for direction in [Direction::Forward, Direction::Reverse] {
        let mut records = reader.scan(cf, &span.start, &span.end, direction).unwrap();
        for (key, value) in &expected {
            assert_eq!(records.next().unwrap(), Some((&key[..], &value[..])));
        }
        assert_eq!(records.next().unwrap(), None);
        expected.reverse();
    }
}

fn run(node: impl StateNode, seed: u64, steps: usize) {
    let mut history = History::new(node, seed);
    for _ in 0..steps {
        history.step();
    }
    history.check_reads();
}

#[test]
fn random_histories_of_the_state_in_memory_keep_the_contract() {
    for seed in 0..200 {
        run(MemNode::new(seed), seed, 300);
    }
}

#[cfg(feature = "disk")]
#[test]
fn random_histories_of_the_state_on_disk_keep_the_contract() {
    for seed in 0..6 {
        run(crate::state_node::RocksNode::new(), seed, 250);
    }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let state = MemState::new();
    let mut batch = WriteBatch::default();
    batch.put(ColumnFamily::Current, "a", "1");
    state.write(batch.clone()).unwrap();
    state.set_full(true);
    assert!(matches!(state.write(batch.clone()), Err(Error::Full(_))));
    assert!(matches!(state.flush(), Err(Error::Full(_))));
    assert_eq!(state.get(ColumnFamily::Current, b"a").unwrap().unwrap(), "1");
    state.set_full(false);
    state.flush().unwrap();
    assert_eq!(state.unflushed_batches(), 0);
}

#[test]
fn a_failed_flush_makes_nothing_durable() {
    let state = MemState::new();
    let mut batch = WriteBatch::default();
    batch.put(ColumnFamily::Current, "a", "1");
    state.write(batch).unwrap();
    state.fail_next_flush();
    assert!(matches!(state.flush(), Err(Error::Io(_))));
    assert_eq!(state.unflushed_batches(), 1);
    let lost = (0..64).any(|seed| {
        let state = MemState::new();
        let mut batch = WriteBatch::default();
        batch.put(ColumnFamily::Current, "a", "1");
        state.write(batch).unwrap();
        state.crash(&mut fastrand::Rng::with_seed(seed)) == 1
    });
    assert!(lost, "no crash lost an unflushed batch");
    state.flush().unwrap();
    assert_eq!(state.crash(&mut fastrand::Rng::with_seed(1)), 0);
}
