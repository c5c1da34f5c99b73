//! Dependencies between crates point one way: proto, storage <- txn, raftstore (which do not know
//! each other) <- server; proto <- client <- cli. The server uses the client as its gateway, and
//! the cli starts the server, because there is one binary. tests and benches may see everything.

use std::process::Command;

use serde_json::Value;

use crate::{assert_none, tree};

/// Every crate, and exactly the crates of the workspace that it depends on.
const GRAPH: &[(&str, &[&str])] = &[
    ("rangedb-proto", &[]),
    ("rangedb-storage", &[]),
    ("rangedb-txn", &["rangedb-proto", "rangedb-storage"]),
    ("rangedb-raftstore", &["rangedb-proto", "rangedb-storage"]),
    ("rangedb-client", &["rangedb-proto"]),
    (
        "rangedb-server",
        &["rangedb-client", "rangedb-proto", "rangedb-raftstore", "rangedb-storage", "rangedb-txn"],
    ),
    ("rangedb", &["rangedb-client", "rangedb-proto", "rangedb-server"]),
    ("rangedb-workload", &["rangedb-client", "rangedb-proto"]),
];

/// Crates that may depend on all others.
const FREE: &[&str] = &["rangedb-tests", "rangedb-sim", "rangedb-benches"];

/// Crate on which all others may depend, under the rules of `planted.rs`.
const PLANTED: &str = "rangedb-planted";

/// Crates that the simulator runs unchanged, and dependencies that would bring a clock, threads,
/// sockets or entropy into them. A feature that is off by default may bring one (storage's disk,
/// proto's grpc).
const DETERMINISTIC: &[&str] =
    &["rangedb-proto", "rangedb-storage", "rangedb-txn", "rangedb-raftstore"];
const NEVER_IN_DETERMINISTIC: &[&str] = &[
    "axum",
    "crossbeam-channel",
    "futures",
    "prometheus",
    "raft-engine",
    "rand",
    "rocksdb",
    "rustix",
    "tokio",
    "tonic",
];

/// Lists breaches of the graph in the output of `cargo metadata --no-deps`.
fn problems(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let mut problems = Vec::new();
    for package in packages {
        let name = text(&package["name"]);
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        if let Some((_, wanted)) = GRAPH.iter().find(|(known, _)| *known == name) {
            problems.extend(edge_problems(name, wanted, dependencies));
        } else if !FREE.contains(&name) && name != PLANTED {
            problems.push(format!("{name} is a new crate: give it a place in the graph"));
        }
        if DETERMINISTIC.contains(&name) {
            problems.extend(outside_problems(name, dependencies));
        }
    }
    for (known, _) in GRAPH {
        if !packages.iter().any(|package| text(&package["name"]) == *known) {
            problems.push(format!("{known} is not in the workspace"));
        }
    }
    problems
}

fn edge_problems(name: &str, wanted: &[&str], dependencies: &[Value]) -> Vec<String> {
    let ours = |dependency: &&Value| dependency["path"].is_string();
    let mut problems = Vec::new();
    for dependency in dependencies.iter().filter(ours) {
        let to = text(&dependency["name"]);
        if !wanted.contains(&to) && to != PLANTED {
            problems.push(format!("{name} must not depend on {to}"));
        }
    }
    for to in wanted {
        let is_edge =
            |dependency: &Value| dependency["name"] == *to && dependency["kind"].is_null();
        if !dependencies.iter().any(is_edge) {
            problems.push(format!("{name} no longer depends on {to}: take it out of the graph"));
        }
    }
    problems
}

fn outside_problems(name: &str, dependencies: &[Value]) -> Vec<String> {
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null() && dependency["optional"] == false)
        .map(|dependency| text(&dependency["name"]))
        .filter(|to| NEVER_IN_DETERMINISTIC.contains(to))
        .map(|to| format!("{name} must be deterministic, and {to} is not"))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string in cargo's metadata")
}

/// Returns cargo's metadata of the crates of the workspace.
pub fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(tree::root())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[test]
fn crates_depend_on_each_other_as_the_design_says() {
    assert_none(problems(&metadata()));
}

/// Builds the workspace as `GRAPH` wants it, in the form of cargo's metadata.
#[cfg(test)]
fn sound_workspace() -> Value {
    let edge =
        |to: &&str| serde_json::json!({"name": to, "kind": null, "optional": false, "path": "/"});
    let package = |(name, to): &(&str, &[&str])| {
        let dependencies: Vec<Value> = to.iter().map(edge).collect();
        serde_json::json!({"name": name, "dependencies": dependencies})
    };
    serde_json::json!({"packages": GRAPH.iter().map(package).collect::<Vec<_>>()})
}

#[cfg(test)]
fn depend(workspace: &mut Value, from: &str, dependency: Value) {
    let packages = workspace["packages"].as_array_mut().expect("packages");
    let package = packages.iter_mut().find(|package| package["name"] == from).expect("the crate");
    package["dependencies"].as_array_mut().expect("dependencies").push(dependency);
}

#[test]
fn a_sound_graph_has_no_problems() {
    assert_none(problems(&sound_workspace()));
}

#[test]
fn an_edge_against_the_graph_is_caught_even_for_tests_of_a_crate() {
    let mut workspace = sound_workspace();
    let edge = serde_json::json!(
        {"name": "rangedb-raftstore", "kind": "dev", "optional": false, "path": "/"});
    depend(&mut workspace, "rangedb-txn", edge);
    assert_eq!(problems(&workspace), ["rangedb-txn must not depend on rangedb-raftstore"]);
}

#[test]
fn a_runtime_in_a_deterministic_crate_is_caught_unless_a_feature_brings_it() {
    let mut workspace = sound_workspace();
    let tokio = serde_json::json!({"name": "tokio", "kind": null, "optional": false});
    let rocksdb = serde_json::json!({"name": "rocksdb", "kind": null, "optional": true});
    depend(&mut workspace, "rangedb-storage", tokio);
    depend(&mut workspace, "rangedb-storage", rocksdb);
    assert_eq!(problems(&workspace), ["rangedb-storage must be deterministic, and tokio is not"]);
}

#[test]
fn new_lost_and_unconnected_crates_are_caught() {
    let mut workspace = sound_workspace();
    workspace["packages"][0]["name"] = "rangedb-extra".into();
    workspace["packages"][4]["dependencies"] = serde_json::json!([]);
    assert_eq!(
        problems(&workspace),
        [
            "rangedb-extra is a new crate: give it a place in the graph",
            "rangedb-client no longer depends on rangedb-proto: take it out of the graph",
            "rangedb-proto is not in the workspace",
        ]
    );
}
