//! Determinism of raftstore and txn: the same input must have the same effect on every replica and
//! in the simulator. Clippy enforces the bans of their `clippy.toml`. The tests here check that no
//! ban is missing, and that no line of these crates lifts a ban.

use crate::assert_none;
use crate::tree::{self, File};

const CRATES: &[&str] = &["raftstore", "txn"];

/// Subjects that must be banned, each with its paths. At least one of the paths must be in the
/// list.
const BANS: &[(&str, &[&str])] = &[
    ("the monotonic clock", &["std::time::Instant", "std::time::Instant::now"]),
    ("the wall clock", &["std::time::SystemTime", "std::time::SystemTime::now"]),
    ("threads", &["std::thread::spawn"]),
    ("sleep", &[concat!("std::thread::", "sleep")]),
    ("files", &["std::fs::File", "std::fs::read"]),
    ("sockets", &["std::net::TcpStream", "std::net::TcpStream::connect"]),
    ("hash order of maps", &["std::collections::HashMap"]),
    ("hash order of sets", &["std::collections::HashSet"]),
    ("entropy of the standard library", &["std::hash::RandomState"]),
    // The server turns on fastrand's global generator, and features are shared by the workspace.
    ("entropy of fastrand", &["fastrand::Rng::new"]),
];

const LIFTS: &[&str] = &[
    concat!("clippy::", "disallowed_methods"),
    concat!("clippy::", "disallowed_types"),
    concat!("clippy::", "disallowed_macros"),
];

/// Lists bans that a crate's `clippy.toml` lacks, and bans without a reason.
fn ban_problems(file: &File) -> Vec<String> {
    let table: toml::Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![format!("{}: {error}", file.path)],
    };
    let mut banned = Vec::new();
    let mut problems = Vec::new();
    for list in ["disallowed-methods", "disallowed-types"] {
        for entry in table.get(list).and_then(toml::Value::as_array).into_iter().flatten() {
            let path = entry.get("path").unwrap_or(entry).as_str().unwrap_or_default();
            if entry.get("reason").is_none() {
                problems.push(format!("{}: the ban of {path} gives no reason", file.path));
            }
            banned.push(path);
        }
    }
    for (what, paths) in BANS {
        if !paths.iter().any(|path| banned.contains(path)) {
            problems.push(format!("{} does not ban {what} ({})", file.path, paths[0]));
        }
    }
    problems
}

fn lift_problems(file: &File) -> Vec<String> {
    let lines = file.text.lines().enumerate();
    lines
        .filter(|(_, line)| LIFTS.iter().any(|lift| line.contains(lift)))
        .map(|(at, _)| format!("{}:{} lifts a ban of a deterministic crate", file.path, at + 1))
        .collect()
}

#[test]
fn deterministic_crates_ban_clocks_threads_entropy_and_hash_order() {
    let mut problems = Vec::new();
    for name in CRATES {
        match tree::files(|path| path == format!("{name}/clippy.toml")).first() {
            Some(file) => problems.extend(ban_problems(file)),
            None => problems.push(format!("{name} has no clippy.toml")),
        }
    }
    assert_none(problems);
}

#[test]
fn no_line_of_a_deterministic_crate_lifts_a_ban() {
    let of_crates =
        |path: &str| CRATES.iter().any(|name| path.starts_with(&format!("{name}/src/")));
    assert_none(tree::files(of_crates).iter().flat_map(lift_problems).collect());
}

#[test]
fn a_missing_ban_and_a_ban_without_a_reason_are_caught() {
    let bans =
        BANS.iter().map(|(_, paths)| format!("{{ path = \"{}\", reason = \"r\" }}", paths[0]));
    let all: Vec<String> = bans.collect();
    let sound = format!("disallowed-types = [{}]", all.join(", "));
    assert_none(ban_problems(&File::new("txn/clippy.toml", &sound)));

    let without_clock = format!("disallowed-types = [{}]", all[1..].join(", "));
    assert_eq!(
        ban_problems(&File::new("txn/clippy.toml", &without_clock)),
        ["txn/clippy.toml does not ban the monotonic clock (std::time::Instant)"]
    );

    let without_reason = sound.replacen(", reason = \"r\"", "", 1);
    assert_eq!(
        ban_problems(&File::new("txn/clippy.toml", &without_reason)),
        ["txn/clippy.toml: the ban of std::time::Instant gives no reason"]
    );
}

#[test]
fn a_lifted_ban_is_caught_with_its_line() {
    let text = format!("//! Head.\n#[allow({})]\nfn f() {{}}\n", LIFTS[0]);
    assert_eq!(
        lift_problems(&File::new("txn/src/lib.rs", &text)),
        ["txn/src/lib.rs:2 lifts a ban of a deterministic crate"]
    );
}
