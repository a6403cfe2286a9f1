package faults

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hermes/internal/doctor"
	"hermes/testkit/oauth"
)

// providerFaults keep the model from answering.
func providerFaults() []fault {
	return []fault{
		{what: "no model was ever set", id: "provider.none", class: doctor.Provider, shape: shape{noModel: true},
			inject: func(w *world) { w.fillModel() }},
		{what: "the model's key was revoked", id: "provider.key_refused", class: doctor.Provider,
			inject: func(w *world) { w.brain.RequireKey("sk-the-new-key-of-the-model-0002") }, fill: map[string]string{"key": "sk-the-new-key-of-the-model-0002"}},
		{what: "the model's key was revoked, and the gateway down", id: "provider.key_refused", class: doctor.Provider, shape: shape{unstarted: true},
			inject: func(w *world) { w.brain.RequireKey("sk-the-new-key-of-the-model-0002") }, fill: map[string]string{"key": "sk-the-new-key-of-the-model-0002"}},
		{what: "the model has no key, and its service asks for one", id: "provider.key_missing", class: doctor.Provider,
			inject: func(w *world) { w.edit("config.yaml", "  api_key: "+modelKey+"\n", "") }, fill: map[string]string{"key": modelKey}},
		{what: "the provider forbids the key what it is used for", id: "provider.key_forbidden", class: doctor.Provider,
			inject: func(w *world) {
				w.brain.Refuse(http.StatusForbidden, "permission_error", "Your key has no access to this.")
			},
			hand: func(w *world) { w.brain.Refuse(0, "", "") }, fill: map[string]string{"key": modelKey}},
		{what: "the credit at the provider is used up", id: "provider.quota", class: doctor.Provider,
			inject: func(w *world) {
				w.brain.Refuse(http.StatusPaymentRequired, "insufficient_quota", "You exceeded your current quota.")
			},
			hand: func(w *world) { w.brain.Refuse(0, "", "") }, fill: map[string]string{"key": modelKey}},
		{what: "the model's name is misspelt", id: "provider.model_unknown", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", "default: fake-1", "default: fake-one")
				w.hermes("gateway", "restart")
			}},
		{what: "the model's address is wrong", id: "provider.unreachable", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", w.brain.URL(), fmt.Sprintf("http://127.0.0.1:%d/v1", freePort(w.t)))
				w.hermes("gateway", "restart")
				w.fill["address"] = w.brain.URL()
			}},
		{what: "the provider takes the connection and never answers", id: "provider.unreachable", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", w.brain.URL(), w.deaf())
				w.hermes("gateway", "restart")
				w.fill["address"] = w.brain.URL()
			}},
		{what: "the provider's name is misspelt", id: "provider.unknown", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", "provider: custom\n  base_url: "+w.brain.URL(), "provider: opnerouter")
				w.restart()
				w.fillModel()
			}},
		{what: "the provider is custom, and has no address", id: "provider.no_address", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", "  base_url: "+w.brain.URL()+"\n", "")
				w.restart()
				w.fill["address"] = w.brain.URL()
			}},
		{what: "no entry of custom_providers has the provider's name", id: "provider.unknown", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", "provider: custom\n", "provider: custom:home\n")
				w.restart()
				w.fillModel()
			}},
		{what: "a known provider has no key", id: "provider.key_missing", class: doctor.Provider, shape: shape{noModel: true, unstarted: true}, fixes: 2,
			inject: func(w *world) {
				w.add("config.yaml", "model:\n  default: fake-1\n  provider: deepseek\n")
				w.add(".env", "HTTPS_PROXY=\n")
				w.start()
				w.fill["key"] = modelKey
				w.fill["address"] = w.brain.URL()
			}},
		{what: "an entry of the fallbacks has no model", id: "provider.fallback", class: doctor.Provider,
			inject: func(w *world) { w.add("config.yaml", "fallback_providers:\n  - provider: openrouter\n"); w.restart() }},
		{what: "the key of a fallback was revoked", id: "provider.key_refused", class: doctor.Provider,
			inject: func(w *world) {
				w.add(".env", "XAI_API_KEY=sk-an-old-key-of-the-fallback\n")
				w.add("config.yaml", "fallback_providers:\n  - provider: xai\n    model: fake-1\n    base_url: "+w.brain.URL()+"\n")
				w.restart()
			}, fill: map[string]string{"key": modelKey}},
		{what: "a setting of the model is no number", id: "provider.setting", class: doctor.Provider,
			inject: func(w *world) {
				w.edit("config.yaml", "  api_key:", "  context_length: huge\n  api_key:")
				w.restart()
				w.fill["value"] = "32000"
			}},
		{what: "the address for transcriptions is wrong", id: "provider.speech_address", class: doctor.Provider,
			inject: func(w *world) {
				w.add("config.yaml", "stt:\n  base_url: "+strings.TrimSuffix(w.brain.URL(), "/v1")+"\n  api_key: "+modelKey+"\n")
				w.restart()
				w.fill["address"] = w.brain.URL()
			}},
		{what: "the address for transcriptions is nobody's", id: "provider.speech_unreachable", class: doctor.Provider,
			inject: func(w *world) {
				w.add(".env", fmt.Sprintf("VOICE_TOOLS_OPENAI_KEY=%s\nSTT_OPENAI_BASE_URL=http://127.0.0.1:%d/v1\n", modelKey, freePort(w.t)))
				w.restart()
				w.fill["address"] = w.brain.URL()
			}},
		{what: "the key for transcriptions was revoked", id: "provider.speech_key_refused", class: doctor.Provider,
			inject: func(w *world) {
				w.add("config.yaml", "stt:\n  base_url: "+w.brain.URL()+"\n  api_key: sk-an-old-key-for-transcriptions\n")
				w.restart()
			}, fill: map[string]string{"key": modelKey}},
		{what: "the service for transcriptions asks for a key", id: "provider.speech_key_missing", class: doctor.Provider,
			inject: func(w *world) {
				w.add("config.yaml", "stt:\n  base_url: "+w.brain.URL()+"\n")
				w.restart()
			}, fill: map[string]string{"key": modelKey}},
		{what: "auth.json is no JSON", id: "profile.auth_json", class: doctor.Provider,
			inject: func(w *world) { w.write("auth.json", "{\"version\": 1,") }},
		{what: "another program used the login's refresh token", id: "provider.login_consumed", class: doctor.Provider, shape: shape{noModel: true, unstarted: true}, after: answers,
			inject: func(w *world) {
				o := w.signIn(3600)
				access, refresh := o.Login()
				w.login(fmt.Sprintf(`"access_token":%q,"refresh_token":%q,"token_url":%q,"client_id":"c"`, access, refresh, o.TokenURL()))
				w.renewElsewhere(o, refresh)
				_, _ = w.home.Run(w.deadline(), w.args("auth", "refresh")...) // it is meant to fail
			}},
		{what: "the login has expired, and has no refresh token", id: "provider.login_expired", class: doctor.Provider, shape: shape{noModel: true, unstarted: true}, after: answers, shows: []string{"has no refresh token"},
			inject: func(w *world) {
				o := w.signIn(3600)
				access, _ := o.Login()
				w.login(fmt.Sprintf(`"access_token":%q,"expires_at":%q,"token_url":%q,"client_id":"c"`, access, time.Now().Add(-time.Hour).Format(time.RFC3339), o.TokenURL()))
			}},
		{what: "the login will end, and has no refresh token", id: "provider.login_ends", class: doctor.Provider, shape: shape{noModel: true, unstarted: true}, after: answers,
			inject: func(w *world) {
				o := w.signIn(3600)
				access, _ := o.Login()
				w.login(fmt.Sprintf(`"access_token":%q,"expires_at":%q,"token_url":%q,"client_id":"c"`, access, time.Now().Add(time.Hour).Format(time.RFC3339), o.TokenURL()))
			}},
		{what: "the login has expired, and nobody knows how to sign in to its provider", id: "provider.login_expired", class: doctor.Provider, shape: shape{noModel: true, unstarted: true}, after: answers, shows: []string{"nothing says where it is renewed"},
			inject: func(w *world) {
				w.login(fmt.Sprintf(`"access_token":"a-0123456789","refresh_token":"r-0123456789","expires_at":%q`, time.Now().Add(-time.Hour).Format(time.RFC3339)))
				w.keyFile()
			}},
		{what: "the login of the root has expired, which a named profile uses", id: "provider.login_expired", class: doctor.Provider, shape: shape{profile: "liam", noModel: true, unstarted: true}, after: answers,
			inject: func(w *world) {
				w.login(fmt.Sprintf(`"access_token":"a-0123456789","refresh_token":"r-0123456789","expires_at":%q`, time.Now().Add(-time.Hour).Format(time.RFC3339)))
				w.must(os.Rename(w.path("auth.json"), filepath.Join(w.home.Dir, "auth.json")))
				w.restart()
				w.keyFile()
			}},
		{what: "a renewal of the login was cut short", id: "provider.login_uncertain", class: doctor.Provider, shape: shape{noModel: true, unstarted: true},
			inject: func(w *world) {
				o := w.signIn(3600)
				access, refresh := o.Login()
				w.login(fmt.Sprintf(`"access_token":%q,"refresh_token":%q,"token_url":%q,"client_id":"c","refresh_started_at":%q`, access, refresh, o.TokenURL(), time.Now().Add(-time.Hour).Format(time.RFC3339)))
			}},
		{what: "a key of the pool in auth.json was revoked", id: "provider.key_refused", class: doctor.Provider, shape: shape{noModel: true, unstarted: true}, after: answers,
			inject: func(w *world) {
				w.login(`"access_token":"sk-an-old-key-of-the-pool-0001","auth_type":"api_key"`)
				w.keyFile()
			}},
	}
}

