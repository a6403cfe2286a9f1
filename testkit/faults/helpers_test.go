package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"hermes/testkit/mattermost"
	"hermes/testkit/telegram"
)

// fillModel is what an operator answers who is asked for a model.
func (w *world) fillModel() {
	w.fill["provider"] = "custom"
	w.fill["model"] = fmt.Sprintf("fake-1 --base-url %s --key-stdin <<<%s", w.brain.URL(), modelKey)
}

// noHome lets the profile be chosen as if HERMES_HOME were not set.
func (w *world) noHome() {
	w.home.Env = append(w.home.Env, "HERMES_HOME=")
	w.shell.Env = append(w.shell.Env, "HERMES_HOME=")
}

// restart stops what serves and starts it anew with what is on disk.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// editor makes $EDITOR a script, $1 the file.
func (w *world) editor(script string) {
	path := filepath.Join(w.dir, "bin", "editor")
	w.must(os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	for _, h := range []*[]string{&w.home.Env, &w.shell.Env} {
		*h = append(slices.DeleteFunc(*h, func(v string) bool { return strings.HasPrefix(v, "EDITOR=") }), "EDITOR="+path)
	}
}

// otherBot makes a second bot that the profile may use, and gives its token.
func (w *world) otherBot() string {
	bot, err := telegram.New(telegram.Options{Token: "7000000003:AAF-faults_token_of_the_other_bot__"})
	w.must(err)
	w.t.Cleanup(bot.Close)
	w.secrets = append(w.secrets, bot.Token())
	w.edit(".env", w.tg.URL(), bot.URL())
	return bot.Token()
}

// olderSystem starts what looks like a gateway of the older system on a home. It
// gives its PID and the time of its start, as /proc has it.
func (w *world) olderSystem(at string) (pid int, started string) {
	cmd := exec.Command("/bin/sh")
	cmd.Args = []string{"python3", "-c", "read line", "-m", "hermes_cli.main", "gateway", "run"}
	stdin, err := cmd.StdinPipe() // it ends with it
	w.must(err)
	cmd.Env = []string{"HOME=" + filepath.Dir(at), "HERMES_HOME=" + at, "PATH=" + os.Getenv("PATH")}
	w.must(cmd.Start())
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	w.t.Cleanup(func() { _ = stdin.Close(); <-gone })
	w.until("the other program to run", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		return err == nil && strings.Contains(string(text), "hermes_cli")
	})
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	w.must(err)
	return cmd.Process.Pid, strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[19]
}

// newBot makes a second bot behind another address and gives its token.
func (w *world) newBot() string {
	token := w.otherBot()
	return token
}

// mattermost makes a server for the token that .env has.
func (w *world) mattermost() {
	s, err := mattermost.New(mattermost.Options{Token: "abcdefghijklmnopqrstuvwxyz"})
	w.must(err)
	w.t.Cleanup(s.Close)
	w.fill["value"] = s.URL()
}

// read gives a file of the profile.
func (w *world) read(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.path(name))
	w.must(err)
	return string(text)
}

func replaceAll(text, from, to string) string { return strings.ReplaceAll(text, from, to) }

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
