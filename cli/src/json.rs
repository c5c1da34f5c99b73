//! JSON output. A field of bytes keeps its name if the bytes are UTF-8. Otherwise the field's name
//! ends in `_base64` and its value is encoded so. A reader can tell the two apart, and nothing is
//! lost.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rangedb_client::KeyValue;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Prints one object on a line of its own.
pub fn print(out: &mut dyn Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}

/// Adds a field of bytes to an object.
pub fn bytes_entry<M: SerializeMap>(map: &mut M, name: &str, bytes: &[u8]) -> Result<(), M::Error> {
    match str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(name, text),
        Err(_) => map.serialize_entry(&format!("{name}_base64"), &BASE64.encode(bytes)),
    }
}

/// A row of the user's key space.
pub struct Row<'a> {
    pub kv: &'a KeyValue,
    /// False if the values were not requested. They are then unknown, which is not the same as
    /// empty.
    pub with_value: bool,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        bytes_entry(&mut map, "key", &self.kv.key)?;
        if self.with_value {
            bytes_entry(&mut map, "value", &self.kv.value)?;
        }
        map.serialize_entry("version", &self.kv.version)?;
        map.serialize_entry("create_ts", &self.kv.create_ts.0)?;
        map.serialize_entry("mod_ts", &self.kv.mod_ts.0)?;
        if let Some(lease) = self.kv.lease {
            map.serialize_entry("lease", &lease)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangedb_client::Timestamp;

    fn row(key: &'static [u8], value: &'static [u8], with_value: bool) -> String {
        let kv = KeyValue {
            key: key.into(),
            value: value.into(),
            version: 2,
            create_ts: Timestamp(3),
            mod_ts: Timestamp(4),
            lease: None,
        };
        let mut out = Vec::new();
        print(&mut out, &Row { kv: &kv, with_value }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_printed_as_text() {
        let expected = r#"{"key":"/é","value":"a\"b\nc","version":2,"create_ts":3,"mod_ts":4}"#;
        assert_eq!(row("/é".as_bytes(), b"a\"b\nc", true), format!("{expected}\n"));
    }

    #[test]
    fn bytes_that_are_no_text_are_named_as_base64() {
        let expected =
            r#"{"key_base64":"/w==","value_base64":"AP8=","version":2,"create_ts":3,"mod_ts":4}"#;
        assert_eq!(row(b"\xff", b"\0\xff", true), format!("{expected}\n"));
    }

    #[test]
    fn a_value_that_was_not_asked_for_is_left_out() {
        assert_eq!(
            row(b"k", b"", false),
            "{\"key\":\"k\",\"version\":2,\"create_ts\":3,\"mod_ts\":4}\n"
        );
    }
}
