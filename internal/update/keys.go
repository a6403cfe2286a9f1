package update

// builtinKeys are the public keys that the maker of a release trusts, set by the
// linker: -X hermes/internal/update.builtinKeys=RW…. A program that was built
// otherwise has none.
var builtinKeys string

// builtinURL is where the maker of a release puts releases, set likewise; "" for
// nowhere.
var builtinURL string

// BuiltinURL is where this program looks for releases when nobody says where.
func BuiltinURL() string { return builtinURL }

// BuiltinKeys gives the keys that this program was built with, none for the
// build of a developer. Errors: Config.
func BuiltinKeys() (Keys, error) { return ParseKeys(builtinKeys) }
