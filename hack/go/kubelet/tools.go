//go:build tools

// Package kubelet pins the kubelet that hack/kubelet runs on berthd, and the image of Kubernetes' own tests.
package kubelet

import (
	_ "k8s.io/kubernetes/cmd/kubelet"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
