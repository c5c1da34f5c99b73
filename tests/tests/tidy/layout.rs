//! Layout of the checkout's top: these names and no others.

use crate::{assert_none, tree};

const TOP_LEVEL: &[&str] = &[
    // The workspace.
    "Cargo.lock",
    "Cargo.toml",
    "benches",
    "cli",
    "client",
    "proto",
    "raftstore",
    "server",
    "storage",
    "tests",
    "txn",
    // Beside it.
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "deny.toml",
    "deploy",
    "docs",
    "rustfmt.toml",
    // Hidden.
    ".ci",
    ".dockerignore",
    ".gitignore",
];

fn problems(names: &[String]) -> Vec<String> {
    let extra = names.iter().filter(|name| !TOP_LEVEL.contains(&name.as_str()));
    let missing = TOP_LEVEL.iter().filter(|wanted| !names.iter().any(|name| name == *wanted));
    let extra = extra.map(|name| format!("{name} does not belong at the top level"));
    extra.chain(missing.map(|name| format!("{name} is missing at the top level"))).collect()
}

#[test]
fn the_top_level_holds_what_the_design_lists() {
    assert_none(problems(&tree::top_level()));
}

#[test]
fn a_stranger_and_a_gap_at_the_top_level_are_caught() {
    let mut names: Vec<String> = TOP_LEVEL.iter().map(|name| name.to_string()).collect();
    assert_none(problems(&names));
    names.retain(|name| name != "LICENSE");
    names.push("notes.txt".into());
    assert_eq!(
        problems(&names),
        ["notes.txt does not belong at the top level", "LICENSE is missing at the top level",]
    );
}
