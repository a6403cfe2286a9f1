// Package safemode lets the real binary die again and again, as a broken
// configuration, a bad part or a bad update makes it, and looks at how the next
// starts take care.
package safemode
