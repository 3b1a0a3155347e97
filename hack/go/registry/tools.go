//go:build tools

// Package registry pins the image registry hack/tools builds.
package registry

import _ "github.com/distribution/distribution/v3/cmd/registry"
