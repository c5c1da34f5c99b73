//! Inputs: random bytes, and valid encodings after some mutations.

use proptest::prelude::*;

/// Maximum length of a random input.
const RANDOM_BYTES_MAX: usize = 300;

/// Encodings of absurd lengths and counts, as varints and as the numbers in records.
const ABSURD: [&[u8]; 8] = [
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x80\x80\x80\x08",
];

/// A change of an input. Places are taken modulo the length.
#[derive(Clone, Debug)]
enum Mutation {
    Flip {
        place: usize,
        bit: u8,
    },
    Set {
        place: usize,
        byte: u8,
    },
    Cut {
        length: usize,
    },
    CutFront {
        length: usize,
    },
    Insert {
        place: usize,
        bytes: Vec<u8>,
    },
    /// An absurd number in place of one byte, or over as many bytes as it has.
    Absurd {
        place: usize,
        which: usize,
        over: bool,
    },
    /// A piece is repeated.
    Repeat {
        place: usize,
        length: usize,
        times: usize,
    },
    /// The rest is replaced by the rest of another sample.
    Splice {
        place: usize,
        other: usize,
        from: usize,
    },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<usize>;
    prop_oneof![
        (place(), 0..8_u8).prop_map(|(place, bit)| Mutation::Flip { place, bit }),
        (place(), any::<u8>()).prop_map(|(place, byte)| Mutation::Set { place, byte }),
        place().prop_map(|length| Mutation::Cut { length }),
        place().prop_map(|length| Mutation::CutFront { length }),
        (place(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(place, bytes)| Mutation::Insert { place, bytes }),
        (place(), 0..ABSURD.len(), any::<bool>())
            .prop_map(|(place, which, over)| Mutation::Absurd { place, which, over }),
        (place(), 1..40_usize, 1..20_usize).prop_map(|(place, length, times)| Mutation::Repeat {
            place,
            length,
            times
        }),
        (place(), place(), place()).prop_map(|(place, other, from)| Mutation::Splice {
            place,
            other,
            from
        }),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, samples: &[Vec<u8>]) {
    let length = bytes.len();
    match mutation {
        Mutation::Flip { place, bit } if length > 0 => bytes[place % length] ^= 1 << bit,
        Mutation::Set { place, byte } if length > 0 => bytes[place % length] = *byte,
        Mutation::Cut { length: kept } if length > 0 => bytes.truncate(kept % length),
        Mutation::CutFront { length: gone } if length > 0 => drop(bytes.drain(..gone % length)),
        Mutation::Insert { place, bytes: inserted } => {
            let place = place % (length + 1);
            bytes.splice(place..place, inserted.iter().copied());
        }
        Mutation::Absurd { place, which, over } => {
            let (place, absurd) = (place % (length + 1), ABSURD[*which]);
            let replaced = if *over { absurd.len() } else { 1 };
            bytes.splice(place..length.min(place + replaced), absurd.iter().copied());
        }
        Mutation::Repeat { place, length: piece, times } => {
            let from = place % (length + 1);
            let to = length.min(from + piece);
            let repeated = bytes[from..to].repeat(*times);
            bytes.splice(from..from, repeated);
        }
        Mutation::Splice { place, other, from } => {
            let other = &samples[other % samples.len()];
            bytes.truncate(place % (length + 1));
            bytes.extend_from_slice(&other[from % (other.len() + 1)..]);
        }
        _ => {}
    }
}

/// Generates inputs. One in four is random. The others are samples with up to four mutations.
pub fn input(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let from_nowhere = prop::collection::vec(any::<u8>(), 0..RANDOM_BYTES_MAX);
    let mutations = prop::collection::vec(mutation(), 0..5);
    let mutated = (0..samples.len(), mutations).prop_map(move |(place, mutations)| {
        let mut bytes = samples[place].clone();
        for mutation in &mutations {
            mutate(&mut bytes, mutation, &samples);
        }
        bytes
    });
    prop_oneof![1 => from_nowhere, 3 => mutated]
}

/// Returns a configuration with `PROPTEST_CASES` cases, or proptest's default. The number is
/// divided by `share` where one case costs as much as many others.
pub fn cases(share: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: (default.cases / share).max(1),
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..default
    }
}
