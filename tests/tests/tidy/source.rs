//! Form of every Rust file: a head, a bounded length, no unfinished work, no
//! output except the command line's, and tests that wait for conditions, never for time.

use crate::assert_none;
use crate::tree::{self, File};

/// Maximum lines of a file. A file that grows beyond this has a second subject. Most are less than
/// half as long.
const LINES_MAX: usize = 700;

/// Words of unfinished work. Each is put together from parts, so that this file does not hold it.
const UNFINISHED_CALLS: &[&str] = &[
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
];
const UNFINISHED_MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

const PRINTS: &[&str] = &[concat!("print", "ln!("), concat!("print", "!(")];
const SLEEPS: &[&str] = &[concat!("thread::", "sleep"), concat!("time::", "sleep(")];

/// Maximum characters of a comment line, which rustfmt leaves alone: as much as it gives to code,
/// and a word's end. Tables may be wider.
const COMMENT_MAX: usize = 105;

/// Places that print for people: the command line, programs that measure or simulate, examples, and
/// build scripts, which speak to cargo by printing. All other code logs.
const PRINTERS: &[&str] = &["cli/", "benches/", "tests/sim/src/main.rs", EXAMPLES];

/// The documentation shows examples as they stand, and explains them there.
const EXAMPLES: &str = "client/examples/";

/// Tests that sleep, each with the reason why no condition can be waited for instead.
const SLEEPERS: &[(&str, &str)] = &[
    (
        "tests/tests/support/wait.rs",
        "between two looks at whether the condition holds that a test waits for",
    ),
    ("tests/tests/chaos/round.rs", "a fault lasts as long as the seed has drawn"),
];

fn problems(file: &File) -> Vec<String> {
    let mut problems = Vec::new();
    if !file.text.starts_with("//!") && !file.path.starts_with(EXAMPLES) {
        problems.push(format!("{} does not begin with a `//!` head", file.path));
    }
    let count = file.text.lines().count();
    if count > LINES_MAX {
        problems.push(format!("{} has {count} lines, more than {LINES_MAX}", file.path));
    }
    let mut in_tests = is_test_file(&file.path);
    for (at, line) in file.text.lines().enumerate() {
        in_tests |= line.trim() == "#[cfg(test)]";
        if let Some(what) = line_problem(&file.path, line, in_tests) {
            problems.push(format!("{}:{} {what}", file.path, at + 1));
        }
    }
    problems
}

fn line_problem(path: &str, line: &str, in_tests: bool) -> Option<String> {
    if let Some(call) = UNFINISHED_CALLS.iter().find(|call| line.contains(**call)) {
        return Some(format!("leaves work for later: {call}"));
    }
    if let Some(mark) = UNFINISHED_MARKS.iter().find(|mark| has_word(line, mark)) {
        return Some(format!("leaves work for later: {mark}"));
    }
    if line.trim_start().starts_with("//") {
        let is_long = line.chars().count() > COMMENT_MAX && !line.contains('|');
        return is_long.then(|| format!("is a comment of more than {COMMENT_MAX} characters"));
    }
    if PRINTS.iter().any(|print| line.contains(print)) && !may_print(path) {
        return Some("prints: only the command line does, the rest logs".into());
    }
    if in_tests && SLEEPS.iter().any(|sleep| line.contains(sleep)) && !may_sleep(path) {
        return Some("sleeps in a test: wait for the condition".into());
    }
    None
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs")
}

fn may_print(path: &str) -> bool {
    path.ends_with("build.rs") || PRINTERS.iter().any(|printer| path.starts_with(printer))
}

fn may_sleep(path: &str) -> bool {
    SLEEPERS.iter().any(|(sleeper, _)| *sleeper == path)
}

/// True if the word stands in the line by itself and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = line.as_bytes();
    line.match_indices(word)
        .any(|(at, _)| !part(bytes[..at].last()) && !part(bytes.get(at + word.len())))
}

#[test]
fn every_rust_file_keeps_the_house_rules() {
    assert_none(tree::files(|path| path.ends_with(".rs")).iter().flat_map(problems).collect());
}

#[test]
fn every_permission_to_sleep_is_used() {
    let sleeps = |file: &File| SLEEPS.iter().any(|sleep| file.text.contains(sleep));
    let unused = SLEEPERS.iter().filter(|(path, _)| {
        !tree::files(|candidate| candidate == *path).first().is_some_and(sleeps)
    });
    assert_none(unused.map(|(path, _)| format!("{path} does not sleep any more")).collect());
}

#[test]
fn a_file_without_a_head_or_without_an_end_is_caught() {
    assert_eq!(
        problems(&File::new("txn/src/a.rs", "use std::fmt;\n")),
        ["txn/src/a.rs does not begin with a `//!` head"]
    );
    let long = format!("//! Head.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(
        problems(&File::new("txn/src/a.rs", &long)),
        ["txn/src/a.rs has 701 lines, more than 700"]
    );
}

#[test]
fn a_comment_that_runs_out_of_the_page_is_caught_unless_it_is_a_table() {
    let long = "x".repeat(COMMENT_MAX);
    let problem = format!("is a comment of more than {COMMENT_MAX} characters");
    assert_eq!(line_problem("txn/src/a.rs", &format!("//! {long}"), false), Some(problem));
    assert_eq!(line_problem("txn/src/a.rs", &format!("//! | {long}"), false), None);
    assert_eq!(line_problem("txn/src/a.rs", &format!("//! {}", &long[4..]), false), None);
}

#[test]
fn unfinished_work_is_caught_in_code_and_comments_but_not_inside_words() {
    for word in UNFINISHED_CALLS.iter().chain(UNFINISHED_MARKS) {
        for line in [format!("    {word}"), format!("// {word} later")] {
            let found = problems(&File::new("txn/src/a.rs", &format!("//! Head.\n{line}\n")));
            assert_eq!(found, [format!("txn/src/a.rs:2 leaves work for later: {word}")]);
        }
    }
    let inside = format!("//! Head.\nlet A{}_B = 1;\n", UNFINISHED_MARKS[2]);
    assert_none(problems(&File::new("txn/src/a.rs", &inside)));
}

#[test]
fn printing_is_caught_outside_the_command_line_and_outside_comments() {
    for print in PRINTS {
        let text = format!("//! Head.\n/// Example: {print}1);\nfn f() {{ {print}1) }}\n");
        assert_eq!(
            problems(&File::new("server/src/a.rs", &text)),
            ["server/src/a.rs:3 prints: only the command line does, the rest logs"]
        );
        assert_none(problems(&File::new("cli/src/a.rs", &text)));
    }
}

#[test]
fn sleeping_is_caught_in_tests_alone() {
    for sleep in SLEEPS {
        let code = format!("//! Head.\nfn f() {{ {sleep}1) }}\n");
        assert_none(problems(&File::new("server/src/a.rs", &code)));
        let test = code.replace("fn f", "#[cfg(test)]\nfn f");
        let wanted = |at: &str| [format!("{at} sleeps in a test: wait for the condition")];
        assert_eq!(problems(&File::new("server/src/a.rs", &test)), wanted("server/src/a.rs:3"));
        assert_eq!(problems(&File::new("tests/tests/a.rs", &code)), wanted("tests/tests/a.rs:2"));
    }
}
