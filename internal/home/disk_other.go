//go:build !unix

package home

func isDiskFull(error) bool { return false }
