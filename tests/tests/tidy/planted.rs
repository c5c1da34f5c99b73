//! Planted bugs stay out of everything that people run. The feature that compiles them is off by
//! default. A crate turns it on in another crate only through its own feature of that name. The
//! simulator needs no engine on disk, so that it can be built with that feature in a minute.

use serde_json::Value;

use crate::{assert_none, graph};

const FEATURE: &str = "planted";
const CRATE: &str = "rangedb-planted";

fn problems(metadata: &Value) -> Vec<String> {
    list(&metadata["packages"]).iter().flat_map(package_problems).collect()
}

fn package_problems(package: &Value) -> Vec<String> {
    let name = text(&package["name"]);
    let mut problems = Vec::new();
    for dependency in list(&package["dependencies"]) {
        let to = text(&dependency["name"]);
        if to == CRATE && dependency["optional"] == false {
            problems.push(format!("{name} always has {CRATE}"));
        }
        if list(&dependency["features"]).iter().any(|feature| text(feature) == FEATURE) {
            problems.push(format!("{name} turns on {FEATURE} of {to}"));
        }
        let shell = dependency["uses_default_features"] == true
            || list(&dependency["features"]).iter().any(|feature| text(feature) == "shell");
        if name == "rangedb-sim" && to == "rangedb-server" && shell {
            problems.push(format!("{name} needs an engine on disk"));
        }
    }
    let features = package["features"].as_object().expect("features by name");
    for (feature, parts) in features.iter().filter(|(feature, _)| *feature != FEATURE) {
        let plants = |part: &Value| {
            let part = text(part);
            part == FEATURE || part.ends_with("/planted") || part.ends_with(CRATE)
        };
        if list(parts).iter().any(plants) {
            problems.push(format!("{name} turns on {FEATURE} by its feature {feature}"));
        }
    }
    problems
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list in cargo's metadata")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string in cargo's metadata")
}

#[test]
fn planted_bugs_are_in_no_build_of_the_workspace() {
    let metadata = graph::metadata();
    assert!(metadata.to_string().contains(CRATE), "nothing was looked at");
    assert_none(problems(&metadata));
}

#[test]
fn every_way_to_turn_planted_bugs_on_is_caught() {
    let dependency = |to: &str, features: &[&str], optional: bool| {
        serde_json::json!({"name": to, "optional": optional, "features": features,
            "uses_default_features": false})
    };
    let package = serde_json::json!({
        "name": "rangedb-sim",
        "dependencies": [
            dependency(CRATE, &[], false),
            dependency("rangedb-txn", &[FEATURE], false),
            dependency("rangedb-server", &["shell"], false),
        ],
        "features": {"default": [FEATURE], "more": ["rangedb-txn/planted"], FEATURE: []},
    });
    assert_eq!(
        problems(&serde_json::json!({"packages": [package]})),
        [
            "rangedb-sim always has rangedb-planted",
            "rangedb-sim turns on planted of rangedb-txn",
            "rangedb-sim needs an engine on disk",
            "rangedb-sim turns on planted by its feature default",
            "rangedb-sim turns on planted by its feature more",
        ]
    );
}
