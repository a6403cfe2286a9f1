package faults

import (
	"strings"
	"testing"
)

// TestHealthy holds that sound installations of every shape give no finding,
// not even advice.
func TestHealthy(t *testing.T) {
	for _, c := range []struct {
		what  string
		shape shape
		more  func(w *world)
	}{
		{"default profile: Telegram, API, model", shape{}, nil},
		{"named profile", shape{profile: "liam"}, nil},
		{"API only", shape{noBot: true}, nil},
		{"Telegram only", shape{noAPI: true}, nil},
		{"Telegram and Discord", shape{discord: true}, nil},
		{"a scheduler alone", shape{noBot: true, noAPI: true, cronOnly: true}, func(w *world) { w.job("watch", "every 1h") }},
		{"with jobs that report to Telegram", shape{}, func(w *world) {
			w.job("watch", "every 1h", "--deliver", "telegram")
			w.job("report", "0 9 * * *", "--timezone", "Asia/Seoul", "--deliver", "telegram")
			w.hermes("cron", "run", "watch")
		}},
		{"two profiles with bots and ports of their own", shape{profile: "liam"}, func(w *world) {
			w.must(writeFile(w.home.Dir+"/.env", "TELEGRAM_BOT_TOKEN=7000000001:AAF-another_bot_of_the_default_one\n"))
		}},
		{"a unit written by hand", shape{}, func(w *world) { w.unit("hermes-gateway.service", w.unitText()) }},
		{"an instance of a template", shape{profile: "liam"}, func(w *world) {
			w.unit("hermes-gateway@.service", strings.Replace(w.unitText(), "--profile liam", "--profile %i", 1))
		}},
		{"a template with a scheduler beside it", shape{profile: "liam"}, func(w *world) {
			w.unit("hermes-gateway@.service", strings.Replace(w.unitText(), "--profile liam", "--profile %i", 1))
			w.unit("hermes-cron@.service", strings.NewReplacer("--profile liam", "--profile %i", "gateway run", "cron run").Replace(w.unitText()))
		}},
		{"after a conversation and a restart", shape{}, func(w *world) {
			ada := w.tg.AddUser("Ada")
			w.tg.Say(ada, "hello")
			w.until("an answer", func() bool { return len(w.tg.Replies(ada.ID)) > 0 })
			w.hermes("gateway", "restart")
		}},
		{"after a crash and a start", shape{}, func(w *world) { w.procs[0].Kill(); w.start() }},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			w := setUp(t, c.shape)
			if c.more != nil {
				c.more(w)
			}
			w.well(nil)
			if out := w.shown(nil); !strings.Contains(out, "nothing is wrong") {
				t.Errorf("a person reads:\n%s", out)
			}
		})
	}
}
