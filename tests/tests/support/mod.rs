//! Parts of tests on real processes: nodes that are started, killed and stopped, the command line,
//! requests, load, and one way to wait for a condition.
//!
//! A test names the condition that it waits for and the maximum time ([`wait::until`]). No test
//! sleeps for a time that seemed long enough. Every process ends when its value is dropped. A test
//! that fails prints the end of each node's log.

pub mod binary;
pub mod cli;
pub mod cluster;
pub mod gateway;
pub mod http;
pub mod load;
pub mod node;
pub mod ports;
pub mod process;
pub mod range;
pub mod wait;
