# Everything that this project needs is set up by the targets themselves.
# As root on Debian they install missing packages; otherwise what needs them is
# skipped by name.

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X hermes/internal/cli.version=$(VERSION)
LINT      := build/tools/golangci-lint
LINT_VERSION := v2.12.2

.DEFAULT_GOAL := build

## build: the static binary, build/hermes
.PHONY: build
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o build/hermes ./cmd/hermes

## demo: a gateway in a throw-away home, with nothing configured
.PHONY: demo
demo: build
	./scripts/demo

## test: set up what the tests need, then run all of them with the race detector
.PHONY: test
test: setup build
	./scripts/test

## setup: install what the tests need, where that is possible
.PHONY: setup
setup:
	./scripts/setup

## check: formatting, vet, linters and all tests
.PHONY: check
check: fmt lint test

.PHONY: fmt
fmt:
	@out=$$(gofmt -l cmd internal testkit); [ -z "$$out" ] || { echo "not gofmt'ed: $$out"; exit 1; }

.PHONY: lint
lint: $(LINT) # with a cache of its own: a shared one answers with the paths of other checkouts
	$(GO) vet ./...
	$(GO) vet -tags bench ./testkit/systemd
	GOLANGCI_LINT_CACHE=$(CURDIR)/build/lint-cache $(LINT) run ./...

$(LINT):
	GOBIN=$(CURDIR)/build/tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

## release: archives, packages, sums and signatures of VERSION=1.2.3, signed by MINISIGN_KEY=file; UPDATE_URL=https://… is where they will be
.PHONY: release
release:
	$(GO) run ./scripts/release -version '$(VERSION)' -key '$(MINISIGN_KEY)' -url '$(UPDATE_URL)' -out build/release

## man: the manual pages, into build/man
.PHONY: man
man:
	$(GO) run ./testkit/man -out build/man -version $(VERSION)

## isolation: let each platform misbehave in each way for WINDOW each, and measure how long people on the others wait
WINDOW ?= 20s
.PHONY: isolation
isolation:
	HERMES_ISOLATION=$(WINDOW) $(GO) test -count=1 -timeout 120m -v ./testkit/isolation

## torture: kill the gateway N times on each platform and count what was lost or doubled
N ?= 2000
.PHONY: torture
torture: build
	HERMES_TORTURE=$(N) $(GO) test -count=1 -timeout 120m -run 'TestTorture|TestKilledAroundFirings' -v ./testkit/torture ./testkit/cronkill

## torture-power: cut the power of a machine N times, and of a careless program's until that is found out
.PHONY: torture-power
torture-power: N = 100
torture-power: setup
	HERMES_POWER=$(N) $(GO) test -count=1 -timeout 600m -run 'TestMachine/(power|control)' -v ./testkit/machine

## test-systemd: of make test what restarts, kills, hangs and reboots the gateway on a real systemd
.PHONY: test-systemd
test-systemd: setup
	$(GO) test -count=1 -timeout 20m -v ./testkit/box ./testkit/systemd

## soak: simulated hours of load; memory must stay flat
HOURS ?= 24
.PHONY: soak
soak: build
	HERMES_SOAK_HOURS=$(HOURS) $(GO) test -count=1 -timeout 180m -run 'TestSoak' -v ./testkit/torture

## bench: measure against the budgets, into docs/benchmarks.md
.PHONY: bench
bench: build
	$(GO) run ./testkit/bench -binary build/hermes -out docs/benchmarks.md

## bench-cron: how late jobs fire among 100,000, and what they cost at rest
.PHONY: bench-cron
bench-cron: build
	$(GO) run ./testkit/bench -binary build/hermes -only cron

## bench-handover: restarts of every kind under load on a real systemd (root), into docs/benchmarks-handover.md
.PHONY: bench-handover
bench-handover: setup
	HERMES_BENCH_OUT=$(CURDIR)/docs/benchmarks-handover.md $(GO) test -tags bench -count=1 -timeout 20m -v -run TestBenchHandOver ./testkit/systemd

## fuzz: every fuzz target for FUZZTIME
FUZZTIME ?= 20s
.PHONY: fuzz
fuzz:
	./scripts/fuzz $(FUZZTIME)

.PHONY: clean
clean:
	rm -rf build testkit/node/node_modules
