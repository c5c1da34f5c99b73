//! Bytes as text on one line. UTF-8 stays as it is, except for control characters and backslashes;
//! those and all other bytes become `\n`, `\t`, `\r`, `\\` or `\xNN`. Two different byte strings
//! never look the same, and a line or a column is never broken by what a key or value holds.

/// Returns the bytes as one line of text.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c => push_on_one_line(&mut text, c),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// Puts text on one line. Backslashes stay as they are, so what was escaped already is not changed.
pub fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    text.chars().for_each(|c| push_on_one_line(&mut line, c));
    line
}

fn push_on_one_line(text: &mut String, c: char) {
    match c {
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        '\r' => text.push_str("\\r"),
        c if c.is_control() => push_hex(text, c.encode_utf8(&mut [0; 4]).as_bytes()),
        c => text.push(c),
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("/user/é 漢 {\"a\": 1}".as_bytes()), "/user/é 漢 {\"a\": 1}");
    }

    #[test]
    fn what_would_break_a_line_or_a_terminal_is_escaped() {
        assert_eq!(escape(b"a\tb\nc\r\0\x1b[31m\x7f"), r"a\tb\nc\r\x00\x1b[31m\x7f");
        assert_eq!(escape("\u{85}".as_bytes()), r"\xc2\x85");
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_apart_from_their_escapes() {
        assert_eq!(escape(b"k\xff\xe6\xbc"), r"k\xff\xe6\xbc");
        assert_eq!(escape(br"k\xff"), r"k\\xff");
    }
}
