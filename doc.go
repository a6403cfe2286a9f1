// Package hermes is the root of the module; its tests hold the whole of it to
// ARCHITECTURE.md. The program is cmd/hermes.
package hermes
