//! Shapes of messages: the memory that each part of a message costs once it is decoded. Computed
//! from the descriptors, in the way that prost makes structs of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// Bytes of a field in a struct: of a string or bytes, a number, a list, a pointer.
const TEXT: usize = 32;
const NUMBER: usize = 8;
const LIST: usize = 24;
const POINTER: usize = 8;

/// A list that grows has up to twice the room that it needs.
const GROWTH: usize = 2;

/// Entries of a map stand in nodes that are partly empty.
const MAP_GROWTH: usize = 3;

/// Returns the source of `SHAPES`, a table that is sorted by name.
pub fn table(files: &[FileDescriptorProto]) -> String {
    let mut messages = BTreeMap::new();
    for file in files {
        for message in &file.message_type {
            gather(&format!(".{}", file.package()), message, &mut messages);
        }
    }
    let places: BTreeMap<&str, usize> =
        messages.keys().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let mut source = String::from("static SHAPES: &[Shape] = &[\n");
    for (name, message) in &messages {
        let parts: Vec<String> =
            message.field.iter().map(|field| part(field, &messages, &places)).collect();
        let name = name.trim_start_matches('.');
        let parts = parts.concat();
        writeln!(source, "Shape {{ name: {name:?}, parts: &[{parts}] }},").expect("to a string");
    }
    source + "];\n"
}

type Messages = BTreeMap<String, DescriptorProto>;

fn gather(above: &str, message: &DescriptorProto, messages: &mut Messages) {
    let name = format!("{above}.{}", message.name());
    for nested in &message.nested_type {
        gather(&name, nested, messages);
    }
    messages.insert(name, message.clone());
}

/// Returns a field as an element of the table: its number, its content, and the cost of each
/// occurrence.
fn part(
    field: &FieldDescriptorProto,
    messages: &Messages,
    places: &BTreeMap<&str, usize>,
) -> String {
    let is_list = field.label() == Label::Repeated;
    let (inner, cost) = match field.r#type() {
        Type::Message => {
            let name = field.type_name();
            let of_element = size(name, messages, &mut Vec::new());
            let is_map = messages[name].options.as_ref().is_some_and(|o| o.map_entry());
            let cost = match (is_list, is_map) {
                (true, true) => of_element * MAP_GROWTH,
                (true, false) => of_element * GROWTH,
                // It stands in the enclosing struct, unless the message is recursive.
                (false, _) => of_element,
            };
            (format!("Inner::Message({})", places[name]), cost)
        }
        Type::String | Type::Bytes => {
            ("Inner::Opaque".to_owned(), if is_list { TEXT * GROWTH } else { 0 })
        }
        _ => ("Inner::Number".to_owned(), if is_list { NUMBER * GROWTH } else { 0 }),
    };
    format!("Part {{ number: {}, inner: {inner}, cost: {cost} }},", field.number())
}

/// Returns the bytes of a message's struct; `above` are the messages that enclose it.
fn size(name: &str, messages: &Messages, above: &mut Vec<String>) -> usize {
    // Recursive fields are boxed.
    if above.iter().any(|seen| seen == name) {
        return POINTER;
    }
    above.push(name.to_owned());
    let mut choices: BTreeMap<i32, usize> = BTreeMap::new();
    let mut bytes = 0;
    for field in &messages[name].field {
        let of_field = match (field.label(), field.r#type()) {
            (Label::Repeated, _) => LIST,
            (_, Type::Message) => NUMBER + size(field.type_name(), messages, above),
            (_, Type::String | Type::Bytes) => TEXT,
            _ if field.proto3_optional() => 2 * NUMBER,
            _ => NUMBER,
        };
        match field.oneof_index {
            Some(choice) if !field.proto3_optional() => {
                let largest = choices.entry(choice).or_default();
                *largest = (*largest).max(of_field);
            }
            _ => bytes += of_field,
        }
    }
    above.pop();
    bytes + choices.values().map(|largest| NUMBER + largest).sum::<usize>()
}
