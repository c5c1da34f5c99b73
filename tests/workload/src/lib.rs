//! Workloads on a cluster under test, and checkers of what their clients saw.
//!
//! A *workload* takes one step after the other through the SDK, and records every call and every
//! answer in a *history*. A *checker* reads the history afterwards and reports breaches of the
//! cluster's promises. Both know nothing of how the cluster runs or of the faults. The same
//! workloads run in the simulator, on one thread and simulated time, and against real processes.
//!
//! * [`list_append`]: transactions that read lists and append to them. The lists show which
//!   transaction saw which other, and a cycle of that is a breach of isolation.
//! * [`bank`]: transfers between accounts. Money is neither made nor lost. Every transfer takes
//!   effect as a whole, and once.
//! * [`register`]: keys by themselves. Each is linearizable.
//! * [`hostile`]: requests that no client of this project sends. It has no checker: the other
//!   workloads must pass beside it.
//!
//! # Duties of the caller
//!
//! The caller provides tasks, time and randomness. It polls the future of a step by whatever means,
//! makes the pauses between steps, and seeds the random generator. The caller's [`history::Stamps`]
//! give the order of calls and answers. A step that is dropped in the middle, as when a client's
//! process dies, leaves an entry with an unknown outcome.
//!
//! # Outcomes
//!
//! A client knows one of three outcomes: the call took effect, it certainly did not, or this is
//! unknown ([`history::Outcome`]). A checker counts an unknown call as done if somebody saw its
//! effect, and as not done otherwise. So a checker never blames a cluster for what it did not
//! promise.

pub mod bank;
pub mod history;
pub mod hostile;
pub mod list_append;
pub mod register;
