//! Everything that reads bytes from a disk or the wire, given bytes that nobody wrote. No decoder may
//! panic, and none may take more memory than some times its input, whatever lengths stand in it.
//!
//! Bytes come from nowhere or are valid encodings that something happened to (`mutate.rs`); memory
//! is counted by the allocator of this test (`allocation.rs`). `PROPTEST_CASES` sets how many cases
//! each property gets: 256 by default, some hundreds of thousands for a long run.
//!
//! | what is decoded | by | here, or beside the decoder where nothing else reaches it |
//! |---|---|---|
//! | stored keys | `storage/src/encoding.rs`, `keys.rs` | `storage.rs` |
//! | records of `current` and `history`, value references, varints | `storage/src/record.rs`, `varint.rs` | `storage.rs` |
//! | what garbage collection may drop | `storage/src/collect.rs` | `storage.rs` |
//! | snapshot chunks and totals | `storage/src/snapshot_stream.rs` | `storage.rs` |
//! | files of the raft log | `storage/src/raft_log.rs`, `raft_log/check.rs` | `storage.rs`; torn and flipped bytes in `storage/tests/engines/damage.rs` |
//! | hard states, truncation records | `storage/src/raft_log.rs` | `storage.rs`, with the files of the log |
//! | redo record of an install | `storage/src/rocks/install.rs` | `storage/src/rocks/install_tests.rs` |
//! | files of the state | RocksDB, by its checksums | `storage/tests/engines/damage.rs` |
//! | raft messages, entries, configuration changes | `raftstore/src/eraft.rs` | `raft.rs` |
//! | what raft-rs believes of a message | `raftstore/src/peer/credible.rs` | `raftstore/tests/garbage.rs` |
//! | log entries, membership changes, descriptions of snapshots | `raftstore/src/peer/apply.rs`, `install.rs` | `raft.rs` |
//! | states of ranges, tombstones | `raftstore/src/store.rs`, `store/messages.rs` | `raft.rs` |
//! | commands, and what they do at apply | `txn/src/machine.rs`, `check.rs` | `commands.rs` |
//! | lock, outcome and range records | `txn/src/lock.rs`, `outcome_record.rs`, `range_record.rs` | `commands.rs`, as part of a damaged state |
//! | reads and validations | `txn/src/read.rs`, `scan.rs`, `validate.rs` | `commands.rs` |
//! | every message of a service, values under `_/` | `proto/` | `wire.rs` |
//! | errors in a gRPC status | `client/src/status.rs` | `wire.rs` |
//! | suspended transactions | `client/src/transaction/suspended.rs` | `wire.rs` |
//! | timestamps, descriptors | `proto/src/timestamp.rs`, `range.rs` | `wire.rs` |
//! | snapshot headers, raft batches | `server/src/shell/snapshots/receive.rs`, `transport.rs` | their parts above, in `wire.rs` and `raft.rs` |
//! | the IDENTITY file | `server/src/shell/identity.rs` | `node_files.rs` |
//! | the configuration file, sizes, addresses, `--peers` | `server/src/shell/config.rs`, `config/` | `node_files.rs` |
//! | what strangers say while a cluster is formed | `server/src/shell/bootstrap.rs` | `node_files.rs` |
//! | timeouts of callers | `server/src/shell/service/kv/timeout.rs` | its unit tests |
//!
//! Left out: arguments and files of the command line (`cli`), which its user owns; whole requests to
//! running nodes, which `tests/tests/cluster/bad_requests.rs` sends.

mod allocation;
mod commands;
mod mutate;
mod node_files;
mod raft;
mod storage;
mod wire;
