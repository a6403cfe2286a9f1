package faults

func schedulerFaults() []fault { return nil }
