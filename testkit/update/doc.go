// Package update holds tests of `hermes update` with the real binary: from one
// version to the next and back, with a broken one between, and killed at every
// step of the way.
package update
