//! Links of documents: the targets of Markdown links, the documents that code names and the source
//! files that documents name exist, and the index of decisions lists them all.

use std::path::{Component, Path, PathBuf};

use crate::assert_none;
use crate::tree::{self, File};

const DECISIONS: &str = "docs/adr/";
const DECISIONS_INDEX: &str = "docs/adr/README.md";

/// Returns the targets of the links in a Markdown text that lead to files, without their anchors.
/// Skips fenced code.
fn linked_files(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for (at, opening) in line.match_indices("](") {
            let rest = &line[at + opening.len()..];
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target);
            }
        }
    }
    found
}

/// Returns a link's target as a path from the root, given the file that holds the link.
fn resolve(from: &str, target: &str) -> PathBuf {
    let base = Path::new(from).parent().unwrap_or(Path::new(""));
    let mut resolved = PathBuf::new();
    for component in base.join(target).components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

/// Returns documents that a text names by their path from the root, such as docs/glossary.md.
fn named_documents(text: &str) -> Vec<&str> {
    let in_path = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    text.match_indices("docs/")
        .map(|(at, _)| text[at..].split(|c| !in_path(c)).next().unwrap_or_default())
        .map(|path| path.trim_end_matches('.'))
        .filter(|path| path.ends_with(".md"))
        .collect()
}

/// Returns Rust files that a document names in backticks, such as `node/writes.rs`.
fn named_sources(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |name: &&str| {
        name.ends_with(".rs")
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c))
    };
    quoted.filter(is_path).collect()
}

/// Lists decisions that the index does not list, and decisions that are not numbered 1, 2, 3 and so
/// on.
fn decision_problems(paths: &[&str], index: &str) -> Vec<String> {
    let listed = linked_files(index);
    let names: Vec<&str> = paths
        .iter()
        .filter_map(|path| path.strip_prefix(DECISIONS))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    let mut problems = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if !listed.contains(name) {
            problems.push(format!("{name} is not listed in {DECISIONS_INDEX}"));
        }
        let number = format!("{:04}-", at + 1);
        if !name.starts_with(&number) {
            problems.push(format!("{name} should have number {number}: one decision, one number"));
        }
    }
    problems
}

#[test]
fn every_link_of_a_document_leads_to_a_file() {
    let mut problems = Vec::new();
    for document in tree::files(|path| path.ends_with(".md")) {
        for target in linked_files(&document.text) {
            if !tree::root().join(resolve(&document.path, target)).exists() {
                problems.push(format!("{} links to {target}, which is not there", document.path));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn every_document_that_code_names_exists() {
    // This file's own tests name documents that do not exist.
    let code = |path: &str| {
        !path.ends_with("tidy/documents.rs")
            && [".rs", ".proto", ".toml", ".yaml", ".sh", "Makefile", "Dockerfile"]
                .iter()
                .any(|ending| path.ends_with(ending))
    };
    let problem =
        |file: &File, name: &str| format!("{} names {name}, which is not there", file.path);
    let mut problems = Vec::new();
    for file in tree::files(code) {
        let missing = named_documents(&file.text).into_iter();
        let missing = missing.filter(|name| !tree::root().join(name).exists());
        problems.extend(missing.map(|name| problem(&file, name)));
    }
    assert_none(problems);
}

/// A document names a file by its path from the root or by the end of it.
#[test]
fn every_source_file_that_a_document_names_exists() {
    let sources = tree::files(|path| path.ends_with(".rs"));
    let exists = |name: &str| {
        let ending = format!("/{name}");
        sources.iter().any(|file| file.path == name || file.path.ends_with(&ending))
    };
    let mut problems = Vec::new();
    // A decision speaks of the code of its day.
    let documents = tree::files(|path| path.ends_with(".md") && !path.starts_with(DECISIONS));
    for document in documents {
        let missing = named_sources(&document.text).into_iter().filter(|name| !exists(name));
        let problem = |name| format!("{} names {name}, which is not there", document.path);
        problems.extend(missing.map(problem));
    }
    assert_none(problems);
}

#[test]
fn every_decision_is_in_the_index() {
    let files = tree::files(|path| path.starts_with(DECISIONS));
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert!(paths.contains(&DECISIONS_INDEX), "{DECISIONS_INDEX} is missing");
    assert_none(decision_problems(&paths, &tree::read(DECISIONS_INDEX).text));
}

#[test]
fn links_are_found_without_anchors_addresses_and_code() {
    let text = "[a](a.md#part) and [b](../b.md), [c](https://c.org/d)\n[d](#here)\n```\n[e](e)\n```\n[f](f \"title\")";
    assert_eq!(linked_files(text), ["a.md", "../b.md", "f"]);
    assert_eq!(resolve("docs/adr/README.md", "../b.md"), Path::new("docs/b.md"));
    assert_eq!(resolve("README.md", "./docs"), Path::new("docs"));
}

#[test]
fn documents_that_code_names_are_found() {
    let text = "// See docs/adr/0002-x.md, and (docs/y.md). Not docs/ or docs/z.txt.";
    assert_eq!(named_documents(text), ["docs/adr/0002-x.md", "docs/y.md"]);
}

#[test]
fn sources_that_documents_name_are_found() {
    let text = "See `node/writes.rs`, `x.rs` and a.rs. Not `*.rs` or `f(x).rs`.";
    assert_eq!(named_sources(text), ["node/writes.rs", "x.rs"]);
}

#[test]
fn an_unlisted_decision_and_a_number_taken_twice_are_caught() {
    let paths = ["docs/adr/0001-a.md", "docs/adr/0001-b.md", "docs/adr/README.md"];
    assert_eq!(
        decision_problems(&paths, "- [a](0001-a.md)"),
        [
            "0001-b.md is not listed in docs/adr/README.md",
            "0001-b.md should have number 0002-: one decision, one number",
        ]
    );
}
