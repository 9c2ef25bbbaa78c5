// Command compose-config prints a compose file as Docker Compose sees it: by compose-go, the library behind `docker compose config`.
//
// Usage: compose-config FILE [PROFILE ...]; variables come from the environment. Exit code 1 with the reason when the file is refused.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: compose-config FILE [PROFILE ...]")
	}
	options, err := cli.NewProjectOptions(args[:1], cli.WithOsEnv, cli.WithProfiles(args[1:]))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	text, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(text, '\n'))
	return err
}
