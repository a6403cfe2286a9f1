// Package faults breaks installations in every way that operators know of, with
// the real binary on real homes, asks `hermes doctor` what is wrong, does what
// it says, and holds that all is well afterwards. docs/faults.md is made of what
// was seen:
//
//	go test ./testkit/faults -update
package faults
