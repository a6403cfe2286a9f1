// Package node holds the tests that drive the HTTP interface with the clients
// that people use: OpenAI's own Node library and a headless Chromium. What they
// need is installed by `npm ci` in this folder; without it they are skipped by
// name.
package node
