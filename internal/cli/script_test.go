package cli

import (
	"context"
	"net"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hermes/testkit/llm"
	"hermes/testkit/oauth"
	"hermes/testkit/oldhome"
	"hermes/testkit/releases"
	"hermes/testkit/telegram"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hermes": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(Execute(ctx, os.Args[1:], Streams{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
		},
	})
}

// TestScripts runs the command line's contract: each archive in
// testdata/script is one chapter of it. Beside testscript's own commands there
// are:
//
//	fakellm [-key KEY] [TEXT]   a model service that always answers TEXT; $LLM_URL
//	faketelegram                Telegram; $TELEGRAM_URL, $TELEGRAM_TOKEN
//	person PERSON               somebody on Telegram; $PERSON is their chat's id
//	says PERSON TEXT            a person writes to the bot
//	hears [-set VAR] PERSON RE  the bot's message to a person that matches; VAR gets its first group
//	oauth SECONDS | revoke      a sign-in service where somebody confirms at once; $OAUTH_URL
//	freeport VAR                VAR gets a port that nobody listens on
//	releases DIR VERSION        a folder of releases with one version; $RELEASE_KEY signed it
//	await RE COMMAND…           runs a command again until its output matches
//	oldhome DIR                 a home of the Python system
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home := e.WorkDir + "/home"
			e.Setenv("HOME", home)
			e.Setenv("TZ", "UTC")
			// Under the race detector every process sleeps a second before it
			// ends, unless it is told not to: https://go.dev/doc/articles/race_detector#Options
			e.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
			e.Values[worldKey{}] = &world{people: map[string]telegram.User{}}
			return os.MkdirAll(home, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fakellm": fakeLLM, "faketelegram": fakeTelegram, "person": person, "says": says, "hears": hears, "await": await, "oldhome": oldHome, "releases": offerRelease, "freeport": freePort, "oauth": signInService,
		},
	})
}

// patience bounds every wait of a script.
const patience = 30 * time.Second

// world is what a script's commands share.
type world struct {
	tg     *telegram.Server
	people map[string]telegram.User
	oauth  *oauth.Server
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func offerRelease(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: releases DIR VERSION")
	}
	f, err := releases.New(args[0])
	ts.Check(err)
	_, err = f.Add("stable", args[1], []byte("no program"))
	ts.Check(err)
	ts.Setenv("RELEASE_KEY", f.PublicKey)
}

func fakeLLM(ts *testscript.TestScript, _ bool, args []string) {
	key := ""
	if len(args) > 1 && args[0] == "-key" {
		key, args = args[1], args[2:]
	}
	s, err := llm.Start(llm.Say(strings.Join(args, " ")))
	ts.Check(err)
	ts.Defer(s.Close)
	s.RequireKey(key)
	ts.Setenv("LLM_URL", s.URL())
}

func fakeTelegram(ts *testscript.TestScript, _ bool, _ []string) {
	s, err := telegram.New(telegram.Options{})
	ts.Check(err)
	ts.Defer(s.Close)
	worldOf(ts).tg = s
	ts.Setenv("TELEGRAM_URL", s.URL())
	ts.Setenv("TELEGRAM_TOKEN", s.Token())
}

// oldHome makes a home as the Python system leaves it when it is killed.
func oldHome(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(oldhome.Build(ts.MkAbs(args[0]), oldhome.Options{Era: oldhome.Late, OpenLog: true}))
}

// person makes somebody on Telegram.
func person(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	if w.tg == nil {
		ts.Fatalf("there is no Telegram yet: faketelegram makes one")
	}
	w.people[args[0]] = w.tg.AddUser(args[0])
	ts.Setenv(args[0], strconv.FormatInt(w.people[args[0]].ID, 10))
}

// known gives somebody whom person made.
func known(ts *testscript.TestScript, name string) (*telegram.Server, telegram.User) {
	w := worldOf(ts)
	who, ok := w.people[name]
	if !ok {
		ts.Fatalf("nobody is called %s yet: person makes somebody", name)
	}
	return w.tg, who
}

func says(ts *testscript.TestScript, _ bool, args []string) {
	tg, who := known(ts, args[0])
	tg.Say(who, strings.Join(args[1:], " "))
}

func hears(ts *testscript.TestScript, _ bool, args []string) {
	set := ""
	if args[0] == "-set" {
		set, args = args[1], args[2:]
	}
	tg, who := known(ts, args[0])
	re := regexp.MustCompile(args[1])
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := tg.WaitFor(ctx, who.ID, func(m telegram.Message) bool { return m.FromBot && re.MatchString(m.Text) })
	if err != nil {
		ts.Fatalf("%s heard nothing that matches %q:\n%s", args[0], args[1], tg.Transcript(who.ID))
	}
	if set != "" {
		ts.Setenv(set, re.FindStringSubmatch(m.Text)[1])
	}
}

// signInService starts a sign-in service, or makes it revoke what it gave.
func signInService(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	if args[0] == "revoke" {
		w.oauth.Revoke()
		return
	}
	seconds, err := strconv.Atoi(args[0])
	ts.Check(err)
	w.oauth = oauth.Start(seconds)
	w.oauth.Confirm()
	ts.Defer(w.oauth.Close)
	ts.Setenv("OAUTH_URL", strings.TrimSuffix(w.oauth.TokenURL(), "/token"))
}

// freePort finds a port that nobody listens on.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[0])
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// Its exit code does not count: what it prints does.
		_ = ts.Exec(args[1], args[2:]...)
		if re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%v never printed what matches %q", args[1:], args[0])
		case <-tick.C:
		}
	}
}
