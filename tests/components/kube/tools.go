//go:build tools

// Package tools names the programs that this folder pins; nothing compiles it.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
