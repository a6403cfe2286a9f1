package starts

// BootID names this boot of the machine, "" where that cannot be told.
func BootID() string { return bootID() }

// Full tells whether older starts may have been dropped from the record.
func (r Record) Full() bool { return len(r.Starts) >= kept }
