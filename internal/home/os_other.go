//go:build !unix

package home

func isDiskFull(error) bool { return false }

func alive(int, uint64) bool { return true }
