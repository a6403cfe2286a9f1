package faults

func unitFaults() []fault { return nil }
