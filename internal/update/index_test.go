package update

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"hermes/internal/domain"
)

var made = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func release(version string) Release {
	return Release{Version: version, Made: made, Archives: map[string]Archive{
		"linux/amd64": {File: ArchiveName(version, "linux", "amd64"), Size: 5, SHA256: strings.Repeat("ab", 32)},
	}}
}

func pair(t testing.TB) (Keys, minisign.PrivateKey) {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Keys{public}, private
}

func signed(t testing.TB, key minisign.PrivateKey, name string, v any) (text, signature []byte) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text, minisign.SignWithComments(key, text, TrustedComment(name), "")
}

func TestIndexIsTrustedByItsSignatureOnly(t *testing.T) {
	keys, key := pair(t)
	_, stranger := pair(t)
	want := Index{}.With("stable", release("1.2.3"))
	text, sig := signed(t, key, IndexName, want)
	got, err := ReadIndex(text, sig, keys)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	_, foreign := signed(t, stranger, IndexName, want)
	_, otherFile := signed(t, key, SumsName, want)
	// As the minisign program writes its comment.
	byHand := minisign.SignWithComments(key, text, "timestamp:1555779966\tfile:index.json\thashed", "")
	for _, c := range []struct {
		name      string
		text, sig []byte
		keys      Keys
		want      domain.Code
	}{
		{"by hand", text, byHand, keys, ""},
		{"a second key", text, foreign, append(Keys{keys[0]}, publicOf(stranger)), ""},
		{"a stranger's", text, foreign, keys, domain.Unauthenticated},
		{"no key at all", text, sig, nil, domain.Unauthenticated},
		{"another file's", text, otherFile, keys, domain.Unauthenticated},
		{"changed", append([]byte(" "), text...), sig, keys, domain.Unauthenticated},
		{"no signature", text, nil, keys, domain.Unauthenticated},
		{"rubbish", text, []byte("untrusted comment: x\nRW\n"), keys, domain.Unauthenticated},
	} {
		_, err := ReadIndex(c.text, c.sig, c.keys)
		if domain.CodeOf(err) != c.want && (err != nil || c.want != "") {
			t.Errorf("%s: %v, want code %q", c.name, err, c.want)
		}
	}
}

func publicOf(k minisign.PrivateKey) minisign.PublicKey { return k.Public().(minisign.PublicKey) }

func TestIndexThatCannotBeUsed(t *testing.T) {
	keys, key := pair(t)
	for name, change := range map[string]func(*Index){
		"of another format":         func(in *Index) { in.Format = 2 },
		"without a date":            func(in *Index) { in.Made = time.Time{} },
		"with a version that is no": func(in *Index) { in.Releases[0].Version = "../1" },
		"naming what it lacks":      func(in *Index) { in.Channels["beta"] = "9.9.9" },
		"leading out of the folder": func(in *Index) { edit(in, func(a *Archive) { a.File = "../x" }) },
		"with a hidden file":        func(in *Index) { edit(in, func(a *Archive) { a.File = ".x" }) },
		"with a short sum":          func(in *Index) { edit(in, func(a *Archive) { a.SHA256 = "ab" }) },
		"with a huge archive":       func(in *Index) { edit(in, func(a *Archive) { a.Size = maxArchive + 1 }) },
		"with an empty archive":     func(in *Index) { edit(in, func(a *Archive) { a.Size = 0 }) },
		"too long":                  func(in *Index) { in.Releases = make([]Release, maxReleases+1) },
	} {
		in := Index{}.With("stable", release("1.2.3"))
		change(&in)
		text, sig := signed(t, key, IndexName, in)
		if _, err := ReadIndex(text, sig, keys); !domain.IsCode(err, domain.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func edit(in *Index, f func(*Archive)) {
	a := in.Releases[0].Archives["linux/amd64"]
	f(&a)
	in.Releases[0].Archives["linux/amd64"] = a
}

func TestIndexKeepsWhatItsChannelsName(t *testing.T) {
	in := Index{}.With("stable", release("1.0.0"))
	for i := range 2 * maxReleases {
		in = in.With("beta", release(fmt.Sprintf("1.1.0-beta.%d", i)))
	}
	if len(in.Releases) != maxReleases {
		t.Errorf("%d releases", len(in.Releases))
	}
	if _, ok := in.Release("v1.0.0"); !ok {
		t.Error("the stable release was dropped")
	}
	if got, want := in.Releases[0].Version, fmt.Sprintf("1.1.0-beta.%d", 2*maxReleases-1); got != want {
		t.Errorf("newest is %s, want %s", got, want)
	}
	again := in.With("beta", in.Releases[0])
	if len(again.Releases) != len(in.Releases) {
		t.Error("a release that was made again is listed twice")
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[string]bool{
		"1.2.3": true, "1.2.3-beta.1": true, "0.0.1": true, "1.2.3+build": true,
		"v1.2.3": false, "1.2": false, "1": false, "": false, "1.2.3/..": false, "01.2.3": false, "79af3d2": false,
	} {
		if ValidVersion(v) != want {
			t.Errorf("ValidVersion(%q) = %v", v, !want)
		}
	}
	inOrder := []string{"79af3d2-dirty", "0.9.0", "v1.0.0-beta.2", "1.0.0-beta.10", "1.0.0", "1.0.1"}
	for i := range inOrder[1:] {
		if Compare(inOrder[i], inOrder[i+1]) != -1 || Compare(inOrder[i+1], inOrder[i]) != 1 {
			t.Errorf("%s is not older than %s", inOrder[i], inOrder[i+1])
		}
	}
}

func TestKeys(t *testing.T) {
	a, _ := pair(t)
	b, _ := pair(t)
	keys, err := ParseKeys(a[0].String() + ",\n " + b[0].String())
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if _, err := ParseKeys("RWnonsense"); !domain.IsCode(err, domain.Config) {
		t.Errorf("nonsense: %v", err)
	}
	if keys, err := BuiltinKeys(); err != nil || len(keys) != 0 {
		t.Errorf("a test's build has %d keys, %v", len(keys), err)
	}
}

// FuzzReadIndex holds that nothing in a signed index brings the reader down or
// lets a name lead out of the folder.
func FuzzReadIndex(f *testing.F) {
	keys, key := pair(f)
	text, _ := signed(f, key, IndexName, Index{}.With("stable", release("1.2.3")))
	f.Add(text)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := ReadIndex(text, minisign.SignWithComments(key, text, TrustedComment(IndexName), ""), keys)
		if err != nil {
			return
		}
		for _, r := range in.Releases {
			for _, a := range r.Archives {
				if strings.Contains(a.File, "/") {
					t.Errorf("%q was let through", a.File)
				}
			}
		}
	})
}
