// Package rescue holds what happens on a real systemd when a unit has ended for
// good, and what the commands say that prove an installation: the rescue unit,
// `hermes gateway verify` and `hermes gateway drill`. Telegram's fake lives in
// the test, at the box's loopback.
package rescue
