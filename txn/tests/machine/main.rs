//! The state machine of a range: rules by scripts, against a model, under fire, and as the base of
//! transactions over ranges. One file for each topic.

mod bounds;
mod garbage;
mod golden;
mod hostile;
mod hot_key;
mod model;
mod support;
mod transactions;
