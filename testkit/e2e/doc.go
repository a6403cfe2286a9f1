// Package e2e holds tests of the real binary, each a scenario as an operator or
// a person in a chat sees it: against fakes at the wire, in a throw-away home,
// with secrets that no log, page, answer or file may show afterwards.
package e2e
