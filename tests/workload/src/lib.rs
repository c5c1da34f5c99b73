//! Workloads on a cluster under test, and checkers of what their clients saw.
//!
//! A *workload* does one step after the other through the SDK and notes every call and every answer
//! in a *history*. A *checker* reads the history afterwards and says what it holds against the
//! cluster. Both know nothing of how the cluster runs or what is done to it: the same workloads run
//! in the simulator, on one thread and simulated time, and against real processes.
//!
//! * [`list_append`]: transactions that read lists and append to them. From the lists follows which
//!   transaction saw what of which other, and a cycle of that is a breach of isolation.
//! * [`bank`]: transfers between accounts. Money is neither made nor lost, every transfer is there
//!   whole, and once.
//! * [`register`]: keys by themselves. Each is linearizable.
//! * [`hostile`]: requests that no client of this project sends. There is no checker: all the others
//!   must be content beside it.
//!
//! # What belongs to the caller
//!
//! Tasks, time and chance. A step is a future that the caller polls by whatever means; pauses between
//! steps are the caller's; random draws come from a generator that the caller has seeded; what
//! happened before what is told by the caller's [`history::Stamps`]. A step that is dropped in the
//! middle, as when a client's process dies, leaves an entry with an unknown outcome.
//!
//! # Outcomes
//!
//! What a client was told is one of three: it happened, it certainly did not, or nobody knows
//! ([`history::Outcome`]). A checker takes what is unknown for done if somebody saw it, and for
//! nothing otherwise, so that a cluster is never blamed for what it did not promise.

pub mod bank;
pub mod history;
pub mod hostile;
pub mod list_append;
pub mod register;
