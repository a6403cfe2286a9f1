package approval

import "testing"

func BenchmarkAnalyze(b *testing.B) {
	o := options()
	for b.Loop() {
		Analyze("cd web && npm ci && npm run build 2>&1 | tail -20; git status --short", o)
	}
}
