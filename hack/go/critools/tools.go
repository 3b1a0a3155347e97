//go:build tools

// Package critools pins the Go tools hack/tools builds: crictl, and what the test binary critest is made of.
package critools

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
