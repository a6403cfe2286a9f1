package webhook

// CloseIdle ends the connections that posts left.
func (a *Adapter) CloseIdle() { a.d.HTTP.CloseIdleConnections() }
