// Command dockerfile-check reads a Dockerfile as `docker build` does, by BuildKit's parser, and prints what its linter says, a line each.
//
// Usage: dockerfile-check FILE. Exit code 1 when something is found or the file is refused.
package main

import (
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: dockerfile-check FILE")
	}
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	read, err := parser.Parse(file)
	if err != nil {
		return err
	}
	for _, one := range read.Warnings {
		fmt.Println(one.Short)
	}
	found := len(read.Warnings)
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		found++
		fmt.Printf("%s: %s\n", rule, message)
	}})
	if _, _, err = instructions.Parse(read.AST, lint); err != nil {
		return err
	}
	if found > 0 {
		return fmt.Errorf("%d findings", found)
	}
	return nil
}
