package discord_test

import (
	"strings"
	"testing"

	"hermes/internal/domain"
	"hermes/internal/home"
	"hermes/internal/platform/discord"
	"hermes/internal/secret"
	fake "hermes/testkit/discord"
)

func TestFromProfile(t *testing.T) {
	token := secret.Value("Bot " + fake.Token("1100000000000000001", "Gabc.def"))
	c, err := discord.FromProfile(home.PlatformConfig{Token: token, RequireMention: true, Reactions: true, AllowedChats: []string{"5"}, MentionPatterns: []string{"^hey"},
		Extra: map[string]string{"free_response_channels": "1,2", "ignored_channels": "3", "no_thread_channels": "4", "auto_thread": "no",
			"allow_bots": "mentions", "max_attachment_bytes": "1_000", "base_url": "http://127.0.0.1:1/"}})
	must(t, err)
	if c.AutoThread || !c.RequireMention || len(c.Free) != 2 || c.IgnoredChannels[0] != "3" || c.NoThreadChannels[0] != "4" || c.AllowBots != "mentions" ||
		c.MaxFile != 1000 || !c.Reactions || !c.NoTyping || len(c.MentionPatterns) != 1 || c.Allowed[0] != "5" {
		t.Errorf("%+v", c)
	}
	a, err := discord.New(c, discord.Deps{})
	must(t, err)
	if a.Account() != "1100000000000000001" {
		t.Errorf("the account is %q", a.Account())
	}
	c, err = discord.FromProfile(home.PlatformConfig{Token: token, Typing: true})
	must(t, err)
	if !c.AutoThread || c.AllowBots != "none" || c.NoTyping {
		t.Errorf("%+v", c)
	}
}

// Every problem is told at once, and none tells the token.
func TestWhatIsWrongWithAConfiguration(t *testing.T) {
	const bad = "very-secret-token"
	_, err := discord.FromProfile(home.PlatformConfig{Token: bad, TokenOrigin: ".env line 3 (DISCORD_BOT_TOKEN)", MentionPatterns: []string{"("},
		Extra: map[string]string{"auto_thread": "perhaps", "allow_bots": "some", "max_attachment_bytes": "-1", "command_sync_policy": "wild"}})
	text := domain.MessageOf(err)
	if domain.CodeOf(err) != domain.Config || strings.Contains(text, bad) {
		t.Error(err)
	}
	for _, want := range []string{"auto_thread", "allow_bots", "max_attachment_bytes", "command_sync_policy", `"("`, ".env line 3"} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing is said of %s: %s", want, text)
		}
	}
	for _, c := range []discord.Config{{}, {Token: "a.b"}, {Token: "!!.b.c"}, {Token: "YWJj.b.c"},
		{Token: secret.Value(fake.Token("1", "b.c\r\nX: y"))}, {Token: secret.Value(fake.Token("1", "b.c")), BaseURL: "nowhere"}, {Token: secret.Value(fake.Token("1", "b.c")), Proxy: "::"}} {
		if _, err := discord.New(c, discord.Deps{}); domain.CodeOf(err) != domain.Config {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