// login makes the model one whose key is an entry of auth.json.
func (w *world) login(entry string) {
	w.add("config.yaml", fmt.Sprintf("model:\n  default: fake-1\n  provider: xai\n  base_url: %s\n", w.brain.URL()))
	if !strings.Contains(entry, "auth_type") {
		entry += `,"auth_type":"oauth"`
	}
	w.write("auth.json", `{"version":1,"credential_pool":{"xai":[{"id":"a1b2c3","label":"me",`+entry+`}]}}`)
	w.start()
}

// signIn is a service that signs people in, whose tokens the model takes.
func (w *world) signIn(seconds int) *oauth.Server {
	o := oauth.Start(seconds)
	w.t.Cleanup(o.Close)
	o.Confirm()
	w.brain.RequireKey("access-token-0002") // of the sign-in that follows
	w.fill["address that gives codes"] = o.DeviceURL()
	return o
}

// renewElsewhere is another program that uses up a refresh token.
func (w *world) renewElsewhere(o *oauth.Server, refresh string) {
	w.t.Helper()
	res, err := http.PostForm(o.TokenURL(), url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {"c"}})
	w.must(err)
	w.must(res.Body.Close())
	if res.StatusCode != http.StatusOK {
		w.t.Fatalf("the other program got %d", res.StatusCode)
	}
	w.brain.RequireKey("access-token-0003")
}

// keyFile is a file with a key that the model takes.
func (w *world) keyFile() {
	path := filepath.Join(w.dir, "key")
	w.must(writeFile(path, modelKey+"\n"))
	w.fill["file with a key"] = path
}

// answers holds that the model really answers after the fix.
func answers(w *world) {
	w.t.Helper()
	w.hermes("model", "check")
}

// deaf is the address of a service that accepts and says nothing.
func (w *world) deaf() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String() + "/v1"
}
