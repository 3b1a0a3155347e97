//go:build tools

// Package runc pins the OCI runtime that the peer containerd executes.
package runc

import _ "github.com/opencontainers/runc"
