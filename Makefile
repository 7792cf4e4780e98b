# Everything is done through these targets; .ci/run calls `make test` and nothing else.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c

CACHE := $(or $(CLAVIGER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/claviger)
INSTALL := tests/components/install

.PHONY: help build dev demo test lint unit end-to-end fuzz fuzz-long bench components

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | column -t -s $$'\t'

build: ## the release program, target/release/claviger
	cargo build --release --locked

dev: ## a try-out plugin: makes all that it needs and says what to paste
	cargo run --release --locked -- serve --dev

demo: ## etcd, kube-apiserver and Claviger together, until Ctrl-C
	tests/demo

test: lint unit end-to-end fuzz ## everything, real components included; installs what it needs

lint: ## formatting, clippy, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(INSTALL) cargo-deny
	cargo fetch --locked
	"$$($(INSTALL) --where cargo-deny)" --offline --log-level error --config .deny.toml check bans licenses sources

unit: ## every test of the workspace, with the real components
	$(INSTALL) kube etcd go-plugin go-decoder debian python
	CLAVIGER_REQUIRE_COMPONENTS=1 cargo test --workspace --locked --no-fail-fast
	cargo test --release --locked -p claviger-keystore --lib xaes
	cargo test --release --locked -p claviger --test memory

end-to-end: ## the demo, once through
	DEMO_ONCE=1 tests/demo

fuzz: ## each fuzz target for thirty seconds
	$(INSTALL) cargo-fuzz
	tests/fuzz/run 30

fuzz-long: ## each fuzz target for ten minutes
	$(INSTALL) cargo-fuzz
	tests/fuzz/run 600

bench: ## speed and size against a server that does nothing and a plugin in Go
	$(INSTALL) go-plugin
	cargo bench --locked

components: ## what the tests run against; built once, kept in $(CACHE)
	$(INSTALL) all
