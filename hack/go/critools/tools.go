//go:build tools

// Package critools pins the Go tools hack/tools builds: crictl, what the test binary critest is made of, and ginkgo, which runs it in several processes.
package critools

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
