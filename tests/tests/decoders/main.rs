//! Decoders of bytes from a disk or the wire, given bytes that nobody wrote. No decoder may panic.
//! None may take more memory than a multiple of its input, whatever lengths the input claims.
//!
//! Inputs are random bytes, or valid encodings after some mutations (`mutate.rs`). The allocator of
//! this test counts memory (`allocation.rs`). `PROPTEST_CASES` sets the number of cases of each
//! property: 256 by default, some hundreds of thousands for a long run.
//!
//! | input | decoder | test: here, or beside the decoder if nothing else reaches it |
//! |---|---|---|
//! | stored keys | `storage/src/encoding.rs`, `keys.rs` | `storage.rs` |
//! | records of `current` and `history` | `storage/src/record.rs` | `storage.rs` |
//! | value references, varints | `storage/src/record.rs`, `varint.rs` | `storage.rs` |
//! | records that garbage collection may drop | `storage/src/collect.rs` | `storage.rs` |
//! | snapshot chunks and totals | `storage/src/snapshot_stream.rs` | `storage.rs` |
//! | files of the raft log | `storage/src/raft_log.rs`, `raft_log/check.rs` | `storage.rs` |
//! | torn and flipped bytes in these files | the same | `storage/tests/engines/damage.rs` |
//! | hard states, truncation records | `storage/src/raft_log.rs` | `storage.rs`, with these files |
//! | redo record of an install | `storage/src/rocks/install.rs` | `install_tests.rs` beside it |
//! | files of the state | RocksDB, by its checksums | `storage/tests/engines/damage.rs` |
//! | raft messages, entries, configuration changes | `raftstore/src/eraft.rs` | `raft.rs` |
//! | raft messages for raft-rs | `raftstore/src/peer/credible.rs` | `raftstore/tests/garbage.rs` |
//! | log entries, membership changes | `raftstore/src/peer/apply.rs` | `raft.rs` |
//! | descriptions of snapshots | `raftstore/src/peer/install.rs` | `raft.rs` |
//! | states of ranges, tombstones | `raftstore/src/store.rs`, `store/messages.rs` | `raft.rs` |
//! | commands, and their apply | `txn/src/machine.rs`, `check.rs` | `commands.rs` |
//! | lock records | `txn/src/lock.rs` | `commands.rs`, damaged states |
//! | outcome records | `txn/src/outcome_record.rs` | `commands.rs`, damaged states |
//! | range records | `txn/src/range_record.rs` | `commands.rs`, damaged states |
//! | reads and validations | `txn/src/read.rs`, `scan.rs`, `validate.rs` | `commands.rs` |
//! | every message of a service, values under `_/` | `proto/` | `wire.rs` |
//! | errors in a gRPC status | `client/src/status.rs` | `wire.rs` |
//! | suspended transactions | `client/src/transaction/suspended.rs` | `wire.rs` |
//! | timestamps, descriptors | `proto/src/timestamp.rs`, `range.rs` | `wire.rs` |
//! | snapshot headers | `server/src/shell/snapshots/receive.rs` | parts in `wire.rs`, `raft.rs` |
//! | raft batches | `server/src/shell/transport.rs` | parts in `wire.rs`, `raft.rs` |
//! | the IDENTITY file | `server/src/shell/identity.rs` | `node_files.rs` |
//! | the configuration file, sizes | `server/src/shell/config.rs`, `config/` | `node_files.rs` |
//! | addresses, `--peers` | `server/src/shell/config.rs`, `config/` | `node_files.rs` |
//! | requests of strangers during formation | `server/src/shell/bootstrap.rs` | `node_files.rs` |
//! | timeouts of callers | `server/src/shell/service/kv/timeout.rs` | its unit tests |
//!
//! Left out: arguments and files of the command line (`cli`), which its user owns; whole requests
//! to running nodes, which `tests/tests/cluster/bad_requests.rs` sends.

mod allocation;
mod commands;
mod mutate;
mod node_files;
mod raft;
mod storage;
mod wire;
