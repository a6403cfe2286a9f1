// Command fakellm runs the fake LLM by itself, for demonstrations, benchmarks
// and programs that are not tests of ours. It prints its base URL and runs
// until it is interrupted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"hermes/testkit/llm"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	brain := flag.String("brain", "echo", "echo | instant")
	latency := flag.Duration("latency", 0, "wait before each answer, e.g. 300ms")
	flag.Parse()
	if err := run(*addr, *brain, *latency); err != nil {
		fmt.Fprintln(os.Stderr, "fakellm:", err)
		os.Exit(1)
	}
}

func run(addr, name string, latency time.Duration) error {
	brains := map[string]llm.Brain{"echo": llm.Echo, "instant": llm.Instant}
	brain, ok := brains[name]
	if !ok {
		return fmt.Errorf("there is no brain %q; there are echo and instant", name)
	}
	s, err := llm.Listen(addr, func(r llm.Request) llm.Reply {
		reply := brain(r)
		if latency > 0 {
			reply.Before = func(ctx context.Context) {
				select {
				case <-time.After(latency):
				case <-ctx.Done():
				}
			}
		}
		return reply
	})
	if err != nil {
		return err
	}
	defer s.Close()
	s.KeepRequests(0)
	fmt.Println(s.URL())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	<-ctx.Done()
	return nil
}
