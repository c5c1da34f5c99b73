//! Random messages of any type, generated from its descriptor: a field that is added to the
//! protocol is sent from then on.
//!
//! Values are drawn by the names of fields, so that many requests pass the first check.

use bytes::Bytes;
use fastrand::Rng;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};
use rangedb_proto::v1::RangeHeader;

/// Maximum depth of nested messages: requests may hold requests.
const DEPTH_MAX: usize = 6;

/// One list, or one text, in so many is long. Each kind of odd key is as rare.
const LONG_ONE_IN: usize = 100;

/// Prefix of the attackers' keys. Attackers do not write other keys: they would have the right to,
/// and other clients would notice.
pub const OWN: &str = "~hostile/";

/// Number of the attackers' keys. Few, so that requests meet each other.
const KEYS: usize = 6;

/// Upper bound of the ids of the cluster's nodes. Attackers name none below it, because an
/// anonymous client has the right to remove nodes.
const NODE_IDS: u64 = 16;

/// Generator of random messages of any type.
pub struct Generator {
    rng: Rng,
    home: RangeHeader,
    /// A timestamp that the oracle has handed out.
    known_ts: u64,
}

impl Generator {
    /// Creates a generator. The range `home` holds the attackers' keys.
    pub fn new(seed: u64, home: RangeHeader, known_ts: u64) -> Self {
        Generator { rng: Rng::with_seed(seed), home, known_ts }
    }

    pub fn message(&mut self, of: &MessageDescriptor) -> DynamicMessage {
        self.nested(of, 0)
    }

    fn nested(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        let mut chosen = Vec::new();
        for oneof in of.oneofs() {
            let members: Vec<FieldDescriptor> = oneof.fields().collect();
            chosen.extend(self.rng.choice(&members).cloned());
        }
        for field in of.fields() {
            let is_wanted = match field.containing_oneof() {
                Some(_) => chosen.contains(&field),
                None => self.rng.usize(0..8) > 0,
            };
            if is_wanted && !(depth >= DEPTH_MAX && matches!(field.kind(), Kind::Message(_))) {
                let value = self.value(of, &field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }

    fn value(&mut self, of: &MessageDescriptor, field: &FieldDescriptor, depth: usize) -> Value {
        assert!(!field.is_map(), "no message has a map");
        if !field.is_list() {
            return self.scalar(of, field, depth);
        }
        let count = match self.rng.usize(0..LONG_ONE_IN) {
            0 if depth < 3 => self.rng.usize(0..2000),
            _ => self.rng.usize(0..4),
        };
        Value::List((0..count).map(|_| self.scalar(of, field, depth)).collect())
    }

    fn scalar(&mut self, of: &MessageDescriptor, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Message(inner) => Value::Message(self.nested(&inner, depth + 1)),
            Kind::Bytes => Value::Bytes(self.bytes(of, field.name())),
            Kind::String => Value::String(self.text()),
            Kind::Bool => Value::Bool(self.rng.bool()),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.number(field.name())),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.small_number(field.name())),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.rng.i64(..)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.rng.i32(..)),
            Kind::Enum(_) => Value::EnumNumber(match self.rng.usize(0..8) {
                0 => self.rng.i32(..),
                _ => self.rng.i32(0..4),
            }),
            Kind::Double => Value::F64(self.rng.f64()),
            Kind::Float => Value::F32(self.rng.f32()),
        }
    }

    fn bytes(&mut self, of: &MessageDescriptor, name: &str) -> Bytes {
        let is_key = ["key", "keys", "primary", "secondaries"].contains(&name)
            || name.ends_with("_key")
            || ["prefix", "after"].contains(&name);
        match is_key {
            true if deletes_span(of) => self.own_key(),
            true => self.any_key(),
            false => {
                vec![self.rng.u8(..); self.rng.choice([0, 9, 700, 70_000]).unwrap_or(0)].into()
            }
        }
    }

    fn own_key(&mut self) -> Bytes {
        format!("{OWN}{}", self.rng.usize(0..KEYS)).into()
    }

    fn any_key(&mut self) -> Bytes {
        match self.rng.usize(0..LONG_ONE_IN) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"_/cluster/id"),
            2 => Bytes::from_static(b"_/"),
            3 => vec![0xff; self.rng.usize(1..9000)].into(),
            4 => vec![0].into(),
            _ => self.own_key(),
        }
    }

    fn text(&mut self) -> String {
        let odd = ["", "a", "\0", "../../x", "é\u{202e}", "x\ny", "127.0.0.1:1", "00-0-0-0"];
        match self.rng.usize(0..LONG_ONE_IN) {
            0 => "x".repeat(self.rng.usize(1..100_000)),
            _ => self.rng.choice(odd).unwrap_or_default().to_owned(),
        }
    }

    fn number(&mut self, name: &str) -> u64 {
        let is_odd = self.rng.usize(0..20) == 0;
        let epoch = self.home.epoch.unwrap_or_default();
        match name {
            _ if name.ends_with("node_id") => self.any_number().max(NODE_IDS),
            "range_id" if !is_odd => self.home.range_id,
            "version" if !is_odd => epoch.version,
            "conf_ver" if !is_odd => epoch.conf_ver,
            _ if name.ends_with("_ts") || name.contains("timestamp") => self.timestamp(),
            _ if name.ends_with("_ms") => self.rng.u64(0..100),
            _ => self.any_number(),
        }
    }

    fn small_number(&mut self, name: &str) -> u32 {
        match name {
            // Short, so that the test does not wait for requests that wait for nothing.
            _ if name.ends_with("_ms") => self.rng.u32(0..50),
            _ => self.any_number() as u32,
        }
    }

    fn timestamp(&mut self) -> u64 {
        match self.rng.usize(0..20) {
            0 => self.any_number(),
            1 => self.known_ts.saturating_add(1 << self.rng.u32(0..40)),
            2 => self.known_ts.saturating_sub(1 << self.rng.u32(0..40)),
            _ => self.known_ts,
        }
    }

    fn any_number(&mut self) -> u64 {
        let draw = self.rng.u64(..);
        let shorter = draw >> self.rng.u32(0..64);
        self.rng.choice([0, 1, 2, 1 << 20, u64::MAX, i64::MAX as u64, draw, shorter]).unwrap_or(0)
    }
}

fn deletes_span(message: &MessageDescriptor) -> bool {
    ["DeleteRange", "DeleteRangeRequest"].contains(&message.name())
}

/// True if the message does what an anonymous client has the right to do and others would notice:
/// deletion of others' keys, or removal of a node.
pub fn is_ones_right(message: &DynamicMessage) -> bool {
    let bytes = |name| message.get_field_by_name(name).and_then(|value| value.as_bytes().cloned());
    let descriptor = message.descriptor();
    if deletes_span(&descriptor) {
        let is_own = |key: Option<Bytes>| key.is_some_and(|key| key.starts_with(OWN.as_bytes()));
        return !(is_own(bytes("start_key")) && is_own(bytes("end_key")));
    }
    if descriptor.name() == "RemoveNode" {
        let node = message.get_field_by_name("node");
        let id =
            node.and_then(|node| node.as_str().and_then(|text| text.trim().parse::<u64>().ok()));
        return id.is_some_and(|id| id < NODE_IDS);
    }
    message.fields().any(|(_, value)| holds_ones_right(value))
}

fn holds_ones_right(value: &Value) -> bool {
    match value {
        Value::Message(message) => is_ones_right(message),
        Value::List(values) => values.iter().any(holds_ones_right),
        _ => false,
    }
}
