package faults

func deliveryFaults() []fault { return nil }
