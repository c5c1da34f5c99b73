# The commands of RangeDB. A bare `make` lists them.
#
# One profile, one feature set: every cargo call says `--release --workspace`, so that RocksDB's C++
# is compiled once and shared by all of them (docs/adr/0002-one-build.md).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Where rustup puts cargo, for shells that have not been restarted since.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR ?= $(CURDIR)/target

RANGEDB = $(CARGO_TARGET_DIR)/release/rangedb

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## Run a one-node cluster with its data in ./data
	@exec $(RANGEDB) server --cluster-init --data-dir ./data

.PHONY: cluster
cluster: build ## Run three nodes on loopback with their data in ./cluster; Ctrl-C stops them
	@exec deploy/cluster.sh $(RANGEDB)

# The build comes first because tests run the real binary, which `cargo test` does not make.
.PHONY: test
test: setup-test build ## Run every test, quick ones first; RANGEDB_LONG=1 runs more seeds and rounds
	@.ci/test

# Prints the seed of each failure, with the command that does it again.
.PHONY: sim
sim: build ## Simulate clusters under faults: MINUTES=10 of random seeds, or one with SEED=n
	@$(CARGO_TARGET_DIR)/release/sim $(if $(SEED),--seed $(SEED) --verbose,--minutes $(or $(MINUTES),10))

# Prints the seed of a round that fails, with the command for another one like it.
.PHONY: chaos
chaos: build ## Real processes under fire: MINUTES=10 of rounds, or one with SEED=n; NODES=3 or 5
	@RANGEDB_CHAOS_MINUTES=$(if $(SEED),$(MINUTES),$(or $(MINUTES),10)) RANGEDB_CHAOS_SEED=$(SEED) \
		RANGEDB_CHAOS_NODES=$(NODES) cargo test --release --workspace --test chaos \
		nodes_under_fire_for_as_long_as_asked -- --nocapture

.PHONY: bench
bench: build ## Measure puts, gets and a counter next to etcd, from Debian's etcd-server; ARGS="--seconds 10"
	@$(CARGO_TARGET_DIR)/release/rangedb-bench $(ARGS)

.PHONY: check
check: setup-lint ## Check formatting, house rules, lints and documentation; changes nothing
	cargo fmt --all --check
	cargo test --release --workspace --test tidy
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny --locked check licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --document-private-items

.PHONY: audit
audit: setup-lint ## Check dependencies for known vulnerabilities; needs access to the advisory database
	cargo deny --locked check advisories

.PHONY: fix
fix: setup-lint ## Apply the formatter and the lints' own corrections
	cargo fmt --all
	cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

.PHONY: build
build: setup ## Build the one binary, rangedb
	cargo build --release --workspace

.PHONY: setup setup-test setup-lint
setup: ## Install what the build needs and the machine lacks
	@.ci/setup
setup-test:
	@.ci/setup test
setup-lint:
	@.ci/setup lint
