//! Word splitting of a repl's line. It is close to a shell's, but leaves pasted values unchanged,
//! JSON above all.
//!
//! * Blanks separate words.
//! * A word that begins with `{` or `[` goes on to the bracket that closes it, with blanks, quotes
//!   and backslashes as they stand: `put /a {"name": "John"}`. If nothing closes it, it is a plain
//!   word.
//! * A word that begins with `'` goes on to the next `'`, everything as it stands.
//! * A word that begins with `"` goes on to the next `"` without a backslash. In it `\"`, `\\`,
//!   `\n`, `\r`, `\t` and `\xNN` are escapes, the same as in printed answers.
//! * In all other words quotes and backslashes are plain characters: `it's`.
//! * A line that begins with `#` is a comment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Splits a line into words. The error says what is wrong with the line.
pub fn split(line: &[u8]) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    if rest.starts_with(b"#") {
        return Ok(words);
    }
    while !rest.is_empty() {
        let (word, behind) = match rest[0] {
            b'\'' => quoted(&rest[1..])?,
            b'"' => escaped(&rest[1..])?,
            b'{' | b'[' => plain(rest, closing_bracket(rest).unwrap_or(0)),
            _ => plain(rest, 0),
        };
        words.push(OsString::from_vec(word));
        rest = behind.trim_ascii_start();
    }
    Ok(words)
}

type Word<'a> = (Vec<u8>, &'a [u8]);

/// Takes a word up to the first blank at or behind the offset `first`.
fn plain(text: &[u8], first: usize) -> Word<'_> {
    let end = text[first..].iter().position(u8::is_ascii_whitespace);
    let (word, behind) = text.split_at(end.map_or(text.len(), |end| first + end));
    (word.to_vec(), behind)
}

/// Returns the length of the text up to and including the bracket that closes the first one, if
/// there is such a bracket. Brackets in JSON's strings do not count.
fn closing_bracket(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut after_backslash) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if after_backslash => after_backslash = false,
            b'\\' if in_string => after_backslash = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Takes a word up to the next `'`.
fn quoted(text: &[u8]) -> Result<Word<'_>, String> {
    let end = text.iter().position(|byte| *byte == b'\'').ok_or("a ' is not closed")?;
    Ok((text[..end].to_vec(), behind_quote(&text[end + 1..])?))
}

/// Takes a word up to the next `"` and replaces its escapes.
fn escaped(text: &[u8]) -> Result<Word<'_>, String> {
    let mut word = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Err("a \" is not closed".to_owned()),
            [b'"', behind @ ..] => return Ok((word, behind_quote(behind)?)),
            [b'\\', b'x', high, low, behind @ ..] => {
                word.push(hex(*high)? << 4 | hex(*low)?);
                behind
            }
            [b'\\', escape, behind @ ..] => {
                word.push(match escape {
                    b'"' | b'\\' => *escape,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => return Err(no_escape()),
                });
                behind
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                behind
            }
        };
    }
}

fn hex(digit: u8) -> Result<u8, String> {
    let value = char::from(digit).to_digit(16).ok_or_else(no_escape)?;
    Ok(value as u8)
}

fn no_escape() -> String {
    r#"in "..." a backslash stands before one of " \ n r t xNN; in '...' it is a plain character"#
        .to_owned()
}

/// Returns the text behind a closing quote. The quote must end the word: `'a'b` is refused rather
/// than read as a shell would.
fn behind_quote(rest: &[u8]) -> Result<&[u8], String> {
    if rest.first().is_none_or(u8::is_ascii_whitespace) {
        return Ok(rest);
    }
    Err("a blank must follow the closing quote".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::escape;

    #[track_caller]
    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes()).unwrap().into_iter();
        words.map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn json_is_the_same_with_and_without_quotes() {
        for json in [
            r#"{"name": "John"}"#,
            r#"{"a": [1, {"b": "} ] { \" "}], "c":"it's"  }"#,
            r#"["x y", [ ]]"#,
            "{}",
        ] {
            assert_eq!(words(&format!("put /user/1 {json}")), ["put", "/user/1", json]);
            assert_eq!(
                words(&format!("batch put a {json} b {json} --x")),
                ["batch", "put", "a", json, "b", json, "--x"]
            );
        }
        let json = r#"{"name": "John"}"#;
        assert_eq!(words(&format!("put /user/1 '{json}'")), ["put", "/user/1", json]);
    }

    #[test]
    fn quotes_group_only_where_a_word_begins_with_them() {
        assert_eq!(words("put /a it's"), ["put", "/a", "it's"]);
        assert_eq!(words(r#"put /a x="1""#), ["put", "/a", r#"x="1""#]);
        assert_eq!(words(r"put  /a\t	b "), ["put", r"/a\t", "b"]);
        assert_eq!(words(r#"put '' """#), ["put", "", ""]);
        assert_eq!(words(r#"put 'a "b" \n' "a 'b'""#), ["put", r#"a "b" \n"#, "a 'b'"]);
    }

    #[test]
    fn what_answers_show_escaped_can_be_pasted_back() {
        let bytes = b"a\n\t\r\\\xff\x00\x7f";
        let mut pasted = b"get \"".to_vec();
        pasted.extend(escape(bytes).into_bytes());
        pasted.extend(b"\"");
        assert_eq!(split(&pasted).unwrap()[1].as_encoded_bytes(), bytes);
    }

    #[test]
    fn brackets_that_are_not_closed_are_plain_words() {
        assert_eq!(words(r#"put /a [^"]+ b"#), ["put", "/a", r#"[^"]+"#, "b"]);
        assert_eq!(words("put /a {x y"), ["put", "/a", "{x", "y"]);
        assert_eq!(words("put /a {x}y z"), ["put", "/a", "{x}y", "z"]);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for line in [
            "put /a 'x",
            "put /a \"x",
            "put /a 'x'y",
            "put /a \"x\"y",
            r#"put /a "\q""#,
            r#"put /a "\xg0""#,
            r#"put /a "\x1"#,
            r#"put /a "\"#,
        ] {
            assert!(split(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn empty_lines_and_comments_have_no_words() {
        for line in ["", "  \t ", "# put /a b", "  #"] {
            assert!(words(line).is_empty(), "{line:?}");
        }
        assert_eq!(words("get #1"), ["get", "#1"]);
    }
}
