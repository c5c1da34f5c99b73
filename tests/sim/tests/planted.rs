//! Bugs that are put in on purpose are found (`tests/planted/`): builds the simulator with them, in a
//! target directory of its own so that it shares no feature with the workspace, and hunts the bugs
//! that docs/simulation.md says are found within a few seeds.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Bugs with a higher median are left to `sim --planted-table`, which takes a quarter of an hour.
const MEDIAN_MAX: u64 = 8;

/// Seeds within which these must be found: a bug with the highest median is missed by all of them
/// once in 256 runs at most, and a run is always the same.
const SEEDS: u64 = 8 * MEDIAN_MAX;

fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target");
    let target = target.join("planted");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--package", "rangedb-sim"])
        .args(["--features", "planted", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("release/sim")
}

/// Rows of a table of bugs: names, and the text of their other columns.
fn rows(table: &str) -> Vec<(String, Vec<String>)> {
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    let rows = table.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.map(|mut cells: Vec<String>| (cells.remove(0).replace('`', ""), cells)).collect()
}

#[test]
fn planted_bugs_are_found_within_the_seeds_that_the_documentation_says() {
    let sim = build();
    let hunt = |arguments: &[&str]| {
        let mut command = Command::new(&sim);
        let output = command.arg("--planted-table").args(arguments).output();
        output.expect("the planted simulator runs")
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = std::fs::read_to_string(root.join("docs/simulation.md")).expect("it is there");
    let described = rows(&document);
    let all = rows(&String::from_utf8_lossy(&hunt(&["--count", "0"]).stdout));
    let names = |rows: &[(String, Vec<String>)]| -> Vec<String> {
        rows.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&described), names(&all), "every bug stands in the document, in this order");

    let median = |cells: &[String]| cells[1].parse().unwrap_or(u64::MAX);
    let quick = described.iter().filter(|(_, cells)| median(cells) <= MEDIAN_MAX);
    let quick: Vec<&str> = quick.map(|(name, _)| name.as_str()).collect();
    assert!(quick.len() >= 10, "{quick:?}");
    let count = SEEDS.to_string();
    for bug in quick {
        let output = hunt(&["--plant", bug, "--finds", "1", "--count", &count]);
        assert!(output.status.success(), "{bug} is not found within {count} seeds");
    }
}
