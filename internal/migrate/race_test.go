//go:build race

package migrate_test

// many is how many messages a large store has. The race detector makes the
// database twenty times slower, and what is measured is memory.
const many = 10_000
