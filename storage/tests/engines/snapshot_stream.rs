//! Chunks of a span: an unchanged stream arrives as it was sent, a changed one is refused.

use bytes::Bytes;
use rangedb_storage::{
    Chunk, ChunkReader, ChunkReceiver, ColumnFamily, Error, Install, MemState, Reader, Result,
    SNAPSHOT_CHUNK_BYTES, SnapshotTotals, Span, StateEngine, WriteBatch, chunk_crc32, state_hash,
};

fn span() -> Span {
    Span { start: "b".into(), end: "d".into() }
}

/// Two large families with other ranges' records around the span, and a small one.
fn sender() -> MemState {
    let state = MemState::new();
    let mut batch = WriteBatch::default();
    for cf in [ColumnFamily::Current, ColumnFamily::Value] {
        for prefix in ["a", "b", "c", "d"] {
            for number in 0..50 {
                batch.put(cf, format!("{prefix}{number:02}"), vec![number; 20_000]);
            }
        }
    }
    batch.put(ColumnFamily::Lock, "b1", "");
    batch.put(ColumnFamily::Meta, "c", "not a range's data");
    state.write(batch).unwrap();
    state
}

fn chunks(state: &MemState) -> (Vec<Chunk>, SnapshotTotals) {
    let mut reader = ChunkReader::new(state.snapshot(), span());
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        chunks.push(chunk);
    }
    (chunks, reader.finish())
}

fn receive(chunks: &[Chunk], totals: SnapshotTotals) -> Result<MemState> {
    let state = MemState::new();
    let mut receiver = ChunkReceiver::new(state.stage()?, span());
    for chunk in chunks {
        receiver.add(chunk)?;
    }
    let staged = receiver.finish(totals)?;
    state.install(Install { staged, span: span(), meta: WriteBatch::default() })?;
    Ok(state)
}

#[test]
fn what_was_sent_is_what_is_installed() {
    let sender = sender();
    let (chunks, totals) = chunks(&sender);
    assert_eq!(totals.records, 201);
    assert!(chunks.len() > 3, "records of a family take several chunks");
    for chunk in &chunks {
        let bytes: usize = chunk.records.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(
            bytes < SNAPSHOT_CHUNK_BYTES + 20_003,
            "a chunk ends with the record that fills it"
        );
    }
    let receiver = receive(&chunks, totals).unwrap();
    let hash = |state: &MemState, span: Span| state_hash(state, &span).unwrap();
    assert_eq!(hash(&receiver, Span::everything()), hash(&sender, span()));
    assert_eq!(receiver.get(ColumnFamily::Meta, b"c").unwrap(), None);
}

#[test]
fn an_empty_span_is_a_stream_without_chunks() {
    let (chunks, totals) = chunks(&MemState::new());
    assert!(chunks.is_empty());
    let receiver = receive(&chunks, totals).unwrap();
    let hash = |state: &MemState| state_hash(state, &Span::everything()).unwrap();
    assert_eq!(hash(&receiver), hash(&MemState::new()));
}

/// A change to a stream on its way.
type Damage = fn(&mut Vec<Chunk>, &mut SnapshotTotals);

#[test]
fn whatever_is_changed_on_the_way_is_refused() {
    let recheck = |chunk: &mut Chunk| chunk.crc32 = chunk_crc32(chunk.cf, &chunk.records);
    assert_eq!(
        {
            let mut c = chunks(&sender()).0.remove(0);
            recheck(&mut c);
            c.crc32
        },
        chunks(&sender()).0[0].crc32
    );
    let cases: &[(&str, Damage)] = &[
        ("a flipped bit of a value", |chunks, _| {
            let value = &mut chunks[1].records[0].1;
            let mut bytes = value.to_vec();
            bytes[7] ^= 1;
            *value = Bytes::from(bytes);
        }),
        ("a byte moved from the value to the key", |chunks, _| {
            let (key, value) = &mut chunks[0].records[0];
            *key = [&key[..], &value[..1]].concat().into();
            *value = value.slice(1..);
        }),
        ("another family", |chunks, _| chunks[0].cf = ColumnFamily::History),
        ("a chunk left out", |chunks, _| drop(chunks.remove(1))),
        ("the last chunk left out", |chunks, _| drop(chunks.pop())),
        ("a chunk sent twice", |chunks, _| chunks.insert(1, chunks[0].clone())),
        ("chunks swapped", |chunks, _| chunks.swap(0, 1)),
        ("another checksum of the whole", |_, totals| totals.crc32 ^= 1),
        ("another number of records", |_, totals| totals.records += 1),
        ("a record of another range", |chunks, _| {
            chunks[0].records[0].0 = Bytes::from_static(b"a");
            chunks[0].crc32 = chunk_crc32(chunks[0].cf, &chunks[0].records);
        }),
        ("records of the meta family", |chunks, _| {
            chunks[0].cf = ColumnFamily::Meta;
            chunks[0].crc32 = chunk_crc32(chunks[0].cf, &chunks[0].records);
        }),
        ("a chunk without records", |chunks, _| {
            chunks[0].records.clear();
            chunks[0].crc32 = chunk_crc32(chunks[0].cf, &chunks[0].records);
        }),
    ];
    let sender = sender();
    for (case, damage) in cases {
        let (mut chunks, mut totals) = chunks(&sender);
        damage(&mut chunks, &mut totals);
        let received = receive(&chunks, totals);
        assert!(matches!(received, Err(Error::Corrupt { .. })), "{case}");
    }
}
