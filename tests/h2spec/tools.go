//go:build tools

// Package tools names the programs that the tests fetch, so that their versions are those of go.mod.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
