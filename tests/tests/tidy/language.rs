//! Plain language: heads and documentation that name their subject, and type names that say what a
//! type is and belong to one type each. The rules stand in docs/contributing.md.

use std::collections::BTreeMap;

use crate::assert_none;
use crate::tree::{self, File};

/// Words that begin an indirect question. Documentation names its subject instead: "Routing cache",
/// never the question which range holds a key.
const QUESTIONS: &[&str] =
    &["What", "Whether", "Who", "Whom", "Whose", "How", "Which", "Where", "When", "Why"];

/// Names that tell a stranger nothing, each with the field's word.
const DIALECT: &[(&str, &str)] = &[
    ("Gate", "ConnectionLimit"),
    ("Patience", "LeaderProbe, IdleTimeout"),
    ("Said", "the thing that was reported"),
    ("Told", "the thing that was reported"),
    ("Asked", "the requester or the request"),
    ("Heard", "the last message or heartbeat"),
    ("Seen", "the thing that was read"),
    ("Came", "the event"),
    ("Door", "Listener"),
    ("Performers", "EffectHandlers"),
    ("Pulse", "Liveness"),
    ("Front", "ServiceState"),
    ("Undone", "the outcome of a rollback"),
    ("Elsewhere", "DescriptorHint"),
    ("Waiting", "the thing that waits"),
    ("Place", "the position of what"),
];

/// Names that may stand for one type in all product code. Elsewhere they would be natural, and have
/// meant several things here.
const ONE_TYPE_EACH: &[&str] = &["Locks", "ReadAt", "Effect", "Fate", "Outcome", "Bounds"];

/// Crates of the product. Tests may name their own types as they like, the dialect excepted.
const PRODUCT: &[&str] = &["proto", "storage", "raftstore", "txn", "client", "server", "cli"];

/// Returns line numbers and first words of heads and item docs that begin with a question.
fn questions(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    // The mark of the block that the line before belongs to, if the block has words already.
    let mut begun = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some(mark) = ["///", "//!"].into_iter().find(|mark| line.starts_with(mark)) else {
            begun = "";
            continue;
        };
        let doc = line[mark.len()..].trim();
        let word = doc.split(|c: char| !c.is_alphabetic()).next();
        let word = word.filter(|word| begun != mark && QUESTIONS.contains(word));
        found.extend(word.map(|word| (at + 1, word)));
        if !doc.is_empty() {
            begun = mark;
        }
    }
    found
}

/// Returns the names of types that a text defines, with their line numbers. Associated types are no
/// definitions: their traits name them.
fn defined_types(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let is_indented = line.starts_with(' ');
        let mut rest = line.trim_start();
        while let Some(attribute) = rest.strip_prefix("#[") {
            rest = attribute.split_once(']').map_or("", |(_, rest)| rest).trim_start();
        }
        if let Some(public) = rest.strip_prefix("pub") {
            let path = public.strip_prefix('(').and_then(|path| path.split_once(')'));
            rest = path.map_or(public, |(_, rest)| rest).trim_start();
        }
        rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let Some((kind, rest)) = rest.split_once(' ') else { continue };
        let defines = ["struct", "enum", "trait", "union"].contains(&kind);
        if defines || (kind == "type" && !is_indented) {
            let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
            found.extend(name.map(|name| (at + 1, name)));
        }
    }
    found
}

fn dialect(file: &File) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, name) in defined_types(&file.text) {
        if let Some((_, better)) = DIALECT.iter().find(|(word, _)| *word == name) {
            problems.push(format!("{}:{at} defines {name}: say {better}", file.path));
        }
    }
    problems
}

#[test]
fn documentation_names_its_subject() {
    let files = tree::files(|path| path.ends_with(".rs"));
    let problems = files.iter().flat_map(|file| {
        questions(&file.text).into_iter().map(move |(at, word)| {
            format!("{}:{at} begins with a question ({word}): name the subject", file.path)
        })
    });
    assert_none(problems.collect());
}

#[test]
fn no_type_has_a_name_of_the_private_dialect() {
    assert_none(tree::files(|path| path.ends_with(".rs")).iter().flat_map(dialect).collect());
}

#[test]
fn a_word_that_meant_several_types_names_one() {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let is_product = |path: &str| {
        PRODUCT.iter().any(|krate| path.starts_with(&format!("{krate}/src/")))
            && !path.ends_with("tests.rs")
            && !path.contains("/tests/")
    };
    for file in tree::files(|path| path.ends_with(".rs") && is_product(path)) {
        for (at, name) in defined_types(&file.text) {
            if let Some(word) = ONE_TYPE_EACH.iter().find(|word| **word == name) {
                places.entry(word).or_default().push(format!("{}:{at}", file.path));
            }
        }
    }
    let several = places.into_iter().filter(|(_, places)| places.len() > 1);
    assert_none(several.map(|(word, places)| format!("{word} is {}", places.join(", "))).collect());
}

#[test]
fn questions_are_caught_at_the_beginning_of_a_block_alone() {
    let text = [
        "//! What it is.",
        "//! How it goes on.",
        "",
        "/// Routing cache.",
        "/// When full, it forgets.",
        "fn f();",
        "    /// Whether it is full.",
        "// Why not.",
        "/// Whatever.",
        "fn g();",
        "///",
        "/// Who calls it.",
    ];
    let text = text.join("\n");
    assert_eq!(questions(&text), [(1, "What"), (7, "Whether"), (12, "Who")]);
}

#[test]
fn types_of_the_dialect_are_caught_however_visible() {
    let text = "struct Gate;\n    pub(in crate::a) enum Told {\n/// struct Said\n#[repr(C)] pub struct \
                Gateway;\n    type Place = u8;\n";
    assert_eq!(defined_types(text), [(1, "Gate"), (2, "Told"), (4, "Gateway")]);
    assert_eq!(
        dialect(&File::new("a.rs", text)),
        [
            "a.rs:1 defines Gate: say ConnectionLimit",
            "a.rs:2 defines Told: say the thing that was reported",
        ]
    );
}
