//! One profile and one feature set (docs/adr/0002-one-build.md). No script may ask cargo for
//! another. That would compile RocksDB a second time, and the only sign of it is a quarter of an
//! hour.

use crate::assert_none;
use crate::tree::{self, File};

/// Subcommands of cargo that compile.
const COMPILING: &[&str] = &["bench", "build", "check", "clippy", "doc", "run", "rustc", "test"];
const WANTED: &[&str] = &["--release", "--workspace"];

/// Lists calls of cargo in a script that compile in another way than all others.
fn call_problems(script: &File) -> Vec<String> {
    let joined = script.text.replace("\\\n", " ");
    let mut problems = Vec::new();
    for line in joined.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for (at, call) in line.match_indices("cargo ") {
            let words = words_of_call(&line[at + call.len()..]);
            let compiles = words.first().is_some_and(|word| COMPILING.contains(word));
            // Asking a subcommand for its version compiles nothing.
            if !compiles || words.contains(&"--version") {
                continue;
            }
            for wanted in WANTED.iter().filter(|wanted| !words.contains(wanted)) {
                problems.push(format!("{}: `cargo {}` lacks {wanted}", script.path, words[0]));
            }
        }
    }
    problems
}

/// Returns the words of a call that cargo itself gets: up to the end of the command, or up to `--`.
fn words_of_call(rest: &str) -> Vec<&str> {
    let command = rest.split(['&', '|', ';', '>']).next().unwrap_or_default();
    command.split_whitespace().take_while(|word| *word != "--").collect()
}

/// Lists profiles other than release in the root manifest.
fn profile_problems(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    let profiles = manifest.get("profile").and_then(toml::Value::as_table).into_iter().flatten();
    profiles
        .filter(|(name, _)| *name != "release")
        .map(|(name, _)| format!("Cargo.toml has a profile {name}"))
        .collect()
}

#[test]
fn every_script_compiles_one_profile_and_the_whole_workspace() {
    let script = |path: &str| {
        ["Makefile", "Dockerfile"].contains(&path)
            || path.starts_with(".ci/")
            || path.ends_with(".sh")
    };
    let scripts = tree::files(script);
    assert!(scripts.iter().any(|script| script.text.contains("cargo ")), "no call was looked at");
    assert_none(scripts.iter().flat_map(call_problems).collect());
}

#[test]
fn the_workspace_has_one_profile() {
    assert_none(profile_problems(&tree::read("Cargo.toml").text));
}

#[test]
fn a_call_that_would_compile_rocksdb_again_is_caught() {
    let text = "# cargo test is fine in a comment\ncargo fmt --all\ncargo build --release \\\n\
        \t--workspace && cargo test -- --release\ncargo clippy --version; }\n";
    assert_eq!(
        call_problems(&File::new("Makefile", text)),
        ["Makefile: `cargo test` lacks --release", "Makefile: `cargo test` lacks --workspace",]
    );
}

#[test]
fn a_second_profile_is_caught() {
    assert_eq!(
        profile_problems("[profile.release]\n[profile.bench]\n"),
        ["Cargo.toml has a profile bench"]
    );
}
