//! House rules that no compiler checks, as tests: the dependencies of crates, the places of files,
//! the form and language of source files, and the targets of documents. All tests only read.
//!
//! Each rule is a pure function from text to problems. One test shows that the rule catches a
//! breach, another that the workspace has none. Exceptions stand in a list beside their rule, each
//! with its reason. An exception that is no longer needed is a problem of its own.

mod deterministic;
mod documents;
mod graph;
mod language;
mod layout;
mod one_build;
mod planted;
mod source;
mod tree;

/// Fails with one problem on a line, so that one run shows all of them.
fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n  {}", problems.len(), problems.join("\n  "));
}
