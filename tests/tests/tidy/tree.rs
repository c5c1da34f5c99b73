//! The checkout as the rules see it: its files without those that git ignores.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file, by its path from the root of the checkout.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Returns the crate's directory, or the first part of any other path.
    pub fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

pub fn read(path: &str) -> File {
    let text = fs::read_to_string(root().join(path));
    File::new(path, &text.unwrap_or_else(|error| panic!("cannot read {path}: {error}")))
}

/// Returns the names at the top of the checkout, sorted, without what git ignores there.
pub fn top_level() -> Vec<String> {
    let ignored = ignored_names(&read(".gitignore").text);
    let mut names: Vec<String> = fs::read_dir(root())
        .expect("the root can be listed")
        .map(|entry| {
            entry.expect("an entry of the root").file_name().to_string_lossy().into_owned()
        })
        .filter(|name| name != ".git" && !ignored.contains(name))
        .collect();
    names.sort();
    names
}

/// Returns every file whose path from the root satisfies `wanted`, in order of paths.
pub fn files(wanted: impl Fn(&str) -> bool) -> Vec<File> {
    let mut paths = Vec::new();
    let mut pending = top_level();
    while let Some(path) = pending.pop() {
        let full = root().join(&path);
        if full.is_dir() {
            let entries = fs::read_dir(&full).expect("a directory of the checkout can be listed");
            pending.extend(entries.map(|entry| {
                let name = entry.expect("an entry of the checkout").file_name();
                format!("{path}/{}", name.to_string_lossy())
            }));
        } else if wanted(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// Returns the names that `.gitignore` ignores at the top: its lines of the form `/name`.
fn ignored_names(gitignore: &str) -> Vec<String> {
    gitignore.lines().filter_map(|line| line.strip_prefix('/')).map(str::to_owned).collect()
}

#[test]
fn names_that_git_ignores_at_the_top_are_read_from_its_file() {
    assert_eq!(ignored_names("/target\n*.log\n/data\n"), ["target", "data"]);
}

#[test]
fn this_file_is_found_by_its_path_from_the_root() {
    let found = files(|path| path.ends_with("tidy/tree.rs"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "tests/tests/tidy/tree.rs");
    assert_eq!(found[0].top(), "tests");
}
