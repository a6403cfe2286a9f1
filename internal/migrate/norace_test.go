//go:build !race

package migrate_test

// many is how many messages a large store has.
const many = 100_000
