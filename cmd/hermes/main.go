// Command hermes is an always-on agent gateway.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"hermes/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	os.Exit(cli.Execute(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Environ()))
}

// endSignals are the signals that ask the process to end. A terminal that goes
// away sends SIGHUP, which would kill a gateway without a drain; nohup(1) has it
// ignored, and asking for it would take that back.
func endSignals() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}
