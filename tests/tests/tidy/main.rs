//! The house rules that no compiler checks, as tests: which crate may use which, what stands where,
//! what source files look like, and that documents point at what exists. All of them only read.
//!
//! Each rule is a pure function from text to problems, with a test that it catches a breach, and a
//! test that the workspace has none. Exceptions stand in a list beside their rule, each with its
//! reason; one that is no longer needed is a problem of its own.

mod deterministic;
mod documents;
mod graph;
mod layout;
mod one_build;
mod planted;
mod source;
mod tree;

/// Fails with every problem on a line of its own, so that one run shows all that is to do.
fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n  {}", problems.len(), problems.join("\n  "));
}
