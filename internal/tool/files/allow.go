package files

import "hermes/internal/tool"

// Allow tells whether a file may leave the host as an attachment: what the file
// tools refuse to read is refused here too. Errors: domain.Forbidden and those of
// the path.
func Allow(o Options, home, path string) error {
	f := &files{o: o}
	env := tool.Env{Home: home, Workdir: home}
	abs, err := f.absolute(env, path)
	if err != nil {
		return err
	}
	return f.refuse(env, abs)
}
