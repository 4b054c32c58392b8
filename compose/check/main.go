// Prints a Compose project as the Compose specification's own library reads it, as JSON, or says what is wrong with it.
// Its project is the working directory, its variables are the environment's and those of .env.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func read(files []string) (*types.Project, error) {
	options, err := cli.NewProjectOptions(
		files, cli.WithOsEnv, cli.WithEnvFiles(), cli.WithDotEnv, cli.WithProfiles([]string{"*"}),
	)
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

func main() {
	project, err := read(os.Args[1:])
	if err == nil {
		var content []byte
		if content, err = project.MarshalJSON(); err == nil {
			fmt.Println(string(content))
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
