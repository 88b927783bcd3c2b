# What a person types. Each target first installs what a fresh Debian machine with Rust lacks, and says so.

.DEFAULT_GOAL := help
.PHONY: help run test release fmt lint docs chaos soak mutants figures million bench bench-growth bench-peers

# A compiler cache where there is one, for what is compiled from C and C++.
ifneq ($(shell command -v ccache),)
export CC ?= ccache gcc
export CXX ?= ccache g++
# make's own defaults are no choice of the user's.
ifeq ($(origin CC),default)
CC := ccache gcc
endif
ifeq ($(origin CXX),default)
CXX := ccache g++
endif
endif

NODES ?= 3
PORT ?= 7300
DATA ?= .run/dev
HOURS ?= 1

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

run: ## Run a three-node region on this machine (NODES, PORT and DATA change it)
	@.ci/setup build
	cargo run --bin pspd -- dev --nodes $(NODES) --port $(PORT) --data $(DATA)

test: ## Run all tests: Rust, documentation, browser
	@.ci/setup build test
	@.ci/test

release: ## Build what operators run, target/guided/pspd: laid out by a load that it carries on this machine (about 20 minutes)
	@.ci/setup build
	@deploy/build

fmt: ## Format the code
	cargo fmt --all

lint: ## Check format, lints, documentation and dependencies
	@.ci/setup build
	@.ci/lint

chaos: ## Run the fault scenarios that need root: power cuts, lossy networks, sick disks (ONLY="s01 s12" chooses)
	@.ci/setup build chaos
	@.ci/chaos $(ONLY)

soak: ## Draw faults for HOURS (default 1), as root; stops at the first violation (SEED and FROM repeat one)
	@.ci/setup build chaos
	cargo build --workspace --all-features --bin pspd
	cargo run --workspace --all-features --bin soak -- --hours $(HOURS) $(if $(SEED),--seed $(SEED)) $(if $(FROM),--from $(FROM))

mutants: ## Break the product in ten ways and show that the tests notice (about an hour)
	@.ci/setup build chaos
	chaos-tests/mutants/run

figures: ## Measure the promises at full length, alone on the machine (about 20 minutes; `make million` is apart)
	@.ci/setup build
	cargo test -p chaos-tests --test resources -- --nocapture --ignored an_idle_cluster
	KILLS=10 cargo test -p chaos-tests --test leader_kill -- --nocapture --test-threads=1
	KILLS=20 SESSIONS=100000 cargo test -p chaos-tests --test all_killed -- --nocapture
	cargo test -p chaos-tests --test wiped_disk -- --nocapture
	cargo test -p chaos-tests --test idle_connections -- --nocapture
	cargo test -p chaos-tests --test large_body -- --nocapture --include-ignored --test-threads=1

million: ## Store 1,000,000 sessions of 4 KiB and measure the memory (about 15 minutes and 30 GB of disk, given back)
	@.ci/setup build
	cargo test -p chaos-tests --test resources -- --nocapture --ignored a_million

bench: ## Measure ours over clients and over size: a table, and pictures in .run/bench, alone on the machine
	@.ci/setup build
	cargo build --release --workspace --bin pspd --bin bench-ours
	target/release/bench-ours

bench-growth: ## Measure what sessions and shards cost as they become more: up to a million; tables and pictures in .run/growth, alone on the machine
	@.ci/setup build
	cargo build --release --workspace --bin pspd --bin bench-growth
	target/release/bench-growth

bench-peers: ## Measure ours beside etcd, NATS, Redis, PostgreSQL and nginx, in turns, alone on the machine (QUICK=1 is no figure)
	@.ci/setup build
	@benches/peers/install
	cargo build --release --workspace --bin bench-peers $(if $(QUICK),--bin pspd)
	@$(if $(QUICK),,deploy/build)
	target/release/bench-peers $(if $(QUICK),--quick,--pspd target/guided/pspd) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

docs: ## Build the documentation of the code
	@.ci/setup build
	cargo doc --workspace --no-deps --document-private-items
