// Package systemd holds the promise on a real systemd: the real binary, as the
// units that operators install or write, is restarted, reloaded, killed, hung
// and rebooted under load, and what was refused, failed, cut, lost or doubled is
// counted. The fakes of Telegram and the model live in the test, at the box's
// loopback.
package systemd
