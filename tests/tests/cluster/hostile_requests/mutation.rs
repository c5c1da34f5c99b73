//! Mutation of encoded messages, field by field, as a client with another version of the protocol,
//! or with a bug, would send them.

use fastrand::Rng;

/// Wire types of protobuf's encoding.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// An encoded field. The value of a length-delimited field is without its length.
#[derive(Clone)]
struct Field {
    number: u64,
    wire_type: u64,
    value: Vec<u8>,
}

/// Changes one thing about the message.
pub fn mutate(rng: &mut Rng, message: &[u8]) -> Vec<u8> {
    // Some mutations do not regard fields.
    let mut bytes = message.to_vec();
    match rng.usize(0..12) {
        0 => {
            bytes.truncate(rng.usize(0..=bytes.len()));
            return bytes;
        }
        1 => {
            bytes.extend((0..rng.usize(1..20)).map(|_| rng.u8(..)));
            return bytes;
        }
        2 if !bytes.is_empty() => {
            let place = rng.usize(0..bytes.len());
            bytes[place] ^= 1 << rng.u32(0..8);
            return bytes;
        }
        _ => {}
    }
    let Some(mut fields) = fields(message).filter(|fields| !fields.is_empty()) else {
        return bytes;
    };
    let place = rng.usize(0..fields.len());
    match rng.usize(0..10) {
        0 => drop(fields.remove(place)),
        1 => fields.insert(place, fields[place].clone()),
        2 => fields.rotate_left(place),
        3 => fields[place].number = rng.u64(0..40),
        4 => fields[place].wire_type = rng.u64(0..8),
        5 => {
            let many = vec![fields[place].clone(); 200];
            fields.extend(many);
        }
        _ => {
            let field = &mut fields[place];
            field.value = match field.wire_type {
                LENGTH => mutate(rng, &field.value),
                VARINT => {
                    let draw = rng.u64(..) >> rng.u32(0..64);
                    varint(rng.choice([0, 1, u64::MAX, draw]).unwrap_or(0))
                }
                _ => (0..field.value.len()).map(|_| rng.u8(..)).collect(),
            };
        }
    }
    encode(&fields)
}

fn fields(mut message: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let (number, wire_type) = (key >> 3, key & 7);
        let length = match wire_type {
            VARINT => message.iter().position(|byte| *byte < 0x80)? + 1,
            FIXED64 => 8,
            LENGTH => usize::try_from(take_varint(&mut message)?).ok()?,
            FIXED32 => 4,
            _ => return None,
        };
        let (value, rest) = message.split_at_checked(length)?;
        fields.push(Field { number, wire_type, value: value.to_vec() });
        message = rest;
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend(varint(field.number << 3 | field.wire_type));
        if field.wire_type == LENGTH {
            bytes.extend(varint(field.value.len() as u64));
        }
        bytes.extend(&field.value);
    }
    bytes
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
