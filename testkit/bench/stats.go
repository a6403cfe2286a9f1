package main

import (
	"fmt"
	"slices"
	"time"
)

// quantile is the q-quantile of values, which it sorts.
func quantile[T ~int64 | ~float64](v []T, q float64) T {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

// spread words median, least and greatest.
func spread[T ~int64 | ~float64](v []T, word func(T) string) (median T, text string) {
	m := quantile(v, 0.5)
	return m, fmt.Sprintf("%s [%s … %s]", word(m), word(v[0]), word(v[len(v)-1]))
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func count(f float64) string { return fmt.Sprintf("%.0f", f) }

// within says how a figure stands to its budget.
func within(ok bool) string {
	if ok {
		return "✓"
	}
	return "over"
}
