package home

import (
	"os"
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/secret"
)

// A plan is looked at before it is written, keeps comments, and is written whole.
func TestPlanIsTriedBeforeItIsWritten(t *testing.T) {
	root := t.TempDir()
	p := Profile{Name: DefaultProfile, Root: root, Home: root}
	write(t, p.EnvFile(), "# mine\nTELEGRAM_BOT_TOKEN=1:old\n")
	write(t, p.ConfigFile(), "# kept\nmodel:\n  default: a # why\n  provider: openrouter\n")
	plan, err := NewPlan(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	token := "2:new"
	tried, err := plan.SetEnv(map[string]*string{"TELEGRAM_BOT_TOKEN": &token})
	if err != nil {
		t.Fatal(err)
	}
	if tried, err = tried.Choose(Choice{Provider: "deepseek", Model: "chat", Key: secret.Value("k-0123456789")}); err != nil {
		t.Fatal(err)
	}
	_, cfg, _, err := tried.Load()
	if err != nil || cfg.Model.Provider != "deepseek" || cfg.Model.Key.Reveal() != "k-0123456789" || cfg.Platforms["telegram"].Token.Reveal() != token {
		t.Fatalf("the plan loads as %+v, %v", cfg, err)
	}
	if len(plan.Changed()) != 0 || len(tried.Changed()) != 2 {
		t.Fatalf("changed: %v and %v", plan.Changed(), tried.Changed())
	}
	if text, _ := os.ReadFile(p.EnvFile()); strings.Contains(string(text), "2:new") {
		t.Fatal("it was written before Write")
	}
	files, err := tried.Write(By{Command: "setup"})
	if err != nil || len(files) != 2 {
		t.Fatalf("Write: %v, %v", files, err)
	}
	env, _ := os.ReadFile(p.EnvFile())
	config, _ := os.ReadFile(p.ConfigFile())
	if !strings.HasPrefix(string(env), "# mine\nTELEGRAM_BOT_TOKEN=2:new\n") || !strings.HasPrefix(string(config), "# kept\n") || !strings.Contains(string(config), "# why") {
		t.Fatalf("comments are lost:\n%s\n%s", env, config)
	}
	// Twice changes nothing; a plan that is out of date is refused.
	if again, err := tried.Write(By{Command: "setup"}); !domain.IsCode(err, domain.Conflict) || again != nil {
		t.Fatalf("a plan made of what stood before was written: %v, %v", again, err)
	}
	if all, err := OpenHistory(p).List(); err != nil || len(all) != 2 {
		t.Fatalf("the history holds %v, %v", all, err)
	}
}

// Where config.yaml cannot be written, .env is as it was.
func TestPlanIsPutBack(t *testing.T) {
	root := t.TempDir()
	p := Profile{Name: DefaultProfile, Root: root, Home: root}
	write(t, p.EnvFile(), "A_TOKEN=1\n")
	plan, err := NewPlan(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if plan, err = plan.Choose(Choice{Provider: "deepseek", Model: "chat", Key: secret.Value("k-0123456789")}); err != nil {
		t.Fatal(err)
	}
	// What config.yaml held cannot be kept, since a folder is in the way.
	if err := os.MkdirAll(p.ConfigFile()+".bak", 0o700); err != nil {
		t.Fatal(err)
	}
	plan.before.Config, plan.now.Config = []byte("x: 1\n"), []byte("x: 2\n")
	write(t, p.ConfigFile(), "x: 1\n")
	if _, err := plan.Write(By{Command: "setup"}); err == nil {
		t.Fatal("it was written although config.yaml.bak is a folder")
	}
	if text, _ := os.ReadFile(p.EnvFile()); string(text) != "A_TOKEN=1\n" {
		t.Fatalf(".env holds %q", text)
	}
}
