// Package handover puts the real gateway under load and replaces it again and
// again, beside itself and in place, and counts what failed, was cut, lost or
// doubled. It also lets each side of a hand-over die at each stage.
package handover
